mod base;

pub use base::*;

pub(crate) mod handle;

#[cfg(feature = "std")]
pub use handle::reply::spin_for_replies;
