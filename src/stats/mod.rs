//! Statistics: pure functions over a validated sample of `f64` figures; no clock, no units, no I/O.

mod batch_means;
mod change_points;
mod ratio;
mod sample;
mod summary;
#[cfg(test)]
mod tests;

pub use batch_means::relative_half_width;
pub use change_points::{Classification, Course, LEAST_STEPS};
pub use ratio::{RatioInterval, Verdict};
pub use sample::{Sample, SampleError};
pub use summary::Summary;
