use statrs::distribution::{ContinuousCDF, StudentsT};

/// Batches, so few that each is long enough to depend little on its neighbours (Schmeiser 1982).
const BATCHES: usize = 10;

/// Values a batch must hold.
const LEAST: usize = 2;

/// Half of the 95 % interval of the mean, as a share of it, by batch means; `None` of fewer than 20 values, or if the
/// mean is not positive.
///
/// Times of one process follow one another, so that the standard error of independent values is too small. The means of
/// 10 batches of successive values are nearly independent (Schmeiser 1982, "Batch Size Effects in the Analysis of
/// Simulation Output", doi:10.1287/opre.30.3.556). What does not fill the batches is left out at the start.
#[must_use]
pub fn relative_half_width(values: &[f64]) -> Option<f64> {
    let size = values.len() / BATCHES;
    if size < LEAST {
        return None;
    }
    let kept = &values[values.len() - size * BATCHES..];
    let means: Vec<f64> = kept.chunks(size).map(|batch| batch.iter().sum::<f64>() / size as f64).collect();
    let count = BATCHES as f64;
    let mean = means.iter().sum::<f64>() / count;
    let variance = means.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let quantile = StudentsT::new(0.0, 1.0, count - 1.0).ok()?.inverse_cdf(0.975);
    (mean > 0.0 && mean.is_finite()).then(|| quantile * (variance / count).sqrt() / mean)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use rand_distr::{Distribution, Normal};

    use super::*;

    #[test]
    fn it_is_students_interval_of_the_batches_means() {
        let values: Vec<f64> = (0..10).flat_map(|batch| [f64::from(batch), f64::from(batch) + 2.0]).collect();
        let expected = 2.262_157_162_740_99 * (82.5_f64 / 9.0 / 10.0).sqrt() / 5.5;
        assert!((relative_half_width(&values).expect("20 values") - expected).abs() < 1e-9);
        assert_eq!(relative_half_width(&[1.0; 20]), Some(0.0));
        assert_eq!(relative_half_width(&[1.0; 19]), None);
        assert_eq!(relative_half_width(&[0.0; 20]), None);
    }

    /// Each value keeps 0.7 of the one before: with 20 to a batch the interval still holds the mean in 9 of 10 series;
    /// that of independent values does in fewer than 7.
    #[test]
    fn values_that_follow_one_another_are_not_taken_for_independent() {
        let (mut random, noise) = (StdRng::seed_from_u64(3), Normal::new(0.0, 1.0).expect("a distribution"));
        let (mut by_batches, mut independent) = (0, 0);
        for _ in 0..400 {
            let mut state = 0.0;
            let mut next = || {
                state = 0.7 * state + noise.sample(&mut random);
                100.0 + state
            };
            let values: Vec<f64> = (0..200).map(|_| next()).collect();
            let mean = values.iter().sum::<f64>() / 200.0;
            let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 199.0).sqrt();
            let off = (mean - 100.0).abs();
            by_batches += usize::from(off <= relative_half_width(&values).expect("values") * mean);
            independent += usize::from(off <= 1.97 * deviation / 200.0_f64.sqrt());
        }
        assert!(by_batches >= 360 && independent < 280, "{by_batches}, {independent} of 400");
    }
}
