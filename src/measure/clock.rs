use std::ops::Add;
use std::time::Instant;

use burn::tensor::Device;

use super::nanoseconds;
use crate::spec::{Failure, FailureKind};

/// Wall clock of some work, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Until the device had done it.
    pub total_ns: u64,
    /// Until its calls returned: from then on only the device was waited for. What fusion has yet to launch by then comes after.
    pub returned_ns: u64,
}

impl Add for Span {
    type Output = Self;

    fn add(self, next: Self) -> Self {
        Self { total_ns: self.total_ns + next.total_ns, returned_ns: self.returned_ns + next.returned_ns }
    }
}

/// The wall clock, synchronised with a device: nothing is running when it starts or stops.
pub struct Clock<'a>(&'a Device);

impl<'a> Clock<'a> {
    /// The clock of `device`.
    #[must_use]
    pub fn new(device: &'a Device) -> Self {
        Self(device)
    }

    /// Runs `work` and returns what it returned with its wall clock.
    ///
    /// `work` must return its result instead of dropping it: fusion never computes what nobody holds any more when the
    /// device is synchronised.
    pub fn time<R>(&self, work: impl FnOnce() -> R) -> Result<(R, Span), Failure> {
        self.sync()?;
        let start = Instant::now();
        let result = work();
        let returned_ns = nanoseconds(start.elapsed());
        self.sync()?;
        Ok((result, Span { total_ns: nanoseconds(start.elapsed()), returned_ns }))
    }

    /// The fastest of so many runs of `work`, in nanoseconds, each as [`Self::time`] takes it.
    pub fn fastest<R>(&self, runs: usize, work: impl Fn() -> R) -> Result<u64, Failure> {
        let mut fastest = u64::MAX;
        for _ in 0..runs {
            fastest = fastest.min(self.time(&work)?.1.total_ns);
        }
        Ok(fastest)
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
                let work = || (0..count).fold(x.clone(), |y, _| y.matmul(x.clone()) / 256.0);
                clock.fastest(5, work).expect("the device synchronises")
            };
            assert!(products(40) > 2 * products(4), "{}", tested.name);
        }
    }
}
