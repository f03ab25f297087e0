use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Origin;
use crate::spec::{CellSpec, Failure, Figure, Workload};

/// What is made larger until it no longer fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Grown {
    /// Sequences of a step, or generated side by side.
    #[default]
    Batch,
    /// Tokens of a sequence, or of a prompt.
    Sequence,
}

impl std::fmt::Display for Grown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Batch => "batch",
            Self::Sequence => "sequence",
        })
    }
}

/// One size that was tried, in a process of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FitProbe {
    /// The size.
    pub size: usize,
    /// Whether a step ran to its end.
    pub fits: bool,
    /// Most in use during the step, if it ran.
    pub peak: Option<Figure>,
    /// What the model's sizes predict for it, in bytes, if its family predicts it.
    pub predicted_peak_bytes: Option<u64>,
    /// Why it did not run to its end.
    pub failure: Option<Failure>,
}

/// The largest size of one cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FitRecord {
    /// The cell at the largest size that fits, or at size 1 if none was found.
    pub cell: CellSpec,
    /// The largest size that fits; null if not even 1 does, or the search ended before.
    pub largest: Option<usize>,
    /// Whether memory is what ends there, and not the largest size that was to be tried.
    pub limited_by_memory: bool,
    /// Largest size whose predicted peak is within the limit: where the search began; null without a prediction.
    pub predicted_largest: Option<usize>,
    /// Every size tried, in order.
    pub probes: Vec<FitProbe>,
    /// What ended the search early, if it was not memory.
    pub failure: Option<Failure>,
}

/// The results file of `burnmark fit`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FitResults {
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// What was made larger.
    pub grown: Grown,
    /// Of which workload one step had to fit.
    pub workload: Workload,
    /// Resident set a process was allowed, in bytes; null if it was not limited.
    pub memory_limit_bytes: Option<u64>,
    /// Largest size that was to be tried.
    pub up_to: usize,
    /// One entry a backend, mode, precision and variant.
    pub records: Vec<FitRecord>,
}
