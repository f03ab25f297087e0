//! What ended the samples of a workload.

use crate::record::{CellRecord, Metric, Results};
use crate::spec::{Ending, Observation};

/// What ended the samples of every round, each ending once; empty if no round says so.
pub(super) fn endings(rounds: &[Observation]) -> String {
    let ended = |by: &Ending| rounds.iter().filter(|round| round.ended_by == Some(*by)).count();
    let all = [Ending::Count, Ending::NarrowEnough, Ending::Time].map(|by| (by, ended(&by)));
    let told: Vec<String> = all
        .into_iter()
        .filter(|(_, rounds)| *rounds > 0)
        .map(
            |(by, ended)| {
                if ended == rounds.len() { by.to_string() } else { format!("{by} ({ended} of {})", rounds.len()) }
            },
        )
        .collect();
    told.join(", ")
}

/// Likewise, and nothing where all samples were taken that were asked for.
pub(super) fn early(rounds: &[Observation]) -> Option<String> {
    let early = |round: &Observation| round.ended_by.is_some_and(|by| by != Ending::Count);
    rounds.iter().any(early).then(|| endings(rounds))
}

/// A line for each workload whose samples ended before their count.
pub(super) fn early_ones(results: &Results) -> Vec<String> {
    let workloads = [Metric::Training, Metric::Inference, Metric::FirstToken];
    let line = |cell: &CellRecord, metric: Metric| {
        let rounds = metric.observed(cell.workloads());
        let samples: usize = rounds.iter().map(|round| round.samples_ns.len()).sum();
        let (by, workload) = (early(rounds)?, rounds.first()?.workload);
        Some(format!("{}, {workload}: sampling ended before its count: {by}; {samples} taken", cell.spec.label()))
    };
    results.cells.iter().flat_map(|cell| workloads.into_iter().filter_map(move |metric| line(cell, metric))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixtures::observations;

    fn rounds(endings: &[Option<Ending>]) -> Vec<Observation> {
        let of = |ended_by: &Option<Ending>| Observation { ended_by: *ended_by, ..observations(1, 1).remove(0) };
        endings.iter().map(of).collect()
    }

    #[test]
    fn only_samples_that_ended_before_their_count_are_told_of() {
        let (count, narrow, time) = (Some(Ending::Count), Some(Ending::NarrowEnough), Some(Ending::Time));
        assert_eq!(endings(&rounds(&[None])), "");
        assert_eq!(endings(&rounds(&[count, count])), "count");
        assert_eq!(endings(&rounds(&[time, narrow, narrow])), "narrow enough (2 of 3), time (1 of 3)");
        assert_eq!(early(&rounds(&[None])), None);
        assert_eq!(early(&rounds(&[count, count])), None);
        assert_eq!(early(&rounds(&[count, time])).as_deref(), Some("count (1 of 2), time (1 of 2)"));
    }
}
