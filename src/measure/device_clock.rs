use burn::tensor::{Device, ProfileOptions, TimingMethod, read_sync};

use super::{Clock, nanoseconds};
use crate::spec::{DeviceClock, Failure, Reading};

/// Why a backend's clock tells nothing beside the wall clock.
pub const HOST_CLOCK: &str = "the backend has no clock but the host's";

/// Runs `work` so many times under the clock of `device`, each time to the end of what it queued, with the wall clock
/// beside it. Missing where the backend's clock is the host's.
pub fn device_clock<R: Send + 'static>(
    device: &Device,
    times: usize,
    mut work: impl FnMut() -> R + Send,
) -> Result<Reading<DeviceClock>, Failure> {
    let clock = Clock::new(device);
    let (mut device_ns, mut wall_ns) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let (window, wall) = clock.time(|| device.profile_with(ProfileOptions::default().flush(), &mut work))?;
        let (_result, window) = match window {
            Ok(window) => window,
            Err(error) => return Ok(Reading::missing(format!("the device refused to time a step: {error}"))),
        };
        if window.timing_method() == TimingMethod::System {
            return Ok(Reading::missing(HOST_CLOCK));
        }
        let Some(ticks) = read_sync(window.resolve()) else {
            return Ok(Reading::missing("the device's clock carried no measurement"));
        };
        device_ns.push(nanoseconds(ticks.duration()));
        wall_ns.push(wall.total_ns);
    }
    Ok(Reading::Read(DeviceClock { device_ns, wall_ns }))
}
