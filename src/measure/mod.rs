//! Clocks and memory readings around a step. Knows closures and devices, not models.

mod clock;
mod device_clock;
mod memory;
mod steps;
#[cfg(feature = "cubecl")]
mod throughput;

use std::time::Duration;

pub use clock::Clock;
pub use device_clock::{HOST_CLOCK, device_clock};
pub use memory::MemoryProbe;
pub use steps::{Measured, StepTimes, TokenTimes, run_steps};
#[cfg(feature = "cubecl")]
pub(crate) use throughput::throughput;

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
