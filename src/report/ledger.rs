//! What fusion, autotune and graph capture cost to warm up, and what they give back.

use super::Style;
use super::table::table;
use super::units::{MISSING, megabytes, or_missing, time};
use crate::record::{CellRecord, Results};

/// The ledger's tables; empty where no cell tuned.
pub(super) fn ledger(results: &Results, style: Style) -> String {
    let tuned: Vec<&CellRecord> = results.cells.iter().filter(|cell| cell.tuning.is_some()).collect();
    if tuned.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}\n{}", style.bold("Tuning"), tuning(&tuned));
    text.push_str(&format!("\n{}\n{}", style.bold("Warm-up and execution"), execution(results, &tuned)));
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
            rows.push(vec![
                cell.spec.label(),
                total.workload.to_string(),
                or_missing(warmup.first_step_ms, time),
                or_missing(warmup.price_ms, time),
                total.steady_from_step.map_or_else(|| MISSING.to_owned(), |step| format!("step {}", step + 1)),
                if execution.replayed == Some(true) { format!("{launches} + graph") } else { launches },
                or_missing(execution.fused_percent, |share| format!("{share:.0} %")),
                or_missing(execution.host_overhead_percent, |share| format!("{share:.0} %")),
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
