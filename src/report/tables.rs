//! The tables of a report, whatever it is written in.

use serde::Serialize;

use super::endings::early;
use super::units::{MISSING, claim, marked, megabytes, or_missing, percent, time};
use crate::record::{CellRecord, Comparison, LadderStep, Metric, PairRecord, Results, Roofline, StepFigures};
use crate::spec::{Figure, MemoryPhase, Observation};
use crate::stats::RatioInterval;

/// A table of text: a caption, a header, rows.
#[derive(Serialize)]
pub(super) struct Table {
    pub caption: String,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// One figure of a comparison: its name, its ratio and the interval of that.
pub(super) type Ratio = (&'static str, fn(&Comparison) -> (Option<f64>, Option<RatioInterval>));

pub(super) const RATIOS: [Ratio; 4] = [
    ("training", |pair| (pair.training.speedup, pair.training.speedup_interval)),
    ("inference", |pair| (pair.inference.speedup, pair.inference.speedup_interval)),
    ("first token", |pair| (pair.generation.first_token_speedup, pair.generation.first_token_interval)),
    ("per token", |pair| (pair.generation.speedup, pair.generation.speedup_interval)),
];

/// Every pair of cells.
pub(super) fn comparisons(results: &Results) -> Table {
    let row = |pair: &PairRecord| {
        let figures = RATIOS.iter().flat_map(|(_, of)| {
            let (ratio, interval) = of(&pair.comparison);
            let verdict = interval.map_or_else(String::new, |interval| interval.verdict().to_string());
            [or_missing(ratio, |ratio| claim(ratio, interval)), verdict]
        });
        let peak = pair.comparison.training.memory_reduction_percent;
        let reason = pair.comparison.reason.clone().unwrap_or_default();
        let label = [pair.label.clone()].into_iter();
        label.chain(figures).chain([or_missing(peak, |less| percent(-less)), reason]).collect()
    };
    let columns = RATIOS.iter().flat_map(|(name, _)| [(*name).to_owned(), String::new()]);
    let header = [String::new()]
        .into_iter()
        .chain(columns)
        .chain(["training peak".to_owned(), "not compared because".to_owned()]);
    Table {
        caption: "Speed-up: mean time before over mean time after, with its 95 % interval over processes".to_owned(),
        header: header.collect(),
        rows: results.comparisons.iter().map(row).collect(),
    }
}

/// Every time of every cell.
pub(super) fn times(results: &Results) -> Table {
    let mut rows = Vec::new();
    for cell in &results.cells {
        let done = cell.workloads();
        let step = |figures: &StepFigures| figures.wall_clock_time.clone();
        let all = [
            ("training step", Metric::Training, done.training.as_ref().map(|record| step(&record.figures))),
            ("inference step", Metric::Inference, done.inference.as_ref().map(|record| step(&record.figures))),
            (
                "time to first token",
                Metric::FirstToken,
                done.generation.as_ref().map(|record| record.figures.first_token_latency.clone()),
            ),
            (
                "inter-token latency",
                Metric::PerToken,
                done.generation.as_ref().map(|record| record.figures.per_token_latency.clone()),
            ),
        ];
        for (name, metric, times) in all.into_iter().filter_map(|(name, metric, times)| Some((name, metric, times?))) {
            let figures =
                [times.mean_ms, times.std_ms, times.median_ms, times.min_ms, times.p95_ms, times.p99_ms, times.max_ms];
            let figures = figures.map(|figure| or_missing(figure, time));
            let ended = early(metric.observed(done)).map_or_else(String::new, |by| format!(", {by}"));
            let first = [cell.spec.label(), name.to_owned(), format!("{}{ended}", times.count)];
            rows.push(first.into_iter().chain(figures).collect());
        }
    }
    let header = ["cell", "", "samples", "mean", "deviation", "median", "least", "95th percentile", "99th", "most"];
    Table { caption: "Wall clock, device synchronised".to_owned(), header: header.map(str::to_owned).to_vec(), rows }
}

/// How near every workload comes to its device's peaks.
pub(super) fn rooflines(results: &Results) -> Table {
    let giga = |rate: Option<f64>| or_missing(rate.map(|rate| rate / 1e9), |rate| format!("{rate:.1}"));
    let share = |share: Option<f64>| or_missing(share, |share| format!("{:.1} %", share * 100.0));
    let row = |it: &Roofline| {
        let label = results.cell(&it.cell).map_or_else(|| it.cell.clone(), |cell| cell.spec.label());
        vec![
            label,
            it.metric.to_string(),
            giga(it.flops_per_s),
            share(it.mfu),
            giga(it.bytes_per_s),
            share(it.mbu),
            or_missing(it.flops_per_byte, |intensity| format!("{intensity:.1}")),
            it.roof.map_or_else(|| MISSING.to_owned(), |roof| roof.to_string()),
        ]
    };
    let header = ["cell", "", "GFLOP/s", "MFU", "GB/s", "MBU", "FLOP/byte", "bound by"].map(str::to_owned).to_vec();
    let peaks: Vec<String> = results
        .peaks
        .iter()
        .map(|it| {
            let (flops, bytes) = (giga(it.flops.value), giga(it.bytes.value));
            format!("; {} {} {}: {flops} GFLOP/s, {bytes} GB/s", it.backend, it.mode, it.precision)
        })
        .collect();
    let reasons = each_once(results.rooflines.iter().filter_map(|it| it.reason.as_ref()));
    let reasons: Vec<String> = reasons.iter().map(|reason| format!("; {MISSING}: {reason}")).collect();
    Table {
        caption: format!(
            "Model FLOPs and least bytes over the mean time, beside measured peaks{}{}",
            peaks.concat(),
            reasons.concat()
        ),
        header,
        rows: results.rooflines.iter().map(row).collect(),
    }
}

/// Every text once, in the order of their first appearance.
pub(super) fn each_once<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let mut seen: Vec<&str> = Vec::new();
    for text in texts {
        if !seen.contains(&text.as_str()) {
            seen.push(text);
        }
    }
    seen
}

pub(super) fn in_mb(bytes: Option<u64>) -> Option<f64> {
    bytes.map(|bytes| bytes as f64 / f64::from(1 << 20))
}

/// Peak, and in use at its end, of the samples and of each phase of a workload.
pub(super) fn phases(seen: &Observation) -> Vec<(&'static str, &Figure, &Figure)> {
    let samples = ("samples", &seen.memory.peak, &seen.memory.current);
    let phases = seen.memory_by_phase.iter().map(|it| (phase_name(it.phase), &it.peak, &it.current));
    [samples].into_iter().chain(phases).collect()
}

/// Memory of every workload, by phase.
pub(super) fn memory(results: &Results) -> Table {
    let mb = |figure: &Figure| or_missing(in_mb(figure.bytes), megabytes);
    let mut rows = Vec::new();
    for cell in &results.cells {
        for seen in cell.workloads().first_rounds() {
            let mut predicted = [
                in_mb(seen.predicted_peak_bytes).map_or_else(String::new, megabytes),
                seen.prediction_error_percent().map_or_else(String::new, percent),
            ];
            for (phase, peak, current) in phases(seen) {
                let label = [cell.spec.label(), seen.workload.to_string(), phase.to_owned()];
                let figures = [mb(peak), mb(current), peak.source.clone()];
                // The prediction is of the samples, which come first.
                rows.push(label.into_iter().chain(figures).chain(std::mem::take(&mut predicted)).collect());
            }
        }
    }
    let header = ["cell", "workload", "phase", "peak", "at its end", "source", "predicted", "off by"]
        .map(str::to_owned)
        .to_vec();
    Table { caption: "Memory by phase, of the first round".to_owned(), header, rows }
}

fn phase_name(phase: MemoryPhase) -> &'static str {
    match phase {
        MemoryPhase::Weights => "weights",
        MemoryPhase::Forward => "forward",
        MemoryPhase::Backward => "backward",
        MemoryPhase::Step => "forward and backward",
        MemoryPhase::Optimizer => "optimiser",
        MemoryPhase::Prefill => "prefill",
        MemoryPhase::Decode => "decode",
    }
}

/// What each optimisation earns, a table for each setting.
pub(super) fn ladders(results: &Results) -> Vec<Table> {
    let mut settings: Vec<&str> = results.ladder.iter().map(|step| step.cells.as_str()).collect();
    settings.dedup();
    let columns = || RATIOS.iter().map(|(name, _)| *name).chain(["training peak"]);
    let header = || columns().flat_map(|name| [format!("{name} alone"), "last".to_owned()]);
    let row = |step: &LadderStep| {
        let (alone, last) = (earned(step.alone.as_ref()), earned(step.last.as_ref()));
        let cells = alone.into_iter().zip(last).flat_map(|(alone, last)| [alone, last]);
        [step.optimization.clone()].into_iter().chain(cells).collect()
    };
    let of = |setting: &str| Table {
        caption: format!("{setting}; alone: added to the first variant; last: added when all others are there already"),
        header: [String::new()].into_iter().chain(header()).collect(),
        rows: results.ladder.iter().filter(|step| step.cells == setting).map(row).collect(),
    };
    settings.into_iter().map(of).collect()
}

/// The ratios of a ladder's pair and its saving of memory, blank where the plan has no such pair.
fn earned(pair: Option<&PairRecord>) -> Vec<String> {
    let Some(PairRecord { comparison, .. }) = pair else { return vec![String::new(); RATIOS.len() + 1] };
    let ratio = |(ratio, interval): (Option<f64>, _)| or_missing(ratio, |ratio| marked(ratio, interval));
    let peak = comparison.training.memory_reduction_percent;
    RATIOS.iter().map(|(_, of)| ratio(of(comparison))).chain([or_missing(peak, |less| percent(-less))]).collect()
}

/// Tuning of every cell, and the questions that took longest.
pub(super) fn ledger(results: &Results) -> Vec<Table> {
    const SHOWN: usize = 12;
    let tuned: Vec<&CellRecord> = results.cells.iter().filter(|cell| cell.tuning.is_some()).collect();
    let of = |cell: &&CellRecord| {
        let ledger = cell.tuning.as_ref().expect("filtered");
        let mut keys: Vec<_> = ledger.events.tuned.iter().collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.wall_ns));
        let rows = keys.into_iter().take(SHOWN).map(|key| {
            vec![
                key.table.clone(),
                key.key.clone(),
                key.winner.clone(),
                key.trials.len().to_string(),
                time(key.wall_ns as f64 / 1e6),
            ]
        });
        Table {
            caption: format!(
                "{}: {} answers known, {} questions tuned in {}, {} kernels compiled in {}",
                cell.spec.label(),
                ledger.keys_known,
                ledger.keys_tuned,
                time(ledger.tuning_ms),
                ledger.kernels_compiled,
                time(ledger.compile_ms)
            ),
            header: ["table", "question", "winner", "candidates", "time"].map(str::to_owned).to_vec(),
            rows: rows.collect(),
        }
    };
    tuned.iter().map(of).collect()
}
