use std::time::Instant;

use burn::tensor::Device;

use super::nanoseconds;
use crate::spec::{Failure, FailureKind};

/// The wall clock, synchronised with a device: nothing is running when it starts or stops.
pub struct Clock<'a>(&'a Device);

impl<'a> Clock<'a> {
    /// The clock of `device`.
    #[must_use]
    pub fn new(device: &'a Device) -> Self {
        Self(device)
    }

    /// Runs `work` and returns what it returned with its wall clock in nanoseconds.
    ///
    /// `work` must return its result instead of dropping it: fusion never computes what nobody holds any more when the
    /// device is synchronised.
    pub fn time<R>(&self, work: impl FnOnce() -> R) -> Result<(R, u64), Failure> {
        self.sync()?;
        let start = Instant::now();
        let result = work();
        self.sync()?;
        Ok((result, nanoseconds(start.elapsed())))
    }

    /// Waits until the device has done everything it was given.
    pub fn sync(&self) -> Result<(), Failure> {
        self.0.sync().map_err(|error| Failure::new(FailureKind::Crashed, format!("the device failed: {error}")))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Distribution, Tensor};

    use crate::ops::testing::devices;

    use super::*;

    /// A clock that did not wait for the device would read the same for little and for much work.
    #[test]
    fn time_grows_with_work() {
        for tested in devices() {
            let clock = Clock::new(&tested.device);
            let x = Tensor::<2>::random([256, 256], Distribution::Default, &tested.device);
            let products = |count: usize| {
                let best = (0..5).map(|_| {
                    let work = || (0..count).fold(x.clone(), |y, _| y.matmul(x.clone()) / 256.0);
                    clock.time(work).expect("the device synchronises").1
                });
                best.min().expect("five runs")
            };
            assert!(products(40) > 2 * products(4), "{}", tested.name);
        }
    }
}
