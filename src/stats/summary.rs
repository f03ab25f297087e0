use super::Sample;

/// The figures a report quotes of a sample, all in the sample's own unit except `count`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Number of values.
    pub count: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Population standard deviation (ddof 0).
    pub std: f64,
    /// 50th percentile.
    pub median: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// 95th percentile by linear interpolation.
    pub p95: f64,
    /// 99th percentile by linear interpolation.
    pub p99: f64,
}

impl Summary {
    /// Computes every figure of the sample.
    pub fn of(sample: &Sample) -> Self {
        Self {
            count: sample.count(),
            mean: sample.mean(),
            std: sample.std(),
            median: sample.median(),
            min: sample.min(),
            max: sample.max(),
            p95: sample.percentile(95.0),
            p99: sample.percentile(99.0),
        }
    }
}
