//! What `burnmark ops` prints.

use super::table::table;
use super::units::{MISSING, megabytes, or_missing, ratio, time};
use crate::record::{OperationsRecord, OperationsResults};
use crate::spec::{Figure, OperationObservation, Timing};
use crate::stats::{Sample, Summary};

/// A table for each backend and size.
#[must_use]
pub fn operations(results: &OperationsResults) -> String {
    results.records.iter().map(record).collect::<Vec<_>>().join("\n")
}

fn record(record: &OperationsRecord) -> String {
    let spec = &record.spec;
    let device = record.device.as_ref().map_or_else(|| spec.backend.clone(), |device| device.name.clone());
    let peaks = record.peaks.unwrap_or_default();
    let mut text = format!(
        "{} ({device}) · {} · {} · batch {} · sequence {}\npeaks: {} GFLOP/s, {} GB/s\n",
        spec.backend,
        spec.mode,
        spec.precision,
        spec.batch_size,
        spec.seq_length,
        or_missing(peaks.flops_per_s.map(|rate| rate / 1e9), |rate| format!("{rate:.0}")),
        or_missing(peaks.bytes_per_s.map(|rate| rate / 1e9), |rate| format!("{rate:.0}")),
    );
    let header = [
        "operation",
        "reference",
        "fused",
        "",
        "memory",
        "",
        "saved",
        "",
        "GFLOP/s",
        "of peak",
        "GB/s",
        "of peak",
        "error",
    ];
    let rows: Vec<Vec<String>> = record.observations.iter().map(|observation| row(observation, record)).collect();
    text.push_str(&table(&header.map(str::to_owned), &rows));
    if let Some(failure) = &record.failure {
        text.push_str(&format!("  not complete: {failure}\n"));
    }
    text
}

fn row(observation: &OperationObservation, record: &OperationsRecord) -> Vec<String> {
    let (reference, fused) = (median_ms(&observation.reference), median_ms(&observation.fused));
    let ratio_of = reference.zip(fused).filter(|_| observation.agrees()).map(|(reference, fused)| reference / fused);
    let peaks = record.peaks.unwrap_or_default();
    let rate = |amount: u64| fused.filter(|ms| *ms > 0.0).map(|ms| amount as f64 / (ms / 1e3));
    let (flops, bytes) = (rate(observation.work.flops), rate(observation.work.bytes));
    let share = |rate: Option<f64>, peak: Option<f64>| {
        or_missing(rate.zip(peak).map(|(rate, peak)| rate / peak * 100.0), |share| format!("{share:.0} %"))
    };
    let mb = |figure: &Figure| or_missing(figure.bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)), megabytes);
    let saved = |timing: &Timing| timing.saved.as_ref().map_or_else(String::new, mb);
    vec![
        format!("{}, {}", observation.operation, observation.pass),
        or_missing(reference, time),
        or_missing(fused, time),
        or_missing(ratio_of, ratio),
        mb(&observation.reference.memory),
        mb(&observation.fused.memory),
        saved(&observation.reference),
        saved(&observation.fused),
        or_missing(flops.map(|rate| rate / 1e9), |rate| format!("{rate:.1}")),
        share(flops, peaks.flops_per_s),
        or_missing(bytes.map(|rate| rate / 1e9), |rate| format!("{rate:.1}")),
        share(bytes, peaks.bytes_per_s),
        observation.error.map_or_else(|| MISSING.to_owned(), |error| format!("{error:.0e}")),
    ]
}

fn median_ms(timing: &Timing) -> Option<f64> {
    let sample = Sample::new(timing.samples_ns.iter().map(|&ns| ns as f64 / 1e6).collect()).ok()?;
    Some(Summary::of(&sample).median)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Origin;
    use crate::spec::{Mode, ModelConfig, Operation, OperationsSpec, Pass, Peaks, Precision, StepSpec, Work};

    #[test]
    fn an_operation_that_disagrees_has_no_ratio() {
        let timing = |ms: u64, mb: u64| Timing {
            warmup_ns: Vec::new(),
            samples_ns: vec![ms * 1_000_000; 3],
            memory: Figure::read(mb << 20, "test"),
            saved: Some(Figure::read(mb << 19, "test")),
        };
        let observation = |error: Option<f64>| OperationObservation {
            operation: Operation::RmsNorm,
            pass: Pass::ForwardBackward,
            work: Work { flops: 2_000_000_000, bytes: 40_000_000 },
            reference: timing(8, 3),
            fused: timing(4, 1),
            error,
            tolerance: 1e-4,
        };
        let spec = OperationsSpec {
            backend: "flex".to_owned(),
            mode: Mode::Default,
            precision: Precision::F32,
            model: ModelConfig::default(),
            batch_size: 2,
            seq_length: 64,
            steps: StepSpec { warmup_steps: 0, benchmark_steps: 3 },
            seed: 1,
            operations: Operation::ALL.to_vec(),
        };
        let record = OperationsRecord {
            spec,
            device: None,
            applied: None,
            peaks: Some(Peaks { flops_per_s: Some(1e12), bytes_per_s: None }),
            observations: vec![observation(Some(1e-6)), observation(Some(1e-3)), observation(None)],
            failure: None,
        };
        let mut results =
            OperationsResults { origin: Origin::here(Vec::new()), peaks: Vec::new(), records: Vec::new() };
        results.records.push(record);
        assert!(!results.agrees() && results.complete());
        insta::assert_snapshot!(operations(&results));
    }
}
