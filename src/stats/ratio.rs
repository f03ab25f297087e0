use std::fmt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Share of experiments whose interval holds the true ratio.
const LEVEL: f64 = 0.95;

/// Resamplings behind a standard error.
const RESAMPLINGS: usize = 1000;

/// Seed of the resamplings: the same samples give the same interval.
const SEED: u64 = 1;

/// A ratio of two means with the interval that holds the true one in 95 of 100 experiments.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RatioInterval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// What an interval of the speed-up `baseline time / candidate time` allows to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The candidate is faster: the whole interval lies above 1.
    Faster,
    /// The candidate is slower: the whole interval lies below 1.
    Slower,
    /// The interval holds 1.
    NoDifferenceShown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::NoDifferenceShown => "no difference shown",
        })
    }
}

impl RatioInterval {
    /// The interval of `mean(baseline) / mean(candidate)`; each is a list of rounds, a round the samples of one process.
    /// `None` if a side has fewer than two rounds, or a mean is not positive.
    ///
    /// Samples of one process share its memory layout and its hour, so rounds, not samples, carry the evidence (Kalibera
    /// and Jones 2013, "Rigorous Benchmarking in Reasonable Time"). The standard error of each side's mean comes from a
    /// hierarchical bootstrap, rounds first, then samples within each. Resampling few rounds makes it too small by
    /// `sqrt((n - 1) / n)` (Hesterberg 2015, arXiv:1411.5279, section 3), which is made up for, and quantiles are
    /// Student's with the degrees of freedom of Welch and Satterthwaite, of the logarithm of the ratio.
    #[must_use]
    pub fn of(baseline: &[Vec<f64>], candidate: &[Vec<f64>]) -> Option<Self> {
        let (baseline, candidate) = (Side::of(baseline)?, Side::of(candidate)?);
        let variance = baseline.variance + candidate.variance;
        let centre = (baseline.mean / candidate.mean).ln();
        if variance == 0.0 {
            return Some(Self { low: centre.exp(), high: centre.exp() });
        }
        let parts = [&baseline, &candidate].map(|side| side.variance.powi(2) / (side.rounds - 1.0));
        let freedom = variance.powi(2) / parts.iter().sum::<f64>();
        let quantile = StudentsT::new(0.0, 1.0, freedom).ok()?.inverse_cdf(f64::midpoint(1.0, LEVEL));
        let reach = quantile * variance.sqrt();
        Some(Self { low: (centre - reach).exp(), high: (centre + reach).exp() })
    }

    /// What it allows to say.
    #[must_use]
    pub fn verdict(self) -> Verdict {
        if self.low > 1.0 {
            Verdict::Faster
        } else if self.high < 1.0 {
            Verdict::Slower
        } else {
            Verdict::NoDifferenceShown
        }
    }
}

/// One side's mean and the relative variance of it.
struct Side {
    rounds: f64,
    mean: f64,
    variance: f64,
}

impl Side {
    fn of(rounds: &[Vec<f64>]) -> Option<Self> {
        if rounds.len() < 2 || rounds.iter().any(Vec::is_empty) {
            return None;
        }
        let mean = mean_of(rounds.iter().map(|round| mean_of(round.iter().copied())));
        if !(mean > 0.0 && mean.is_finite()) {
            return None;
        }
        let mut random = StdRng::seed_from_u64(SEED);
        let resampled = (0..RESAMPLINGS).map(|_| {
            mean_of((0..rounds.len()).map(|_| {
                let round = &rounds[random.random_range(0..rounds.len())];
                mean_of((0..round.len()).map(|_| round[random.random_range(0..round.len())]))
            }))
        });
        let resampled: Vec<f64> = resampled.map(|value| value / mean).collect();
        let centre = mean_of(resampled.iter().copied());
        let spread = mean_of(resampled.iter().map(|value| (value - centre).powi(2)));
        let count = rounds.len() as f64;
        Some(Self { rounds: count, mean, variance: spread * count / (count - 1.0) })
    }
}

fn mean_of(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_distr::{Distribution, Normal};

    use super::*;

    /// Rounds of a process whose mean time is `mean`: processes differ by 3 %, samples by 5 % of it.
    fn stream(random: &mut StdRng, rounds: usize, mean: f64) -> Vec<Vec<f64>> {
        let process = Normal::new(1.0, 0.03).expect("a distribution");
        let sample = Normal::new(1.0, 0.05).expect("a distribution");
        let round = |_| {
            let mean = mean * process.sample(random);
            (0..20).map(|_| mean * sample.sample(random)).collect()
        };
        (0..rounds).map(round).collect()
    }

    fn verdicts(rounds: usize, slowdown: f64) -> Vec<Verdict> {
        let mut random = StdRng::seed_from_u64(7);
        let experiments = 300;
        (0..experiments)
            .map(|_| {
                let (a, b) = (stream(&mut random, rounds, 10.0), stream(&mut random, rounds, 10.0 * slowdown));
                RatioInterval::of(&a, &b).expect("there are rounds").verdict()
            })
            .collect()
    }

    fn share(verdicts: &[Verdict], wanted: Verdict) -> f64 {
        verdicts.iter().filter(|verdict| **verdict == wanted).count() as f64 / verdicts.len() as f64
    }

    #[test]
    fn the_same_against_itself_differs_in_at_most_five_of_a_hundred_experiments() {
        for rounds in [2, 3, 5, 10] {
            let share = share(&verdicts(rounds, 1.0), Verdict::NoDifferenceShown);
            assert!(share >= 0.95, "{rounds} rounds: {share}");
        }
    }

    #[test]
    fn a_tenth_more_is_found_with_enough_rounds_and_a_hundredth_is_not_claimed() {
        assert!(share(&verdicts(5, 1.10), Verdict::Slower) >= 0.95);
        assert!(share(&verdicts(5, 1.25), Verdict::Slower) >= 0.99);
        let small = verdicts(3, 1.01);
        assert!(share(&small, Verdict::NoDifferenceShown) >= 0.9);
    }

    #[test]
    fn one_round_shows_nothing() {
        assert_eq!(RatioInterval::of(&[vec![1.0, 1.1]], &[vec![1.0], vec![1.1]]), None);
        assert_eq!(RatioInterval::of(&[vec![0.0], vec![0.0]], &[vec![1.0], vec![1.1]]), None);
    }

    #[test]
    fn exact_times_have_an_exact_ratio() {
        let interval = RatioInterval::of(&vec![vec![3.0; 4]; 3], &vec![vec![2.0; 4]; 3]).expect("an interval");
        assert!((interval.low - 1.5).abs() < 1e-12 && (interval.high - 1.5).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn the_interval_holds_the_ratio_and_turns_with_it(
            a in prop::collection::vec(prop::collection::vec(0.5_f64..2.0, 1..6), 2..5),
            b in prop::collection::vec(prop::collection::vec(0.5_f64..2.0, 1..6), 2..5),
        ) {
            let mean = |rounds: &[Vec<f64>]| mean_of(rounds.iter().map(|round| mean_of(round.iter().copied())));
            let (one, other) = (RatioInterval::of(&a, &b).unwrap(), RatioInterval::of(&b, &a).unwrap());
            let ratio = mean(&a) / mean(&b);
            prop_assert!(one.low <= ratio * (1.0 + 1e-12) && ratio <= one.high * (1.0 + 1e-12));
            prop_assert!((one.low * other.high - 1.0).abs() < 1e-9 && (one.high * other.low - 1.0).abs() < 1e-9);
        }
    }
}
