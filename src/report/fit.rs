//! What `burnmark fit` prints.

use super::table::table;
use super::units::{MISSING, megabytes, percent};
use crate::record::{FitProbe, FitRecord, FitResults};

/// One row a cell.
#[must_use]
pub fn largest(results: &FitResults) -> String {
    let limit = results.memory_limit_bytes.map_or_else(
        || "not limited but by the device".to_owned(),
        |bytes| format!("resident set up to {}", megabytes(in_mb(bytes))),
    );
    let grown = results.grown.to_string();
    let header = ["", grown.as_str(), "predicted", "peak there", "predicted", "off by", "tries"].map(str::to_owned);
    let rows: Vec<Vec<String>> = results.records.iter().map(row).collect();
    let mut text = format!("largest {grown} of one {} step, {limit}\n", results.workload) + &table(&header, &rows);
    for record in &results.records {
        if let Some(failure) = &record.failure {
            text.push_str(&format!("  {}: {failure}\n", record.cell.variant));
        } else if record.largest.is_none() {
            text.push_str(&format!("  {}: not even 1 fits\n", record.cell.variant));
        }
    }
    if results.records.iter().any(|record| record.largest == Some(results.up_to)) {
        text.push_str("  ≥: nothing larger was tried; `--up-to` and the model's positions decide\n");
    }
    text
}

fn row(record: &FitRecord) -> Vec<String> {
    let there = record.probes.iter().find(|probe| Some(probe.size) == record.largest);
    let peak = there.and_then(|probe| probe.peak.as_ref()?.bytes);
    let predicted = there.and_then(|probe: &FitProbe| probe.predicted_peak_bytes);
    let off = predicted.zip(peak).map(|(predicted, peak)| (predicted as f64 / peak as f64 - 1.0) * 100.0);
    let or_missing = |text: Option<String>| text.unwrap_or_else(|| MISSING.to_owned());
    let cell = &record.cell;
    let at_least = if record.limited_by_memory { "" } else { "≥ " };
    vec![
        format!("{}/{}/{}/{}", cell.backend, cell.variant, cell.mode, cell.precision),
        or_missing(record.largest.map(|size| format!("{at_least}{size}"))),
        or_missing(record.predicted_largest.map(|size| size.to_string())),
        or_missing(peak.map(|bytes| megabytes(in_mb(bytes)))),
        or_missing(predicted.map(|bytes| megabytes(in_mb(bytes)))),
        or_missing(off.map(percent)),
        record.probes.len().to_string(),
    ]
}

fn in_mb(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
