mod base;

pub use base::*;

pub(crate) mod handle;

#[cfg(all(feature = "std", multi_threading))]
pub use handle::either::OnCallersThread;
