//! Peaks of the devices that cells ran on: measured once by a child of their own, then kept beside the tuning cache.

use std::path::PathBuf;

use super::caches;
use crate::record::{CellRecord, Peak, PeaksRecord, Results, store};
use crate::runner::Executor;
use crate::spec::{CellSpec, Job, OperationsSpec, Peaks, StepSpec};

/// Variable that names the folder of measured peaks.
const VARIABLE: &str = "BURNMARK_PEAKS_CACHE";

const SOURCE: [&str; 2] = ["fastest of six square matrix products", "fastest of six sums or scalings of 2^26 elements"];

fn folder() -> PathBuf {
    std::env::var_os(VARIABLE).map_or_else(|| caches::of_user().join("peaks"), PathBuf::from)
}

/// The cells whose device has no peaks in the results yet, one for each device, mode and precision.
pub(super) fn wanted(results: &Results) -> Vec<(CellSpec, PeaksRecord)> {
    let mut wanted: Vec<(CellSpec, PeaksRecord)> = Vec::new();
    for cell in results.cells.iter().filter(|cell| cell.failure().is_none()) {
        let empty = unmeasured(cell, results);
        let known = results.peaks.iter().chain(wanted.iter().map(|(_, it)| it)).any(|it| it.same_device(&empty));
        if !known {
            wanted.push((cell.spec.clone(), empty));
        }
    }
    wanted
}

fn unmeasured(cell: &CellRecord, results: &Results) -> PeaksRecord {
    let peak =
        |unit: &str, source: &str| Peak { value: None, unit: unit.to_owned(), source: source.to_owned(), reason: None };
    PeaksRecord {
        backend: cell.spec.backend.clone(),
        device: cell.device.as_ref().map_or_else(String::new, |device| device.name.clone()),
        cpu: results.environment.cpu.clone(),
        mode: cell.spec.mode,
        precision: cell.spec.precision,
        burnmark: results.environment.versions.burnmark.clone(),
        timestamp: jiff::Timestamp::now().to_string(),
        flops: peak("FLOP/s", SOURCE[0]),
        bytes: peak("byte/s", SOURCE[1]),
    }
}

/// The peaks that are kept, or measured anew; a failure is a reason and is not kept.
pub(super) fn found(cell: &CellSpec, empty: PeaksRecord, executor: &dyn Executor) -> PeaksRecord {
    let name = format!("{}-{}-{}.json", cell.backend.replace([':', '/'], "-"), cell.mode, cell.precision);
    let path = folder().join(name);
    let kept = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<PeaksRecord>(&text).ok());
    if let Some(kept) = kept.filter(|kept| kept.same_device(&empty)) {
        return kept;
    }
    let spec = OperationsSpec {
        backend: cell.backend.clone(),
        mode: cell.mode,
        precision: cell.precision,
        model: cell.model.clone(),
        batch_size: cell.batch_size,
        seq_length: cell.seq_length,
        steps: StepSpec { warmup_steps: 0, benchmark_steps: 1 },
        seed: cell.seed,
        operations: Vec::new(),
    };
    let done = executor.execute(&Job::Operations { spec, cache: Some(caches::kept()) }, &mut |_| {});
    let why = done.failure.map_or_else(|| "the child told no peaks".to_owned(), |failure| failure.to_string());
    let Peaks { flops_per_s, bytes_per_s } = done.peaks.unwrap_or_default();
    let filled = |peak: Peak, value: Option<f64>| Peak { value, reason: value.is_none().then(|| why.clone()), ..peak };
    let record = PeaksRecord {
        flops: filled(empty.flops.clone(), flops_per_s),
        bytes: filled(empty.bytes.clone(), bytes_per_s),
        ..empty
    };
    let complete = record.flops.value.is_some() && record.bytes.value.is_some();
    if complete && std::fs::create_dir_all(folder()).is_ok() {
        // A cache that cannot be written costs the next run a measurement, nothing else.
        let _ = store::write_atomic(&path, &record);
    }
    record
}
