use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::Observation;
use crate::stats::{Classification, Course, LEAST_STEPS};

/// From which step on a workload's times stay the same, warm-up steps and samples in one row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SteadyState {
    /// The worst of the rounds: no steady state, slowdown, warm-up, flat.
    pub classification: Option<Classification>,
    /// The step, from 0, from which on every round was steady; null if one has no steady state.
    pub from_step: Option<usize>,
    /// Each round's course.
    pub rounds: Vec<Option<Course>>,
    /// Why the figures are null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl SteadyState {
    /// Looks for change-points in every round.
    pub fn of(rounds: &[Observation]) -> Self {
        let course = |round: &Observation| {
            let times: Vec<f64> = round.warmup_ns.iter().chain(&round.samples_ns).map(|&time| time as f64).collect();
            Course::of(&times, round.warmup_ns.len())
        };
        let rounds: Vec<Option<Course>> = rounds.iter().map(course).collect();
        let Some(courses) = rounds.iter().copied().collect::<Option<Vec<Course>>>() else {
            let reason = Some(format!("a round has fewer than {LEAST_STEPS} steps with its warm-up"));
            return Self { rounds, reason, ..Self::default() };
        };
        let classification = courses.iter().map(|course| course.classification).max();
        let unsteady = classification == Some(Classification::NoSteadyState);
        let latest = courses.iter().map(|course| course.from_step).max();
        Self {
            classification,
            from_step: latest.filter(|_| !unsteady),
            rounds,
            reason: unsteady.then(|| "less than the last quarter of a round's steps was steady".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixtures::observations;

    fn round(warmup: usize, slow: usize, samples: usize) -> Observation {
        let times: Vec<u64> =
            (0..warmup + samples).map(|step| if step < slow { 30 } else { 10 + step as u64 % 2 }).collect();
        Observation {
            warmup_ns: times[..warmup].to_vec(),
            samples_ns: times[warmup..].to_vec(),
            ..observations(1, 1).remove(0)
        }
    }

    #[test]
    fn the_worst_round_counts() {
        let flat = SteadyState::of(&[round(5, 0, 20)]);
        assert_eq!((flat.classification, flat.from_step), (Some(Classification::Flat), Some(0)));
        let slow = SteadyState::of(&[round(5, 0, 20), round(5, 4, 20), round(5, 2, 20)]);
        assert_eq!((slow.classification, slow.from_step), (Some(Classification::WarmUp), Some(4)));
        let never = SteadyState::of(&[round(5, 0, 20), round(5, 20, 20)]);
        assert_eq!((never.classification, never.from_step), (Some(Classification::NoSteadyState), None));
        assert!(never.reason.is_some());
        let short = SteadyState::of(&[round(1, 0, 2)]);
        assert_eq!((short.classification, short.rounds), (None, vec![None]));
    }
}
