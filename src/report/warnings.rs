//! What makes times doubtful, and what helps.

use std::collections::BTreeMap;

use super::units::percent;
use crate::record::{CellRecord, Results, SteadyState};
use crate::spec::{Disturbance, Observation, Workload};
use crate::stats::{Classification, Sample};

/// A larger share of outliers among a workload's samples is told.
const OUTLIERS: f64 = 0.05;

/// A round whose median is further from that of the others is told.
const DRIFT: f64 = 0.05;

/// Every warning of every cell.
pub(super) fn warnings(results: &Results) -> Vec<String> {
    let mut all = Vec::new();
    for cell in &results.cells {
        for (workload, rounds) in workloads(cell) {
            let (kept, redone) = (disturbed(rounds, false), disturbed(rounds, true));
            let told = [unsteady(workload, rounds), outliers(rounds), drift(rounds), kept, redone];
            let label = cell.spec.label();
            all.extend(told.into_iter().flatten().map(|warning| format!("{label}, {workload}: {warning}")));
        }
    }
    all
}

/// A cell's workloads, each with its rounds.
pub(super) fn workloads(cell: &CellRecord) -> impl Iterator<Item = (Workload, &[Observation])> {
    let done = cell.workloads();
    let workloads = [
        (Workload::Training, done.training.as_ref().map(|record| &record.rounds[..])),
        (Workload::Inference, done.inference.as_ref().map(|record| &record.rounds[..])),
        (Workload::Generation, done.generation.as_ref().map(|record| &record.rounds[..])),
    ];
    workloads.into_iter().filter_map(|(workload, rounds)| Some((workload, rounds?)))
}

/// Whether a round's samples were not all taken in its steady state.
fn unsteady(workload: Workload, rounds: &[Observation]) -> Option<String> {
    let courses = SteadyState::of(rounds).rounds;
    let late = rounds.iter().zip(courses).enumerate().filter_map(|(index, (round, course))| {
        let course = course.filter(|course| course.from_step > round.warmup_ns.len())?;
        Some((index, course.from_step - round.warmup_ns.len(), course))
    });
    let (round, sample, course) = late.max_by_key(|(_, _, course)| (course.classification, course.from_step))?;
    let (round, step) = (round + 1, course.from_step);
    Some(match (course.classification, workload) {
        (Classification::WarmUp, Workload::Training | Workload::Inference) => format!(
            "steady state was not reached before the first sample but from step {} on (round {round}); \
             `--warmup-steps {step}` keeps the warm-up out of the samples",
            step + 1
        ),
        (Classification::WarmUp, Workload::Generation) => format!(
            "steady state was not reached before the first sample but from iteration {} on (round {round}); \
             `generation.warmup_iterations = {step}` keeps the warm-up out of the samples",
            step + 1
        ),
        (classification, _) => format!(
            "times changed within the samples, at sample {} (round {round}, {classification}); look for other load, \
             heat or a changing clock, and take more samples",
            sample + 1
        ),
    })
}

/// Samples outside Tukey's fences, 1.5 times the distance of the quartiles below and above them (Tukey 1977), by round.
fn outliers(rounds: &[Observation]) -> Option<String> {
    let outside = |round: &Observation| {
        let times: Vec<f64> = round.samples_ns.iter().map(|&time| time as f64).collect();
        let Ok(sample) = Sample::new(times.clone()) else { return 0 };
        let (low, high) = (sample.percentile(25.0), sample.percentile(75.0));
        let reach = 1.5 * (high - low);
        times.iter().filter(|time| **time < low - reach || **time > high + reach).count()
    };
    let count: usize = rounds.iter().map(|round| round.samples_ns.len()).sum();
    let outliers: usize = rounds.iter().map(outside).sum();
    (outliers as f64 > OUTLIERS * count as f64).then(|| {
        format!("{outliers} of {count} samples are outliers; stop other programs on the machine, and prefer medians")
    })
}

/// A round whose median is more than 5 % from that of the others' samples.
fn drift(rounds: &[Observation]) -> Option<String> {
    let median = |rounds: &[&Observation]| {
        let times = rounds.iter().flat_map(|round| &round.samples_ns).map(|&time| time as f64).collect();
        Sample::new(times).ok().map(|sample| sample.median()).filter(|median| *median > 0.0)
    };
    let off = |index: usize| {
        let others: Vec<&Observation> =
            rounds.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, round)| round).collect();
        Some((index, median(&[&rounds[index]])? / median(&others)? - 1.0))
    };
    let furthest = (0..rounds.len()).filter_map(off).max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))?;
    let (round, share) = Some(furthest).filter(|(_, share)| share.abs() > DRIFT)?;
    Some(format!(
        "the median of round {} is {} from that of the others; more `--rounds` show how far processes differ",
        round + 1,
        percent(share * 100.0)
    ))
}

/// Samples that something else disturbed, those that were kept or those that were taken again.
fn disturbed(rounds: &[Observation], redone: bool) -> Option<String> {
    let (mut numbers, mut samples, mut count, mut causes) = (Vec::new(), 0, 0, Vec::new());
    for (index, round) in rounds.iter().enumerate() {
        let windows = round.disturbances.value().into_iter().flatten().filter(|window| window.redone == redone);
        let windows: Vec<&Disturbance> = windows.collect();
        if !windows.is_empty() {
            numbers.push((index + 1).to_string());
            count += round.samples_ns.len();
        }
        samples += windows.iter().map(|window| window.samples_ns.len()).sum::<usize>();
        causes.extend(windows.iter().flat_map(|window| &window.causes));
    }
    let which = format!("round{} {}", if numbers.len() > 1 { "s" } else { "" }, numbers.join(", "));
    let causes = worst(causes);
    (!numbers.is_empty()).then(|| {
        if redone {
            format!(
                "{samples} samples of {which} were taken again: at worst {causes}; stop other programs, or let the \
                 machine cool, to save the time"
            )
        } else {
            format!(
                "{samples} of {count} samples of {which} were disturbed and kept: at worst {causes}; stop other \
                 programs, or let the machine cool, and measure again"
            )
        }
    })
}

/// Every kind of cause once, with its highest figure.
fn worst(causes: Vec<&String>) -> String {
    let mut worst: BTreeMap<String, (u64, &str)> = BTreeMap::new();
    for cause in causes {
        let kind = cause.replace(|c: char| c.is_ascii_digit(), "");
        let figure = cause.split(|c: char| !c.is_ascii_digit()).find_map(|digits| digits.parse().ok()).unwrap_or(0);
        let entry = worst.entry(kind).or_default();
        *entry = (*entry).max((figure, cause));
    }
    worst.into_values().map(|(_, cause)| cause).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixtures::{observations, planned, record};
    use crate::runner::Collected;
    use crate::spec::Reading;

    fn round(times: &[u64]) -> Observation {
        Observation {
            warmup_ns: times[..2].to_vec(),
            samples_ns: times[2..].to_vec(),
            ..observations(30, 100).remove(0)
        }
    }

    fn told(rounds: &[Vec<u64>]) -> Vec<String> {
        told_of(rounds.iter().map(|times| round(times)).collect())
    }

    fn told_of(mut rounds: Vec<Observation>) -> Vec<String> {
        let mut results = planned();
        let first = record(&results, 0, vec![rounds.remove(0)], None);
        let cell = rounds.into_iter().fold(first, |cell, round| {
            cell.with_round(Collected { observations: vec![round], ..Collected::default() })
        });
        results.finish_cell(cell);
        warnings(&results)
    }

    /// `count` steps that differ by a hundredth.
    fn steps(count: usize, ns: u64) -> Vec<u64> {
        (0..count as u64).map(|step| ns + ns / 100 * (step % 3)).collect()
    }

    #[test]
    fn each_has_a_remedy_and_good_samples_have_none() {
        assert_eq!(told(&[steps(40, 1000), steps(40, 1010)]), Vec::<String>::new());
        let slow = [steps(6, 3000), steps(40, 1000)].concat();
        let later = [steps(20, 1000), steps(20, 1200)].concat();
        let mut odd = steps(40, 1000);
        for step in [10, 20, 30] {
            odd[step] = 1500;
        }
        let all = [told(&[slow]), told(&[later]), told(&[odd]), told(&[steps(40, 1000), steps(40, 1100)])];
        insta::assert_snapshot!(all.concat().join("\n"));
    }

    #[test]
    fn disturbed_samples_are_told_with_the_worst_of_each_cause() {
        let window = |redone, count, causes: &[&str]| Disturbance {
            at_ns: 0,
            until_ns: 1,
            causes: causes.iter().map(|&cause| cause.to_owned()).collect(),
            samples_ns: vec![1000; count],
            redone,
        };
        let load = |percent| format!("other programs used {percent} % of the processors");
        let disturbed = |windows| Observation { disturbances: Reading::Read(windows), ..round(&steps(42, 1000)) };
        let told = told_of(vec![
            disturbed(vec![
                window(true, 20, &[&load(9)]),
                window(true, 11, &[&load(43), "heat throttled the processors"]),
            ]),
            disturbed(vec![window(false, 12, &[&load(30)])]),
            disturbed(vec![window(true, 1, &[&load(11)])]),
            disturbed(Vec::new()),
        ]);
        insta::assert_snapshot!(told.join("\n"), @r"
        flex/default/default/f32/b2s512, training: 12 of 40 samples of round 2 were disturbed and kept: at worst other programs used 30 % of the processors; stop other programs, or let the machine cool, and measure again
        flex/default/default/f32/b2s512, training: 32 samples of rounds 1, 3 were taken again: at worst heat throttled the processors, other programs used 43 % of the processors; stop other programs, or let the machine cool, to save the time
        ");
    }
}
