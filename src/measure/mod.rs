//! Clocks and memory readings around a step, and what else disturbs it. Knows closures and devices, not models.

mod clock;
mod device_clock;
mod disturbance;
mod memory;
mod processors;
#[cfg(feature = "cubecl")]
mod reading;
mod sensors;
mod steps;
#[cfg(test)]
mod testing;
#[cfg(feature = "cubecl")]
mod throughput;

use std::time::Duration;

pub use clock::{Clock, Span};
pub use device_clock::{HOST_CLOCK, device_clock};
pub use memory::MemoryProbe;
pub use sensors::{Machine, Sensors, State};
pub use steps::{Measured, Sampling, StepTimes, TokenTimes, run_steps};
#[cfg(feature = "cubecl")]
pub(crate) use {reading::reading, throughput::throughput};

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
