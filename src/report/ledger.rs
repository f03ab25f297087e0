//! What fusion, autotune and graph capture cost to warm up, and what they give back.

use super::Style;
use super::table::table;
use super::units::{MISSING, megabytes, or_missing, time};
use crate::record::{CellRecord, Results};
use crate::spec::TuningCache;

/// The ledger's tables; empty where no cell tuned.
pub(super) fn ledger(results: &Results, style: Style) -> String {
    let tuned: Vec<&CellRecord> = results.cells.iter().filter(|cell| cell.tuning.is_some()).collect();
    if tuned.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}\n{}", style.bold("Tuning"), tuning(&tuned));
    // No workload of a cell that was cut short may be complete.
    if tuned.iter().any(|cell| !cell.workloads().totals().is_empty()) {
        text.push_str(&format!("\n{}\n{}", style.bold("Warm-up and execution"), execution(results, &tuned)));
    }
    text.push_str(&spreads(results, style));
    text
}

fn tuning(cells: &[&CellRecord]) -> String {
    let header =
        ["cell", "known", "tuned", "candidates", "tuning", "compiled", "compiling", "loaded"].map(str::to_owned);
    let rows: Vec<Vec<String>> = cells
        .iter()
        .filter_map(|cell| {
            let ledger = cell.tuning.as_ref()?;
            Some(vec![
                cell.spec.label(),
                ledger.keys_known.to_string(),
                ledger.keys_tuned.to_string(),
                ledger.candidates_run.to_string(),
                time(ledger.tuning_ms),
                ledger.kernels_compiled.to_string(),
                time(ledger.compile_ms),
                ledger.kernels_loaded.to_string(),
            ])
        })
        .collect();
    let mut text = table(&header, &rows);
    for cell in cells {
        if let Some(not_kept) = not_kept(cell) {
            text.push_str(&format!("  {}: {not_kept}\n", cell.spec.label()));
        }
        for (workload, samples) in cell.tuning.iter().flat_map(|ledger| &ledger.contaminated_samples) {
            text.push_str(&format!(
                "  {}: {} {workload} samples hold tuning or compiling; more warm-up steps keep them clean\n",
                cell.spec.label(),
                samples.len()
            ));
        }
    }
    text
}

/// Answers that were not kept where the cache is the cell's own: CubeCL keeps none that it did not measure.
fn not_kept(cell: &CellRecord) -> Option<String> {
    let tuned = &cell.tuning.as_ref()?.events.tuned;
    let count = tuned.iter().filter(|key| !key.stored).count();
    let own = matches!(cell.spec.tuning_cache, TuningCache::Cold | TuningCache::Warm);
    (own && count > 0).then(|| {
        format!(
            "{count} of {} answers were not kept: no candidate could be measured, or the cache could not be written; \
             RUST_LOG=warn with `-v` says why",
            tuned.len()
        )
    })
}

fn execution(results: &Results, cells: &[&CellRecord]) -> String {
    let header = [
        "cell",
        "workload",
        "first step",
        "warm-up price",
        "steady from",
        "launches",
        "fused",
        "host share",
        "pays after",
        "memory",
    ]
    .map(str::to_owned);
    let mut rows = Vec::new();
    for cell in cells {
        for total in cell.workloads().totals() {
            let even = results.break_evens.iter().find(|even| even.cell == cell.id && even.workload == total.workload);
            let pays =
                even.map(|even| even.steps.map_or_else(|| "never".to_owned(), |steps| format!("{steps:.0} steps")));
            let (warmup, execution) = (total.warmup, total.execution);
            let launches = execution.launches.map_or_else(|| MISSING.to_owned(), |count| count.to_string());
            let replayed = execution.replayed == Some(true);
            let bound = if replayed { '≤' } else { '≥' };
            rows.push(vec![
                cell.spec.label(),
                total.workload.to_string(),
                or_missing(warmup.first_step_ms, time),
                or_missing(warmup.price_ms, time),
                total.steady_from_step.map_or_else(|| MISSING.to_owned(), |step| format!("step {}", step + 1)),
                if replayed { format!("{launches} + graph") } else { launches },
                or_missing(execution.fused_percent, |share| format!("{share:.0} %")),
                or_missing(execution.host_overhead_percent, |share| format!("{bound} {share:.0} %")),
                pays.unwrap_or_default(),
                match total.growth_bytes_per_step {
                    Some(bytes) => format!("grows {}/step", megabytes(bytes / f64::from(1 << 20))),
                    None => String::new(),
                },
            ]);
        }
    }
    table(&header, &rows)
}

fn spreads(results: &Results, style: Style) -> String {
    if results.tuning_spreads.is_empty() {
        return String::new();
    }
    let header = ["cell", "workload", "tunings", "between tunings", "within one"].map(str::to_owned);
    let rows: Vec<Vec<String>> = results
        .tuning_spreads
        .iter()
        .map(|spread| {
            let label = results.cell(&spread.cell).map_or_else(|| spread.cell.clone(), |cell| cell.spec.label());
            vec![
                label,
                spread.workload.to_string(),
                spread.means_ms.len().to_string(),
                format!("± {}", time(spread.between_std_ms)),
                format!("± {}", time(spread.within_std_ms)),
            ]
        })
        .collect();
    format!("\n{}\n{}", style.bold("Spread between tunings"), table(&header, &rows))
}

#[cfg(test)]
mod tests {
    use burnmark_backend_api::{CompiledKernel, KernelUse, TunedKey, TuningEvents};

    use super::*;
    use crate::record::TuningRecord;
    use crate::record::fixtures::{observations, planned, record};
    use crate::spec::{Failure, FailureKind, Mode, Observation, Reading, StepLaunches};

    /// A cell that launches beside one that replays: what each of their host shares bounds, and when the second one pays.
    #[test]
    fn what_was_tuned_and_when_it_pays() {
        let mut results = planned();
        results.plan.truncate(1);
        results.plan[0].mode = Mode::NoCompile;
        results.plan.push(crate::spec::CellSpec { mode: Mode::ReduceOverhead, ..results.plan[0].clone() });
        for (index, step_ms) in [30, 10].into_iter().enumerate() {
            let kernel = |kernel: &str, launches, device_ns, fused| KernelUse {
                kernel: kernel.to_owned(),
                launches,
                device_ns: Some(device_ns),
                fused,
            };
            let kernels = vec![kernel("ElemwiseFuse", 1, 3_000_000, true), kernel("Linear", 3, 12_000_000, false)];
            let seen = observations(step_ms, 100).into_iter().take(1).map(|seen| Observation {
                warmup_ns: vec![90_000_000 * (index as u64 + 1), step_ms * 1_000_000],
                launches: Reading::Read(StepLaunches { kernels: kernels.clone() }),
                replayed: (index == 1).then_some(true),
                returned_ns: vec![1_000_000; 2],
                ..seen
            });
            let mut cell = record(&results, index, seen.collect(), None);
            let compiled =
                CompiledKernel { at_ns: 1, wall_ns: 60_000_000, kernel: "Linear".to_owned(), loaded: index == 0 };
            let events = TuningEvents { compiled: vec![compiled], ..TuningEvents::default() };
            cell.tuning = Some(TuningRecord::new(events, &[]));
            results.finish_cell(cell);
        }
        insta::assert_snapshot!(ledger(&results, Style::default()));
    }

    #[test]
    fn a_cell_without_a_complete_workload_has_no_row_of_execution() {
        let mut results = planned();
        let mut cell = record(&results, 0, Vec::new(), Some(Failure::new(FailureKind::TimedOut, "while it tuned")));
        cell.tuning = Some(TuningRecord::new(TuningEvents::default(), &[]));
        results.finish_cell(cell);
        let text = ledger(&results, Style::default());
        assert!(text.contains("candidates") && !text.contains("first step"), "{text}");
    }

    #[test]
    fn answers_that_rest_on_no_measurement_are_told() {
        let tuned = |stored| TunedKey { stored, ..TunedKey::default() };
        let told = |tuning_cache| {
            let mut results = planned();
            results.plan[0].tuning_cache = tuning_cache;
            let mut cell = record(&results, 0, Vec::new(), Some(Failure::new(FailureKind::TimedOut, "while it tuned")));
            let events = TuningEvents { tuned: vec![tuned(true), tuned(false)], ..TuningEvents::default() };
            cell.tuning = Some(TuningRecord::new(events, &[]));
            not_kept(&cell)
        };
        assert!(told(TuningCache::Cold).is_some_and(|told| told.starts_with("1 of 2 answers")));
        assert_eq!(told(TuningCache::Kept), None);
    }
}
