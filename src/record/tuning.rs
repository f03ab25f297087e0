use std::collections::HashMap;

use burnmark_backend_api::TuningEvents;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CellRecord;
use super::cell::Total;
use crate::spec::{CellSpec, Mode, Observation, TuningCache, Workload};

const NS_PER_MS: f64 = 1e6;

/// What tuning and compiling took in one cell, over all its workloads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TuningRecord {
    /// Questions that had an answer when the device was opened.
    pub keys_known: usize,
    /// Questions tuned: the misses.
    pub keys_tuned: usize,
    /// Candidates run for them.
    pub candidates_run: usize,
    /// Time within which a question waited for its answer, in milliseconds; most of it is compiling candidates.
    pub tuning_ms: f64,
    /// Kernels compiled.
    pub kernels_compiled: usize,
    /// Compiling them, in milliseconds; part of it happened while tuning and counts there too.
    pub compile_ms: f64,
    /// Kernels an earlier process had compiled.
    pub kernels_loaded: usize,
    /// Samples within which something was tuned or compiled, by workload, from 0: they measured that too.
    pub contaminated_samples: Vec<(Workload, Vec<usize>)>,
    /// Raw.
    pub events: TuningEvents,
}

impl TuningRecord {
    /// Derives every figure.
    pub fn new(events: TuningEvents, observations: &[Observation]) -> Self {
        let compiled = || events.compiled.iter().filter(|kernel| !kernel.loaded);
        Self {
            keys_known: events.known_at_start,
            keys_tuned: events.tuned.len(),
            candidates_run: events.tuned.iter().map(|key| key.trials.len()).sum(),
            tuning_ms: covered_ns(tuned(&events)) as f64 / NS_PER_MS,
            kernels_compiled: compiled().count(),
            compile_ms: covered_ns(compiled().map(|kernel| (kernel.at_ns, kernel.at_ns + kernel.wall_ns))) as f64
                / NS_PER_MS,
            kernels_loaded: events.compiled.len() - compiled().count(),
            contaminated_samples: observations
                .iter()
                .map(|observation| (observation.workload, contaminated(&events, observation)))
                .filter(|(_, samples)| !samples.is_empty())
                .collect(),
            events,
        }
    }
}

/// From question to answer.
fn tuned(events: &TuningEvents) -> impl Iterator<Item = (u64, u64)> {
    events.tuned.iter().map(|key| (key.at_ns, key.at_ns + key.wall_ns))
}

/// Nanoseconds that at least one of the spans covers: a tune may ask another question and wait for it.
fn covered_ns(spans: impl Iterator<Item = (u64, u64)>) -> u64 {
    let mut spans: Vec<(u64, u64)> = spans.collect();
    spans.sort_unstable();
    let (mut covered, mut until) = (0, 0);
    for (start, end) in spans {
        covered += end.saturating_sub(start.max(until));
        until = until.max(end);
    }
    covered
}

/// The samples that overlap with tuning or compiling.
fn contaminated(events: &TuningEvents, observation: &Observation) -> Vec<usize> {
    let spans = observation.samples_at_ns.iter().zip(&observation.samples_ns).map(|(at, ns)| (*at, at + ns));
    let compiled = || events.compiled.iter().map(|kernel| (kernel.at_ns, kernel.at_ns + kernel.wall_ns));
    let overlaps =
        |(from, to): (u64, u64)| tuned(events).chain(compiled()).any(|(start, end)| start < to && end > from);
    spans.enumerate().filter(|(_, span)| overlaps(*span)).map(|(index, _)| index).collect()
}

/// After how many steps fusion and tuning have paid for themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BreakEven {
    /// Id of the cell that fuses and tunes.
    pub cell: String,
    /// Id of the cell with `no-compile` it is held against.
    pub against: String,
    /// Workload; generation counts whole iterations.
    pub workload: Workload,
    /// What its warm-up cost more: `price_ms` here less `price_ms` there.
    pub price_ms: Option<f64>,
    /// What a step gains: mean there less mean here, in milliseconds.
    pub gain_ms_per_step: Option<f64>,
    /// `price_ms / gain_ms_per_step`; zero if the warm-up was no dearer.
    pub steps: Option<f64>,
    /// Why figures are null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The break-even of every cell whose `no-compile` twin was measured too.
pub(super) fn break_evens(cells: &[CellRecord]) -> Vec<BreakEven> {
    let by_id: HashMap<&str, &CellRecord> = cells.iter().map(|cell| (cell.id.as_str(), cell)).collect();
    let mut all = Vec::new();
    for cell in cells.iter().filter(|cell| cell.spec.mode != Mode::NoCompile && cell.tuning.is_some()) {
        let twin = CellSpec { mode: Mode::NoCompile, ..cell.spec.clone() }.id();
        let Some(twin) = by_id.get(twin.as_str()) else { continue };
        for (here, there) in cell.workloads().totals().into_iter().filter_map(|here| {
            let there = twin.workloads().totals().into_iter().find(|there| there.workload == here.workload);
            there.map(|there| (here, there))
        }) {
            all.push(break_even(&cell.id, &twin.id, &here, &there));
        }
    }
    all
}

fn break_even(cell: &str, against: &str, here: &Total, there: &Total) -> BreakEven {
    let price = here.warmup.price_ms.zip(there.warmup.price_ms).map(|(here, there)| here - there);
    let gain = here.mean_ms.zip(there.mean_ms).map(|(here, there)| there - here);
    let (steps, reason) = match (price, gain) {
        (Some(price), Some(gain)) if gain > 0.0 => (Some((price / gain).max(0.0)), None),
        (Some(_), Some(_)) => (None, Some("it is no faster, so it never pays".to_owned())),
        _ => (None, Some("a warm-up step and a sample of both are needed".to_owned())),
    };
    BreakEven {
        cell: cell.to_owned(),
        against: against.to_owned(),
        workload: here.workload,
        price_ms: price,
        gain_ms_per_step: gain,
        steps,
        reason,
    }
}

/// How far tunings in fresh caches lie apart, beside the noise within one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TuningSpread {
    /// Id of the first of the cells.
    pub cell: String,
    /// Workload; generation counts whole iterations.
    pub workload: Workload,
    /// Mean of each cell, in milliseconds.
    pub means_ms: Vec<f64>,
    /// Standard deviation of those means (of a sample: n - 1), in milliseconds.
    pub between_std_ms: f64,
    /// Standard deviation within a cell, pooled over cells: `sqrt(mean(std^2))`, in milliseconds.
    pub within_std_ms: f64,
}

/// The spread of every cold cell that was repeated.
pub(super) fn tuning_spreads(cells: &[CellRecord]) -> Vec<TuningSpread> {
    let mut all = Vec::new();
    for first in cells.iter().filter(|cell| cell.spec.tuning_cache == TuningCache::Cold && cell.spec.repeat == 0) {
        let group: Vec<&CellRecord> =
            cells.iter().filter(|cell| CellSpec { repeat: 0, ..cell.spec.clone() } == first.spec).collect();
        if group.len() < 2 {
            continue;
        }
        for Total { workload, .. } in first.workloads().totals() {
            let of = |cell: &&CellRecord| {
                let total = cell.workloads().totals().into_iter().find(|total| total.workload == workload)?;
                total.mean_ms.zip(total.std_ms)
            };
            let (means, deviations): (Vec<f64>, Vec<f64>) = group.iter().filter_map(of).unzip();
            if means.len() < 2 {
                continue;
            }
            let count = means.len() as f64;
            let mean = means.iter().sum::<f64>() / count;
            let between = means.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0);
            let within = deviations.iter().map(|std| std.powi(2)).sum::<f64>() / count;
            all.push(TuningSpread {
                cell: first.id.clone(),
                workload,
                means_ms: means,
                between_std_ms: between.sqrt(),
                within_std_ms: within.sqrt(),
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_within_a_question_counts_once() {
        assert_eq!(covered_ns([(0, 10), (2, 4), (20, 25)].into_iter()), 15);
        assert_eq!(covered_ns([(5, 8), (0, 6)].into_iter()), 8);
        assert_eq!(covered_ns([].into_iter()), 0);
    }
}
