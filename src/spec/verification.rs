use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Mode, ModelConfig, Precision};

/// Largest relative L2 error that passes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tolerance {
    /// Of logits and loss.
    pub logits: f64,
    /// Of each gradient.
    pub gradients: f64,
}

impl Tolerance {
    /// What rounding alone may cost at a precision; `tf32` where single-precision products are made of TF32 factors,
    /// each of which is off by up to 2^-11. bfloat16 rounds every weight and activation by up to 2^-9.
    #[must_use]
    pub fn of(precision: Precision, tf32: bool) -> Self {
        match precision {
            Precision::F32 if tf32 => Self { logits: 5e-3, gradients: 1e-2 },
            Precision::F32 => Self { logits: 1e-5, gradients: 1e-4 },
            Precision::F64 => Self { logits: 1e-12, gradients: 1e-11 },
            Precision::Bf16 | Precision::Mixed => Self { logits: 3e-2, gradients: 6e-2 },
        }
    }

    /// What passes where both sides have rounded: the larger of two tolerances.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self { logits: self.logits.max(other.logits), gradients: self.gradients.max(other.gradients) }
    }
}

/// Proof of numbers asked of a child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VerifySpec {
    /// Backend and device.
    pub backend: String,
    /// Model family in the registry.
    pub family: String,
    /// Variants to check; without a reference each is held against the first.
    pub variants: Vec<String>,
    /// Execution mode.
    pub mode: Mode,
    /// Element type.
    pub precision: Precision,
    /// Sizes; replaced by those of the reference, if there is one.
    pub model: ModelConfig,
    /// Sequences; replaced by those of the reference, if there is one.
    pub batch_size: usize,
    /// Tokens per sequence; replaced by those of the reference, if there is one.
    pub seq_length: usize,
    /// Seed of weights and ids where there is no reference.
    pub seed: u64,
    /// A safetensors file with weights, ids, logits, loss, gradients and a greedy continuation.
    pub reference: Option<PathBuf>,
    /// Where to leave what the first variant computes, as such a file, for other backends to be held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<PathBuf>,
    /// What passes.
    pub tolerance: Tolerance,
}

/// One comparison of a verification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// The variant that was checked.
    pub variant: String,
    /// What was compared: `logits`, `loss`, `grad.<parameter>`, `cached decode`, `greedy continuation`.
    pub what: String,
    /// Against what: `reference` or the name of a variant.
    pub against: String,
    /// Relative L2 error, or the share of differing tokens for the greedy continuation; `None` if it is not a number.
    pub error: Option<f64>,
    /// Largest error that passes.
    pub tolerance: f64,
    /// Whether it passed.
    pub passed: bool,
    /// More, such as the position with the largest error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Everything one verification compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyReport {
    /// Where the expected numbers come from: a file's path, or seeded weights.
    pub reference: String,
    /// The comparisons in the order they were made.
    pub checks: Vec<Check>,
}

impl VerifyReport {
    /// Whether there was something to compare and all of it passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.checks.is_empty() && self.failed() == 0
    }

    /// Checks that did not pass.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.checks.iter().filter(|check| !check.passed).count()
    }
}
