//! Change-points of a series of times, and what they say of its course.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Sample;

/// A change-point costs this many times `ln n` (Barrett et al. 2017, section 4.2).
const PENALTY: f64 = 15.0;

/// Least standard deviation of a segment as a share of the median: likelihood stays finite where times are equal.
const LEAST_DEVIATION: f64 = 1e-4;

/// Means that differ by at most this share of the last one's are the same.
const EQUAL: f64 = 0.05;

/// Share of the steps that a steady state must last: 500 of 2000 in the paper.
const STEADY: f64 = 0.25;

/// Steps of the sliding window in which a step may be an outlier.
const WINDOW: usize = 200;

/// Share of the steps at the start that are never outliers: 200 of 2000 in the paper.
const START: f64 = 0.1;

/// With fewer steps the penalty does not outweigh a chance likeness of neighbours.
pub const LEAST_STEPS: usize = 8;

/// How the times of a process went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Classification {
    /// The same from the first step on.
    Flat,
    /// Steady in the end, and slower before.
    WarmUp,
    /// Steady in the end, and faster at some time before.
    Slowdown,
    /// Less than the last quarter of the steps is steady.
    NoSteadyState,
}

impl fmt::Display for Classification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flat => "flat",
            Self::WarmUp => "warm-up",
            Self::Slowdown => "slowdown",
            Self::NoSteadyState => "no steady state",
        })
    }
}

/// The course of one process: its classification, and from which step on, from 0, times stay the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Course {
    /// In words.
    pub classification: Classification,
    /// First step of the last segment, and of those before it that equal it.
    pub from_step: usize,
}

impl Course {
    /// The course of a process's times in order, the first `warmup` of which are no samples; `None` of fewer than
    /// [`LEAST_STEPS`], or if a time is not a finite number above zero.
    ///
    /// After Barrett, Bolz-Tereick, Killick, Mount and Tratt 2017, "Virtual Machine Warmup Blows Hot and Cold",
    /// doi:10.1145/3133876. A segment equals the last one if its mean is within 5 %, or one standard deviation of it.
    #[must_use]
    pub fn of(times: &[f64], warmup: usize) -> Option<Self> {
        if times.len() < LEAST_STEPS || times.iter().any(|time| !(*time > 0.0 && *time < Sample::LIMIT)) {
            return None;
        }
        let outliers = outliers(times, warmup);
        let kept: Vec<usize> = (0..times.len()).filter(|step| !outliers[*step]).collect();
        let values: Vec<f64> = kept.iter().map(|step| times[*step]).collect();
        let costs = Costs::of(&values);
        let starts = change_points(&values);
        let ends = starts.iter().skip(1).copied().chain([values.len()]);
        let segments: Vec<_> = starts.iter().copied().zip(ends).collect();
        let moments = |(start, end): (usize, usize)| costs.moments(start, end);
        let (last, variance) = moments(*segments.last()?);
        let reach = (EQUAL * last).max(variance.sqrt());
        let differs = |segment: &(usize, usize)| (moments(*segment).0 - last).abs() > reach;
        let first = segments.iter().rposition(differs).map_or(0, |before| before + 1);
        let from_step = if first == 0 { 0 } else { kept[segments[first].0] };
        let faster = segments[..first].iter().any(|segment| differs(segment) && moments(*segment).0 < last);
        let classification = if first == 0 {
            Classification::Flat
        } else if ((times.len() - from_step) as f64) < STEADY * times.len() as f64 {
            Classification::NoSteadyState
        } else if faster {
            Classification::Slowdown
        } else {
            Classification::WarmUp
        };
        Some(Self { classification, from_step })
    }
}

/// Which steps lie outside the median ± 3 x (90th - 10th percentile) of the 200 steps around them. Never those of the
/// warm-up, of the first tenth, or that follow on these without a gap: there slow steps are what is looked for.
fn outliers(times: &[f64], warmup: usize) -> Vec<bool> {
    let outlying = |step: usize| {
        let start = step.saturating_sub(WINDOW / 2).min(times.len().saturating_sub(WINDOW));
        let window = times[start..(start + WINDOW).min(times.len())].to_vec();
        let window = Sample::new(window).expect("times were checked");
        let reach = 3.0 * (window.percentile(90.0) - window.percentile(10.0));
        (times[step] - window.median()).abs() > reach
    };
    let start = warmup.max((START * times.len() as f64).ceil() as usize);
    let start = (start..times.len()).find(|step| !outlying(*step)).unwrap_or(times.len());
    (0..times.len()).map(|step| step >= start && outlying(step)).collect()
}

/// Sums from which the cost of any segment follows at once.
struct Costs {
    /// Of the values over their median.
    sums: Vec<f64>,
    /// Of their squared distances from 1.
    squares: Vec<f64>,
    median: f64,
}

impl Costs {
    fn of(values: &[f64]) -> Self {
        let median = Sample::new(values.to_vec()).map_or(1.0, |sample| sample.median());
        let (mut sums, mut squares) = (vec![0.0], vec![0.0]);
        for (index, value) in values.iter().enumerate() {
            let distance = value / median - 1.0;
            sums.push(sums[index] + distance);
            squares.push(squares[index] + distance.powi(2));
        }
        Self { sums, squares, median }
    }

    /// Mean and variance of the values from `start` to before `end`, over the median less one.
    fn relative(&self, start: usize, end: usize) -> (f64, f64) {
        let count = (end - start) as f64;
        let mean = (self.sums[end] - self.sums[start]) / count;
        (mean, ((self.squares[end] - self.squares[start]) / count - mean.powi(2)).max(0.0))
    }

    fn moments(&self, start: usize, end: usize) -> (f64, f64) {
        let (mean, variance) = self.relative(start, end);
        ((mean + 1.0) * self.median, variance * self.median.powi(2))
    }

    /// Twice the negative log-likelihood of a normal distribution's best mean and variance, without its constant.
    fn cost(&self, start: usize, end: usize) -> f64 {
        let (_, variance) = self.relative(start, end);
        let best = variance.max(LEAST_DEVIATION.powi(2));
        (end - start) as f64 * (best.ln() + variance / best)
    }
}

/// Starts of the segments, 0 first, that have the least cost with a penalty of `15 ln n` for each change in mean or
/// variance. Exact, by PELT: a start is dropped once no later end can make it the best (Killick, Fearnhead and Eckley
/// 2012, arXiv:1101.1438). Empty for no values.
fn change_points(values: &[f64]) -> Vec<usize> {
    let (costs, penalty) = (Costs::of(values), PENALTY * (values.len() as f64).ln());
    let (mut best, mut previous) = (vec![-penalty], vec![0]);
    let mut candidates = vec![0];
    for end in 1..=values.len() {
        let through: Vec<f64> = candidates.iter().map(|&start| best[start] + costs.cost(start, end)).collect();
        let (start, least) = candidates
            .iter()
            .zip(&through)
            .min_by(|a, b| a.1.total_cmp(b.1))
            .map(|(start, cost)| (*start, *cost + penalty))
            .expect("there is a candidate");
        best.push(least);
        previous.push(start);
        candidates =
            candidates.iter().zip(&through).filter(|(_, cost)| **cost <= least).map(|(start, _)| *start).collect();
        candidates.push(end);
    }
    let mut starts = Vec::new();
    let mut end = values.len();
    while end > 0 {
        end = previous[end];
        starts.push(end);
    }
    starts.reverse();
    starts
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use rand_distr::{Distribution, Normal};

    use super::*;

    /// Steps of these means, each with a deviation of 1 %.
    fn noisy(seed: u64, means: &[(usize, f64)]) -> Vec<f64> {
        let mut random = StdRng::seed_from_u64(seed);
        let noise = Normal::new(1.0, 0.01).expect("a distribution");
        means
            .iter()
            .flat_map(|(count, mean)| vec![*mean; *count])
            .map(|mean| mean * noise.sample(&mut random))
            .collect()
    }

    fn course(means: &[(usize, f64)]) -> (Classification, usize) {
        let course = Course::of(&noisy(1, means), 10).expect("enough steps");
        (course.classification, course.from_step)
    }

    #[test]
    fn courses_are_told_apart() {
        assert_eq!(course(&[(60, 10.0)]), (Classification::Flat, 0));
        assert_eq!(course(&[(1, 50.0), (59, 10.0)]), (Classification::WarmUp, 1));
        assert_eq!(course(&[(2, 50.0), (12, 14.0), (46, 10.0)]), (Classification::WarmUp, 14));
        assert_eq!(course(&[(30, 10.0), (30, 12.0)]), (Classification::Slowdown, 30));
        assert_eq!(course(&[(5, 20.0), (25, 10.0), (30, 12.0)]), (Classification::Slowdown, 30));
        assert_eq!(course(&[(50, 10.0), (10, 12.0)]), (Classification::NoSteadyState, 50));
    }

    #[test]
    fn small_changes_are_equal_and_lone_slow_samples_are_left_out() {
        assert_eq!(course(&[(30, 10.0), (30, 10.3)]), (Classification::Flat, 0));
        assert_eq!(course(&[(40, 10.0), (1, 30.0), (19, 10.0)]), (Classification::Flat, 0));
        assert_eq!(course(&[(12, 30.0), (48, 10.0)]), (Classification::WarmUp, 12), "a warm-up that went on");
        assert_eq!(Course::of(&[10.0; 7], 0), None);
        assert_eq!(Course::of(&[0.0; 60], 0), None);
        assert_eq!(Course::of(&[10.0; 8], 0), Some(Course { classification: Classification::Flat, from_step: 0 }));
    }

    #[test]
    fn steady_noise_has_no_change() {
        let flat = |seed| change_points(&noisy(seed, &[(60, 10.0)])).len() == 1;
        let share = (0..200).filter(|seed| flat(*seed)).count();
        assert!(share >= 198, "{share} of 200");
    }

    /// The least cost by optimal partitioning (Jackson et al. 2005), every start tried for every end.
    fn optimal(values: &[f64]) -> f64 {
        let (costs, penalty) = (Costs::of(values), PENALTY * (values.len() as f64).ln());
        let mut best = vec![-penalty];
        for end in 1..=values.len() {
            let least =
                (0..end).map(|start| best[start] + costs.cost(start, end) + penalty).fold(f64::INFINITY, f64::min);
            best.push(least);
        }
        best[values.len()]
    }

    proptest! {
        #[test]
        fn pruning_loses_nothing(pieces in vec((1_usize..12, 1.0_f64..100.0, 0.0_f64..0.3), 1..6), seed in any::<u64>()) {
            let mut random = StdRng::seed_from_u64(seed);
            let values: Vec<f64> = pieces
                .iter()
                .flat_map(|(count, mean, deviation)| {
                    let noise = Normal::new(*mean, mean * deviation).expect("a distribution");
                    (0..*count).map(|_| noise.sample(&mut random).abs() + 1e-3).collect::<Vec<_>>()
                })
                .collect();
            let starts = change_points(&values);
            let (costs, penalty) = (Costs::of(&values), PENALTY * (values.len() as f64).ln());
            let ends = starts.iter().skip(1).copied().chain([values.len()]);
            let cost: f64 = starts.iter().zip(ends).map(|(start, end)| costs.cost(*start, end)).sum();
            let cost = cost + penalty * (starts.len() - 1) as f64;
            let optimal = optimal(&values);
            prop_assert!((cost - optimal).abs() <= 1e-9 * optimal.abs().max(1.0), "{cost} {optimal}");
        }

        #[test]
        fn units_do_not_matter(times in vec(1.0_f64..2.0, 8..80), warmup in 0_usize..10) {
            let scaled: Vec<f64> = times.iter().map(|time| time * 1024.0).collect();
            prop_assert_eq!(Course::of(&times, warmup), Course::of(&scaled, warmup));
        }
    }
}
