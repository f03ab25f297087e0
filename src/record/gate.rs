use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Origin;
use crate::runner::Collected;
use crate::spec::{Applied, CellSpec, Check, DeviceReport, Failure, FailureKind, VerifyReport, VerifySpec};

/// Whether figures may be compared without proof that both sides compute the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GatePolicy {
    /// No comparison without a passed gate.
    #[default]
    Required,
    /// The user does without; comparisons are marked as not verified.
    Disabled,
}

/// How a correctness gate ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum GateOutcome {
    /// Every check passed.
    Passed {
        /// The checks.
        report: VerifyReport,
    },
    /// At least one check failed.
    Failed {
        /// The checks.
        report: VerifyReport,
    },
    /// Not all checks could be made.
    Incomplete {
        /// Why.
        failure: Failure,
        /// Those that were, of the variants before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report: Option<VerifyReport>,
    },
}

impl GateOutcome {
    /// The checks that were made.
    #[must_use]
    pub fn report(&self) -> Option<&VerifyReport> {
        match self {
            Self::Passed { report } | Self::Failed { report } => Some(report),
            Self::Incomplete { report, .. } => report.as_ref(),
        }
    }
}

/// One correctness gate after it has been run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateRecord {
    /// What was asked for.
    pub spec: VerifySpec,
    /// The device, if it was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceReport>,
    /// What of the request was put into effect, if the device was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// How it ended.
    pub outcome: GateOutcome,
}

impl GateRecord {
    /// What came of a gate.
    pub fn new(spec: VerifySpec, done: Collected) -> Self {
        let outcome = match (done.failure, done.verification) {
            (Some(failure), report) => GateOutcome::Incomplete { failure, report },
            (None, Some(report)) if report.passed() => GateOutcome::Passed { report },
            (None, Some(report)) => GateOutcome::Failed { report },
            (None, None) => {
                let message = "the child finished without a verification";
                GateOutcome::Incomplete { failure: Failure::new(FailureKind::Protocol, message), report: None }
            }
        };
        Self { spec, device: done.device, applied: done.applied, outcome }
    }

    /// Whether every check passed.
    pub fn passed(&self) -> bool {
        matches!(self.outcome, GateOutcome::Passed { .. })
    }

    /// Whether the gate speaks about a cell: same backend, family, variant, mode, precision, and sizes of the model
    /// (with a reference file its own sizes are used, so any will do). Batch and sequence may differ.
    fn covers(&self, cell: &CellSpec) -> bool {
        let spec = &self.spec;
        spec.backend == cell.backend
            && spec.family == cell.family
            && spec.mode == cell.mode
            && spec.precision == cell.precision
            && spec.variants.contains(&cell.variant)
            && (spec.reference.is_some() || spec.model == cell.model)
    }

    /// What the variants are held against: the reference file, or else the first variant.
    fn anchor(&self) -> String {
        match self.spec.reference.as_ref().or(self.spec.export.as_ref()) {
            Some(path) => format!("file {}", path.display()),
            None => format!("variant {}", self.spec.variants.first().map_or("", String::as_str)),
        }
    }

    /// Why the gate does not hold for a variant, if it does not.
    fn objection(&self, variant: &str) -> Option<String> {
        let made = self.outcome.report().into_iter().flat_map(|report| &report.checks);
        let checks: Vec<&Check> = made.filter(|check| check.variant == variant).collect();
        let failed: Vec<&&Check> = checks.iter().filter(|check| !check.passed).collect();
        match (failed.first(), &self.outcome) {
            (_, GateOutcome::Incomplete { failure, .. }) if checks.is_empty() => {
                Some(format!("the correctness gate failed: {failure}"))
            }
            _ if checks.is_empty() => Some(format!("the correctness gate made no check of `{variant}`")),
            (None, _) => None,
            (Some(first), _) => Some(format!(
                "the correctness gate failed: {} of {} checks of `{variant}`, the first of them {}",
                failed.len(),
                checks.len(),
                first.what
            )),
        }
    }
}

/// The results file of `burnmark verify`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VerificationResults {
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// One entry a backend, mode and precision.
    pub gates: Vec<GateRecord>,
}

/// How far a cell's model computes from what it was held against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Agreement {
    /// Id of the cell.
    pub cell: String,
    /// What its variant was held against.
    pub against: String,
    /// Relative L2 error of the logits.
    pub logits: Option<f64>,
    /// Largest relative L2 error of a gradient.
    pub gradients: Option<f64>,
    /// Whether every check of the variant passed.
    pub passed: bool,
}

/// The agreement of every cell that a gate covers; a first variant that is itself the reference has no errors.
pub(super) fn agreements(gates: &[GateRecord], cells: &[CellSpec]) -> Vec<Agreement> {
    let of = |cell: &CellSpec| {
        let gate = gates.iter().find(|gate| gate.covers(cell))?;
        let report = gate.outcome.report()?;
        let checks = || report.checks.iter().filter(|check| check.variant == cell.variant);
        let held = |check: &&Check| check.what == "logits" || check.what.starts_with("grad.");
        Some(Agreement {
            cell: cell.id(),
            against: checks().find(held)?.against.clone(),
            logits: checks().find(|check| check.what == "logits").and_then(|check| check.error),
            gradients: checks()
                .filter(|check| check.what.starts_with("grad."))
                .try_fold(0.0, |worst, check| Some(check.error?.max(worst))),
            passed: checks().all(|check| check.passed),
        })
    };
    cells.iter().filter_map(of).collect()
}

/// What the gates say about a pair of cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Both sides compute the same.
    Verified,
    /// The user does without the gate.
    Disabled,
    /// They do not, or nobody knows; why.
    Refused(String),
}

/// Judges a pair: every gate that covers one of its cells must hold for that cell's variant, and the two must have
/// been held against the same thing.
pub(super) fn judge(policy: GatePolicy, gates: &[GateRecord], pair: [&CellSpec; 2]) -> Verdict {
    if policy == GatePolicy::Disabled {
        return Verdict::Disabled;
    }
    let covering = pair.map(|cell| gates.iter().filter(|gate| gate.covers(cell)).collect::<Vec<_>>());
    for (cell, gates) in pair.iter().zip(&covering) {
        if gates.is_empty() {
            return Verdict::Refused(format!("the correctness gate has not been run for `{}`", cell.label()));
        }
        if let Some(objection) = gates.iter().find_map(|gate| gate.objection(&cell.variant)) {
            return Verdict::Refused(objection);
        }
    }
    let [baseline, candidate] = covering;
    if baseline.iter().any(|one| candidate.iter().any(|other| one.anchor() == other.anchor())) {
        return Verdict::Verified;
    }
    Verdict::Refused("the two models were not held against the same reference".to_owned())
}
