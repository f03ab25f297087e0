//! Clocks and memory readings around a step. Knows closures, not models.

mod clock;
mod memory;
mod steps;

pub use clock::Clock;
pub use memory::MemoryProbe;
pub use steps::{Measured, StepTimes, run_steps};
