//! The summary of a run.

use super::endings::early_ones;
use super::ledger::ledger;
use super::table::table;
use super::units::{MISSING, claim, marked, megabytes, or_missing, percent, rate, time};
use super::warnings::warnings;
use super::{Style, tables, verify};
use crate::record::{
    CellRecord, ClassicModel, GateOutcome, GenerationComparison, Memory, Results, StepComparison, StepFigures, Times,
};
use crate::spec::Workloads;
use crate::stats::RatioInterval;

/// Last lines of a failed child's standard error that are shown.
const STDERR_LINES: usize = 8;

/// The summary: what ran, the gate, three sections, further cells, failures.
#[must_use]
pub fn summary(results: &Results, style: Style) -> String {
    let mut text = heading(results);
    text.push_str(&gates(results, style));
    for (title, body) in [
        ("Training Performance", steps(results, |model| &model.training, &results.comparison.training)),
        ("Inference Performance", steps(results, |model| &model.inference, &results.comparison.inference)),
        ("Generation Latency", generation(results, &results.comparison.generation)),
    ] {
        text.push_str(&format!("\n{}\n{body}", style.bold(title)));
    }
    if results.plan.len() > 2 {
        text.push_str(&format!("\n{}\n{}", style.bold("All cells"), all_cells(results)));
    }
    text.push_str(&evidence(results));
    text.extend(early_ones(results).iter().map(|line| format!("{line}\n")));
    if !results.peaks.is_empty() {
        let it = tables::rooflines(results);
        text.push_str(&format!("\n{}\n{}", style.bold("Roofline"), table(&it.header, &it.rows)));
        text.push_str(&notes(results.rooflines.iter().filter_map(|it| it.reason.as_ref())));
    }
    for steps in tables::ladders(results) {
        let title = style.bold("Attribution");
        text.push_str(&format!("\n{title} · {}\n{}", steps.caption, table(&steps.header, &steps.rows)));
    }
    text.push_str(&ledger(results, style));
    let doubts = warnings(results);
    if !doubts.is_empty() {
        text.push_str(&format!("\n{}\n", style.bad("Warnings")));
        text.extend(doubts.iter().map(|doubt| format!("  {doubt}\n")));
    }
    text.push_str(&failures(results, style));
    text
}

/// What stands behind the ratios.
fn evidence(results: &Results) -> String {
    match results.cells.iter().map(|cell| cell.rounds).max() {
        None | Some(0) => String::new(),
        Some(1) => "\none process a cell: ratios have no interval; `--rounds 3` gives them one\n".to_owned(),
        Some(rounds) => format!(
            "\nratios of means over {rounds} processes a cell, intervals at 95 %; ~ marks those that show no difference\n"
        ),
    }
}

fn heading(results: &Results) -> String {
    let config = &results.config;
    let device = results.cells.iter().find_map(|cell| cell.device.as_ref());
    let device = device.map_or_else(|| config.device.clone(), ToString::to_string);
    let parameters = results.default_model.parameters.map(|count| count as f64 / 1e6);
    let sizes = match results.plan.first().map(|spec| &spec.workloads) {
        Some(Workloads { training: None, inference: None, generation: Some(it) }) => {
            format!("batch {} · prompt {} · {} new tokens", it.batch_size, it.prompt_tokens, it.new_tokens)
        }
        _ => format!("batch {} · sequence {}", config.batch_size, config.seq_length),
    };
    format!(
        "burnmark {} · burn {} · {device}\n{} parameters · {sizes} · mode {}\n",
        results.environment.versions.burnmark,
        results.environment.versions.burn.as_deref().unwrap_or("of unknown version"),
        or_missing(parameters, |millions| format!("{millions:.2} M")),
        config.compile_mode,
    )
}

fn gates(results: &Results, style: Style) -> String {
    let mut text = String::new();
    for gate in &results.gates {
        text.push_str(&match &gate.outcome {
            GateOutcome::Passed { report } => {
                let worst = report.checks.iter().filter_map(|check| Some((check.error? / check.tolerance, check)));
                let worst = worst.filter(|(share, _)| share.is_finite()).max_by(|a, b| a.0.total_cmp(&b.0));
                let worst = worst.map_or(String::new(), |(_, check)| {
                    let error = check.error.unwrap_or_default();
                    format!("; closest to its limit: {} at {error:.1e} of {:.0e}", check.what, check.tolerance)
                });
                format!("{} {} checks{worst}\n", style.good("verified:"), report.checks.len())
            }
            GateOutcome::Failed { report } => format!(
                "{} the variants do not compute the same, so no ratio is given\n{}",
                style.bad("verification failed:"),
                verify::failed(report)
            ),
            GateOutcome::Incomplete { failure, report } => {
                let wrong = report.as_ref().filter(|report| report.failed() > 0).map_or(String::new(), verify::failed);
                format!("{} {failure}\n{}{wrong}", style.bad("verification failed:"), tail(&failure.stderr))
            }
        });
    }
    if results.gates.is_empty()
        && let Some(reason) = &results.comparison.reason
    {
        text.push_str(&format!("not verified: {reason}\n"));
    }
    text
}

/// Columns are named by what tells their cells apart.
fn header(results: &Results) -> Vec<String> {
    let models = [&results.default_model, &results.example_model];
    let names = match models.map(|model| results.plan.iter().find(|spec| Some(spec.id()) == model.cell)) {
        [Some(baseline), Some(candidate)] => [baseline.label_beside(candidate), candidate.label_beside(baseline)],
        _ => [(models[0], "baseline"), (models[1], "optimised")]
            .map(|(model, absent)| model.variant.clone().unwrap_or_else(|| absent.to_owned())),
    };
    [String::new()].into_iter().chain(names).chain(["change".to_owned()]).collect()
}

/// One row: a label, both models' figures, and what became of them.
fn row(label: &str, figures: [Option<f64>; 2], format: impl Fn(f64) -> String, change: String) -> Vec<String> {
    let [baseline, optimised] = figures.map(|figure| or_missing(figure, &format));
    vec![label.to_owned(), baseline, optimised, change]
}

/// Mean with its deviation, median and 95th percentile, and the speed-up of the mean.
fn time_rows(
    label: &str,
    [baseline, optimised]: [&Times; 2],
    speedup: Option<f64>,
    interval: Option<RatioInterval>,
) -> Vec<Vec<String>> {
    let mean = |times: &Times| match (times.mean_ms, times.std_ms) {
        (Some(mean), Some(std)) => format!("{} ± {}", time(mean), time(std)),
        _ => MISSING.to_owned(),
    };
    let pair = |figure: fn(&Times) -> Option<f64>| [figure(baseline), figure(optimised)];
    vec![
        vec![
            label.to_owned(),
            mean(baseline),
            mean(optimised),
            or_missing(speedup, |speedup| claim(speedup, interval)),
        ],
        row("  median", pair(|times| times.median_ms), time, String::new()),
        row("  95th percentile", pair(|times| times.p95_ms), time, String::new()),
    ]
}

/// Peaks, and what was predicted of them with how far that is off, where it was.
fn memory_rows(sides: [&Memory; 2], mb: Option<f64>, share: Option<f64>) -> Vec<Vec<String>> {
    let change = match (mb, share) {
        (Some(mb), Some(share)) => format!("{} ({})", megabytes(-mb), percent(-share)),
        _ => MISSING.to_owned(),
    };
    let mut rows = vec![row("peak memory", sides.map(|memory| memory.peak_mb), megabytes, change)];
    if sides.iter().any(|memory| memory.predicted_peak_mb.is_some()) {
        let [baseline, optimised] =
            sides.map(|memory| match (memory.predicted_peak_mb, memory.prediction_error_percent) {
                (Some(predicted), Some(error)) => format!("{} ({})", megabytes(predicted), percent(error)),
                (predicted, _) => or_missing(predicted, megabytes),
            });
        rows.push(vec!["  predicted".to_owned(), baseline, optimised, String::new()]);
    }
    rows
}

fn steps(results: &Results, of: impl Fn(&ClassicModel) -> &StepFigures, change: &StepComparison) -> String {
    let sides = [of(&results.default_model), of(&results.example_model)];
    let times = sides.map(|side| &side.wall_clock_time);
    if times.iter().all(|times| times.mean_ms.is_none()) {
        return format!("  not measured: {}\n", times[0].reason.as_deref().unwrap_or("no reason was given"));
    }
    let mut rows = time_rows("time per step", times, change.speedup, change.speedup_interval);
    let reduction = or_missing(change.time_reduction_percent, |less| format!("time {}", percent(-less)));
    rows.push(row("tokens", sides.map(|side| side.throughput.tokens_per_sec), rate, reduction));
    if sides.iter().any(|side| side.optimizer_time.is_some()) {
        let optimizer = sides.map(|side| side.optimizer_time.as_ref().and_then(|times| times.mean_ms));
        rows.push(row("  of it optimiser", optimizer, time, String::new()));
    }
    let memory = sides.map(|side| &side.memory);
    rows.extend(memory_rows(memory, change.memory_reduction_mb, change.memory_reduction_percent));
    table(&header(results), &rows) + &gaps(times, memory, change.reason.as_ref())
}

fn generation(results: &Results, change: &GenerationComparison) -> String {
    let sides = [&results.default_model.generation, &results.example_model.generation];
    if sides.iter().all(|side| side.first_token_latency.mean_ms.is_none()) {
        let reason = sides[0].first_token_latency.reason.as_deref().unwrap_or("no reason was given");
        return format!("  not measured: {reason}\n");
    }
    let first = sides.map(|side| &side.first_token_latency);
    let mut rows = time_rows("time to first token", first, change.first_token_speedup, change.first_token_interval);
    let later = sides.map(|side| &side.per_token_latency);
    rows.extend(time_rows("inter-token latency", later, change.speedup, change.speedup_interval));
    rows.push(row("whole generation", sides.map(|side| side.total_generation.mean_ms), time, String::new()));
    let latency = or_missing(change.latency_reduction_percent, |less| format!("latency {}", percent(-less)));
    rows.push(row("tokens", sides.map(|side| side.throughput.tokens_per_sec), rate, latency));
    let memory = sides.map(|side| &side.memory);
    rows.extend(memory_rows(memory, change.memory_reduction_mb, change.memory_reduction_percent));
    table(&header(results), &rows) + &gaps(first, memory, change.reason.as_ref())
}

/// Why figures of a table are missing. What a ratio lacks because its sides do is told as theirs.
fn gaps(times: [&Times; 2], memory: [&Memory; 2], change: Option<&String>) -> String {
    let sides = times.map(|times| &times.reason).into_iter().chain(memory.map(|memory| &memory.reason)).flatten();
    let told = tables::each_once(sides.clone()).join("; ");
    notes(sides.chain(change.filter(|change| **change != told)))
}

/// Every reason once, below the table whose gaps it explains.
fn notes<'a>(reasons: impl Iterator<Item = &'a String>) -> String {
    tables::each_once(reasons).iter().map(|reason| format!("  {MISSING}: {reason}\n")).collect()
}

/// One row a cell: the mean of each workload, its ratio to the cell's baseline, and how far its model computes from what
/// it was held against.
fn all_cells(results: &Results) -> String {
    let header = [
        "cell",
        "training",
        "",
        "peak",
        "",
        "inference",
        "",
        "first token",
        "",
        "per token",
        "",
        "logits",
        "gradients",
    ]
    .map(str::to_owned);
    let rows: Vec<Vec<String>> = results.plan.iter().map(|spec| cell_row(results, &spec.label(), &spec.id())).collect();
    table(&header, &rows)
}

fn cell_row(results: &Results, label: &str, id: &str) -> Vec<String> {
    let workloads = results.cell(id).map(CellRecord::workloads);
    let change = results.comparisons.iter().find(|pair| pair.candidate == id).map(|pair| &pair.comparison);
    let training = workloads.and_then(|done| done.training.as_ref()).map(|record| &record.figures);
    let inference = workloads.and_then(|done| done.inference.as_ref()).map(|record| &record.figures);
    let generation = workloads.and_then(|done| done.generation.as_ref()).map(|record| &record.figures);
    let agreement = results.agreements.iter().find(|agreement| agreement.cell == id);
    let error = |figure: Option<f64>| match (figure, agreement) {
        (Some(error), _) => format!("{error:.0e}"),
        (None, Some(_)) => MISSING.to_owned(),
        (None, None) => String::new(),
    };
    let blank_or = |figure: Option<f64>, format: fn(f64) -> String| figure.map_or_else(String::new, format);
    let ratio_of = |ratio: Option<f64>, interval: Option<RatioInterval>| {
        ratio.map_or_else(String::new, |ratio| marked(ratio, interval))
    };
    vec![
        label.to_owned(),
        or_missing(training.and_then(|figures| figures.wall_clock_time.mean_ms), time),
        ratio_of(change.and_then(|pair| pair.training.speedup), change.and_then(|pair| pair.training.speedup_interval)),
        or_missing(training.and_then(|figures| figures.memory.peak_mb), megabytes),
        blank_or(change.and_then(|change| change.training.memory_reduction_percent), |less| percent(-less)),
        or_missing(inference.and_then(|figures| figures.wall_clock_time.mean_ms), time),
        ratio_of(
            change.and_then(|pair| pair.inference.speedup),
            change.and_then(|pair| pair.inference.speedup_interval),
        ),
        or_missing(generation.and_then(|figures| figures.first_token_latency.mean_ms), time),
        ratio_of(
            change.and_then(|pair| pair.generation.first_token_speedup),
            change.and_then(|pair| pair.generation.first_token_interval),
        ),
        or_missing(generation.and_then(|figures| figures.per_token_latency.mean_ms), time),
        ratio_of(
            change.and_then(|pair| pair.generation.speedup),
            change.and_then(|pair| pair.generation.speedup_interval),
        ),
        error(agreement.and_then(|agreement| agreement.logits)),
        error(agreement.and_then(|agreement| agreement.gradients)),
    ]
}

fn failures(results: &Results, style: Style) -> String {
    let mut text = String::new();
    for cell in &results.cells {
        if let Some(failure) = cell.failure() {
            let title = style.bad(&format!("{} failed", cell.spec.label()));
            text.push_str(&format!("\n{title}: {failure}\n{}", tail(&failure.stderr)));
        }
    }
    let missing = results.plan.iter().filter(|spec| results.cell(&spec.id()).is_none()).count();
    if missing > 0 {
        text.push_str(&format!("\n{missing} of {} cells were not run; `--resume` runs them\n", results.plan.len()));
    }
    text
}

fn tail(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().collect();
    lines[lines.len().saturating_sub(STDERR_LINES)..].iter().map(|line| format!("    {line}\n")).collect()
}
