//! From defaults, file and flags to a valid [`Experiment`] that knows where each value came from.

mod error;
mod experiment;
mod file;
mod flags;
mod keys;
mod resolve;
mod show;
#[cfg(test)]
mod tests;
mod validate;

pub use error::{ConfigError, Fault};
pub use experiment::{
    Axes, Exclude, Experiment, Generation, Inference, Limits, Model, Steps, Stopping, Training, Verify,
};
pub use flags::Flags;
pub(crate) use keys::nearest;
pub use resolve::{Resolved, load};
pub use show::{schema, show};
