use thiserror::Error;

/// Why a list of figures is not a sample.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SampleError {
    /// There is nothing to describe.
    #[error("a sample needs at least one value")]
    Empty,
    /// A value is not a number, infinite, or so large that its square is.
    #[error("value {value} at position {position} is not a finite number below {limit:e}", limit = Sample::LIMIT)]
    OutOfRange {
        /// Its place in the list, from 0.
        position: usize,
        /// The value.
        value: f64,
    },
}

/// Figures that have been checked once: at least one, all finite, kept in ascending order.
///
/// Every statistic of a `Sample` is therefore a finite number and does not depend on the order of the input.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    sorted: Vec<f64>,
}

impl Sample {
    /// Magnitudes must stay below this, so that squares and sums of squares stay finite.
    pub const LIMIT: f64 = 1e150;

    /// Checks and sorts the values.
    pub fn new(mut values: Vec<f64>) -> Result<Self, SampleError> {
        if values.is_empty() {
            return Err(SampleError::Empty);
        }
        if let Some(position) = values.iter().position(|value| value.is_nan() || value.abs() >= Self::LIMIT) {
            return Err(SampleError::OutOfRange { position, value: values[position] });
        }
        values.sort_by(f64::total_cmp);
        Ok(Self { sorted: values })
    }

    /// Number of values, at least 1.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// Smallest value.
    pub fn min(&self) -> f64 {
        self.sorted[0]
    }

    /// Largest value.
    pub fn max(&self) -> f64 {
        self.sorted[self.count() - 1]
    }

    /// Arithmetic mean, `sum(x) / n`; never outside `min..=max`, whatever the rounding.
    pub fn mean(&self) -> f64 {
        (pairwise_sum(&self.sorted, |value| value) / self.count() as f64).clamp(self.min(), self.max())
    }

    /// Population standard deviation, `sqrt(sum((x - mean)^2) / n)` (ddof 0).
    pub fn std(&self) -> f64 {
        let mean = self.mean();
        (pairwise_sum(&self.sorted, |value| (value - mean).powi(2)) / self.count() as f64).sqrt()
    }

    /// Median: the 50th percentile.
    pub fn median(&self) -> f64 {
        self.percentile(50.0)
    }

    /// The `percent`-th percentile by linear interpolation, numpy's default definition: the value at position
    /// `percent / 100 * (n - 1)` of the sorted sample, between its two neighbours in proportion.
    ///
    /// # Panics
    /// If `percent` is outside `0.0..=100.0`.
    pub fn percentile(&self, percent: f64) -> f64 {
        assert!((0.0..=100.0).contains(&percent), "percentile {percent} is outside 0..=100");
        let position = percent / 100.0 * (self.count() - 1) as f64;
        let below = self.sorted[position.floor() as usize];
        let above = self.sorted[position.ceil() as usize];
        interpolate(below, above, position.fract())
    }
}

/// Between `below` at 0 and `above` at 1; from the nearer end, as numpy does, so that it is monotone and exact at both.
fn interpolate(below: f64, above: f64, fraction: f64) -> f64 {
    let gap = above - below;
    let value = if fraction < 0.5 { below + gap * fraction } else { above - gap * (1.0 - fraction) };
    value.clamp(below, above)
}

/// Sum of `term` over the values by halves: the rounding error grows with the logarithm of the length.
fn pairwise_sum(values: &[f64], term: impl Fn(f64) -> f64 + Copy) -> f64 {
    if values.len() <= 8 {
        return values.iter().map(|&value| term(value)).sum();
    }
    let (left, right) = values.split_at(values.len() / 2);
    pairwise_sum(left, term) + pairwise_sum(right, term)
}
