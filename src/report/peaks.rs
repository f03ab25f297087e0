//! What `burnmark peaks` prints.

use super::table::table;
use super::units::{MISSING, or_missing};
use crate::record::{KeptPeaks, Peak, PeaksResults};

/// A table of the peaks, and below it where each comes from.
#[must_use]
pub fn peaks(results: &PeaksResults) -> String {
    let header =
        ["backend", "mode", "precision", "GFLOP/s", "GB/s", "measured", "burnmark", "build"].map(str::to_owned);
    let rows: Vec<Vec<String>> = results.records.iter().map(row).collect();
    table(&header, &rows) + &results.records.iter().map(provenance).collect::<String>()
}

fn row(kept: &KeptPeaks) -> Vec<String> {
    let it = &kept.peaks;
    let giga = |peak: &Peak| or_missing(peak.value.map(|rate| rate / 1e9), |rate| format!("{rate:.1}"));
    let date = it.timestamp.split('T').next().unwrap_or_default();
    vec![
        it.backend.clone(),
        it.mode.to_string(),
        it.precision.to_string(),
        giga(&it.flops),
        giga(&it.bytes),
        date.to_owned(),
        it.burnmark.clone(),
        it.profile.clone().unwrap_or_else(|| MISSING.to_owned()),
    ]
}

fn provenance(kept: &KeptPeaks) -> String {
    let it = &kept.peaks;
    let source = |peak: &Peak| match &peak.reason {
        Some(reason) => format!("  {}: {MISSING}: {reason}\n", peak.unit),
        None => format!("  {}: {}\n", peak.unit, peak.source),
    };
    let cpu = it.cpu.as_deref().filter(|cpu| *cpu != it.device).map_or_else(String::new, |cpu| format!(", on {cpu}"));
    let file = kept.file.as_ref().map_or_else(|| "not kept".to_owned(), |file| format!("kept in {}", file.display()));
    let device = format!("\n{} {} {} · {}{cpu}\n", it.backend, it.mode, it.precision, it.device);
    device + &source(&it.flops) + &source(&it.bytes) + &format!("  {}, {file}\n", it.timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Origin, PeaksRecord, fixtures};
    use crate::spec::Peaks;

    #[test]
    fn every_peak_says_where_it_comes_from() {
        let known = fixtures::peaks();
        let gpu = PeaksRecord { backend: "cuda".to_owned(), device: "Some GPU".to_owned(), ..known.clone() };
        let failed = gpu.filled(Peaks::default(), "unsupported: no driver");
        let results = PeaksResults {
            origin: Origin::here(Vec::new()),
            records: vec![
                KeptPeaks { peaks: known, file: Some("folder/flex-Some-CPU.json".into()) },
                KeptPeaks { peaks: failed, file: None },
            ],
        };
        insta::assert_snapshot!(peaks(&results));
    }
}
