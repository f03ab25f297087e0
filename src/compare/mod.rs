//! Two results files against each other: what differs in their environments, and every cell that both measured.
//!
//! Pure functions of results: raw samples in, changes with intervals out.

mod rule;
#[cfg(test)]
mod tests;

use serde::Serialize;
use serde_json::Value;

use crate::record::{CellRecord, Metric, Results};
use crate::spec::{CellSpec, GenerationSpec, StepSpec, Stopping, TrainingSpec, Workloads};
use crate::stats::{RatioInterval, Verdict};

pub use rule::{Rule, RuleError};

/// A run against an earlier one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunComparison {
    /// What differs in how and where the two were made, the most telling first.
    pub environment: Vec<Difference>,
    /// Every cell that both measured, or why it cannot be compared.
    pub cells: Vec<CellComparison>,
    /// Cells that only the earlier run measured.
    pub only_before: Vec<String>,
    /// Cells that only the later run measured.
    pub only_after: Vec<String>,
}

/// A fact that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Its name in the results file.
    pub fact: String,
    /// In the earlier run.
    pub before: String,
    /// In the later run.
    pub after: String,
}

/// One cell in both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellComparison {
    /// The cell; with both backends if they differ.
    pub cell: String,
    /// Why the two are not compared, if they are not.
    pub refused: Option<String>,
    /// What changed; empty if refused.
    pub changes: Vec<Change>,
}

/// One figure in both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Which: a [`Metric`], or its workload's peak memory as `training-peak`, `inference-peak`, `generation-peak`.
    pub metric: String,
    /// Unit of `before` and `after`.
    pub unit: &'static str,
    /// The earlier run's mean, or peak.
    pub before: f64,
    /// The later run's.
    pub after: f64,
    /// `(after / before - 1) * 100`.
    pub change_percent: f64,
    /// Where the true change lies, at 95 %; null for memory, and where a side has a single round.
    pub interval_percent: Option<[f64; 2]>,
    /// Whether the later run is faster, slower, or neither was shown; null without an interval.
    pub verdict: Option<Verdict>,
}

/// Compares `after` with `before`.
#[must_use]
pub fn compare(before: &Results, after: &Results) -> RunComparison {
    let across = other_backend(before, after);
    let matches =
        |one: &CellRecord, other: &CellRecord| name(&one.spec, across.is_some()) == name(&other.spec, across.is_some());
    let partner = |cell: &CellRecord, others: &'_ [CellRecord]| others.iter().position(|other| matches(cell, other));
    let cells = before.cells.iter().filter_map(|one| {
        let other = &after.cells[partner(one, &after.cells)?];
        let refused = refusal([before, after], [one, other]);
        let changes = if refused.is_some() { Vec::new() } else { changes(one, other) };
        let cell = match &across {
            Some(backends) => format!("{backends}: {}", name(&one.spec, true)),
            None => one.spec.label(),
        };
        Some(CellComparison { cell, refused, changes })
    });
    let alone = |cells: &[CellRecord], others: &[CellRecord]| {
        let alone = cells.iter().filter(|cell| partner(cell, others).is_none());
        alone.map(|cell| cell.spec.label()).collect()
    };
    RunComparison {
        environment: differences(before, after),
        cells: cells.collect(),
        only_before: alone(&before.cells, &after.cells),
        only_after: alone(&after.cells, &before.cells),
    }
}

/// Both backends, if each run has one and they differ: then cells are matched across them.
fn other_backend(before: &Results, after: &Results) -> Option<String> {
    let only = |results: &Results| {
        let first = results.cells.first()?.spec.backend.clone();
        results.cells.iter().all(|cell| cell.spec.backend == first).then_some(first)
    };
    let (one, other) = (only(before)?, only(after)?);
    (one != other).then(|| format!("{one} -> {other}"))
}

/// What cells are matched by: their axes.
fn name(cell: &CellSpec, any_backend: bool) -> String {
    let backend = if any_backend { "*".to_owned() } else { cell.backend.clone() };
    CellSpec { backend, ..cell.clone() }.label()
}

/// Why two cells of the same axes cannot be compared.
fn refusal([before, after]: [&Results; 2], [one, other]: [&CellRecord; 2]) -> Option<String> {
    for (results, which) in [(before, "earlier"), (after, "later")] {
        if results.environment.debug_assertions {
            return Some(format!("the {which} run was made by a build with debug assertions"));
        }
    }
    for (results, cell, which) in [(before, one, "earlier"), (after, other, "later")] {
        if let Some(failure) = cell.failure() {
            return Some(format!("the {which} run failed there: {failure}"));
        }
        if results.agreements.iter().any(|agreement| agreement.cell == cell.id && !agreement.passed) {
            return Some(format!("the {which} run's model did not compute what it was held against"));
        }
    }
    (work(&one.spec) != work(&other.spec)).then(|| {
        "they measured different work: other sizes of the model, of generation, or another optimiser".to_owned()
    })
}

/// The work of a cell, however often it was done, by whatever backend.
fn work(cell: &CellSpec) -> CellSpec {
    let any = || StepSpec { warmup_steps: 0, benchmark_steps: 0 };
    let Workloads { training, inference, generation } = cell.workloads.clone();
    CellSpec {
        backend: String::new(),
        seed: 0,
        stopping: Stopping::default(),
        redo_disturbed: true,
        workloads: Workloads {
            training: training.map(|training| TrainingSpec { steps: any(), ..training }),
            inference: inference.map(|_| any()),
            generation: generation.map(|spec| GenerationSpec { warmup_iterations: 0, iterations: 0, ..spec }),
        },
        ..cell.clone()
    }
}

fn changes(one: &CellRecord, other: &CellRecord) -> Vec<Change> {
    let (one, other) = (one.workloads(), other.workloads());
    let times = Metric::ALL.into_iter().filter_map(|metric| {
        let (before, after) = (metric.rounds(one), metric.rounds(other));
        let interval = RatioInterval::of(&before, &after);
        let percent = |speedup: f64| (1.0 / speedup - 1.0) * 100.0;
        let mean = |rounds: &[Vec<f64>]| {
            let samples: Vec<f64> = rounds.iter().flatten().copied().collect();
            (!samples.is_empty()).then(|| samples.iter().sum::<f64>() / samples.len() as f64)
        };
        let change = Change::of(metric.to_string(), "ms", mean(&before)?, mean(&after)?)?;
        Some(Change {
            interval_percent: interval.map(|interval| [percent(interval.high), percent(interval.low)]),
            verdict: interval.map(RatioInterval::verdict),
            ..change
        })
    });
    let peaks = [
        (Metric::Training, "training-peak"),
        (Metric::Inference, "inference-peak"),
        (Metric::PerToken, "generation-peak"),
    ];
    let memory = peaks.into_iter().filter_map(|(metric, name)| {
        let ((before, source), (after, other_source)) = (metric.peak_mb(one)?, metric.peak_mb(other)?);
        if source == other_source { Change::of(name.to_owned(), "MB", before, after) } else { None }
    });
    times.chain(memory).collect()
}

impl Change {
    fn of(metric: String, unit: &'static str, before: f64, after: f64) -> Option<Self> {
        let change_percent = (after / before - 1.0) * 100.0;
        let change = Self { metric, unit, before, after, change_percent, interval_percent: None, verdict: None };
        (before > 0.0).then_some(change)
    }
}

/// Facts that differ, other than when and by which command.
fn differences(before: &Results, after: &Results) -> Vec<Difference> {
    let facts = |results: &Results| {
        let mut facts = Vec::new();
        let device = results.cells.iter().find_map(|cell| cell.device.as_ref());
        let told = |fact: Option<&str>| fact.map_or(Value::Null, Value::from);
        facts.push(("device".to_owned(), told(device.map(|device| device.name.as_str()))));
        facts.push(("driver".to_owned(), told(device.and_then(|device| device.driver.as_deref()))));
        let environment = serde_json::to_value(&results.environment).expect("an environment serialises");
        flatten("", &environment, &mut facts);
        facts
    };
    let (before, after) = (facts(before), facts(after));
    let in_words = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let differing = before.iter().filter_map(|(fact, value)| {
        let other = after.iter().find(|(name, _)| name == fact).map_or(&Value::Null, |(_, value)| value);
        let difference = || Difference { fact: fact.clone(), before: in_words(value), after: in_words(other) };
        (value != other).then(difference)
    });
    differing.collect()
}

fn flatten(prefix: &str, value: &Value, facts: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, facts);
            }
        }
        value => facts.push((prefix.to_owned(), value.clone())),
    }
}
