use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Figure, Mode, ModelConfig, Precision, StepSpec};

/// An operation of the optimised model, beside the plain composition that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// RMSNorm of the hidden states.
    RmsNorm,
    /// Rotary embedding of queries and keys.
    Rope,
    /// SwiGLU of gate and up-projection.
    Swiglu,
    /// Causal attention of whole sequences.
    Attention,
    /// Attention of one new position on a full key-value cache.
    Decode,
    /// Gate and up-projection as one linear layer.
    Linear,
    /// Output projection and cross-entropy.
    CrossEntropy,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::RmsNorm, Self::Rope, Self::Swiglu, Self::Attention, Self::Decode, Self::Linear, Self::CrossEntropy];
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RmsNorm => "rms-norm",
            Self::Rope => "rope",
            Self::Swiglu => "swiglu",
            Self::Attention => "attention",
            Self::Decode => "decode",
            Self::Linear => "linear",
            Self::CrossEntropy => "cross-entropy",
        })
    }
}

/// What of an operation is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pass {
    /// The result, without autodiff.
    Forward,
    /// The result and the gradients of all inputs, for some operations make both in one sweep.
    ForwardBackward,
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::ForwardBackward => "forward + backward",
        })
    }
}

/// Operations to be measured by a child, at one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationsSpec {
    /// Backend and device.
    pub backend: String,
    /// Execution mode.
    pub mode: Mode,
    /// Element type.
    pub precision: Precision,
    /// Widths.
    pub model: ModelConfig,
    /// Sequences.
    pub batch_size: usize,
    /// Tokens of a sequence; for decoding, the positions in the cache.
    pub seq_length: usize,
    /// How often each is run.
    pub steps: StepSpec,
    /// Seed of the inputs.
    pub seed: u64,
    /// Which.
    pub operations: Vec<Operation>,
}

/// The least an operation must do: its formulas are in docs/METHOD.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Work {
    /// Additions and multiplications.
    pub flops: u64,
    /// Every input read once, every result written once.
    pub bytes: u64,
}

/// What one implementation took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// Wall clock of every run before the first sample.
    pub warmup_ns: Vec<u64>,
    /// Wall clock of every sample.
    pub samples_ns: Vec<u64>,
    /// Most memory in use at once beyond the inputs.
    pub memory: Figure,
    /// In use between forward and backward beyond the inputs: the result and what is saved for backward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<Figure>,
}

/// An operation and its reference, measured one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationObservation {
    /// Which operation.
    pub operation: Operation,
    /// Which part of it.
    pub pass: Pass,
    /// What it must do at least.
    pub work: Work,
    /// The plain composition.
    pub reference: Timing,
    /// The operation.
    pub fused: Timing,
    /// Relative L2 of the operation's result against the reference's, or the worst of result and gradients; null if it
    /// is no number.
    pub error: Option<f64>,
    /// Largest error that passes.
    pub tolerance: f64,
}

impl OperationObservation {
    /// Whether both compute the same.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.error.is_some_and(|error| error <= self.tolerance)
    }
}

/// What the device can do at most, measured through the same backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Peaks {
    /// Of a large square matrix product, in operations a second; on CubeCL devices of its own probes too, the faster
    /// counts.
    pub flops_per_s: Option<f64>,
    /// The faster of a sum over far more than caches hold and an element-wise product of it, in bytes read and written
    /// a second; on CubeCL devices of a kernel that only reads and of its own probes too.
    pub bytes_per_s: Option<f64>,
}
