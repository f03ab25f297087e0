use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::CommandError;
use crate::backends;
use crate::record::GateRecord;
use crate::runner::Collected;
use crate::spec::VerifySpec;

/// Gates of several backends or modes, tied together: the first of a precision and size leaves its numbers in a file
/// that the others are held against.
pub(super) struct SharedReferences {
    gates: Vec<VerifySpec>,
    /// Holds the files; they go with it.
    _folder: Option<TempDir>,
}

impl SharedReferences {
    pub(super) fn new(planned: &[VerifySpec]) -> Result<Self, CommandError> {
        if planned.len() < 2 && planned.iter().all(|gate| backends::external(&gate.backend).is_none()) {
            return Ok(Self { gates: planned.to_vec(), _folder: None });
        }
        let folder = tempfile::Builder::new().prefix("burnmark-").tempdir().map_err(CommandError::TemporaryFolder)?;
        // A backend that is a program of its own can be held against numbers, but leaves none.
        let mut gates = planned.to_vec();
        gates.sort_by_key(|gate| backends::external(&gate.backend).is_some());
        for index in 0..gates.len() {
            let (before, rest) = gates.split_at_mut(index);
            let gate = &mut rest[0];
            match before.iter().find(|other| same_numbers(other, gate)) {
                Some(first) => {
                    gate.reference.clone_from(&first.export);
                    gate.tolerance = gate.tolerance.with(&first.tolerance);
                }
                None if backends::external(&gate.backend).is_none() => gate.export = Some(file(folder.path(), gate)),
                None => {}
            }
        }
        Ok(Self { gates, _folder: Some(folder) })
    }

    pub(super) fn gates(&self) -> impl Iterator<Item = &VerifySpec> {
        self.gates.iter()
    }
}

/// The outcome of a gate, its files under their names alone: their folder does not outlive the run.
pub(super) fn record(gate: &VerifySpec, mut done: Collected) -> GateRecord {
    let name = |path: &Option<PathBuf>| path.as_deref().and_then(Path::file_name).map(PathBuf::from);
    let mut spec = gate.clone();
    (spec.reference, spec.export) = (name(&gate.reference), name(&gate.export));
    if let (Some(report), Some(reference)) = (&mut done.verification, &spec.reference) {
        report.reference = reference.display().to_string();
    }
    GateRecord::new(spec, done)
}

/// Whether two gates compute the same numbers.
fn same_numbers(a: &VerifySpec, b: &VerifySpec) -> bool {
    let numbers = |gate: &VerifySpec| {
        (gate.family.clone(), gate.precision, gate.model.clone(), gate.batch_size, gate.seq_length, gate.seed)
    };
    numbers(a) == numbers(b)
}

fn file(folder: &Path, gate: &VerifySpec) -> PathBuf {
    let backend = gate.backend.replace(':', "-");
    folder.join(format!(
        "{backend}-{}-{}-b{}s{}.safetensors",
        gate.mode, gate.precision, gate.batch_size, gate.seq_length
    ))
}
