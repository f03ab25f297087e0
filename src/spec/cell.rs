use std::fmt;

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ModelConfig;

/// What a cell measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// Forward, next-token cross-entropy, backward; optionally an optimiser step.
    Training,
    /// Forward alone, without autodiff.
    Inference,
    /// Prefill of a prompt, then one token at a time with a key-value cache.
    Generation,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Training => "training",
            Self::Inference => "inference",
            Self::Generation => "generation",
        })
    }
}

/// Execution mode, standing in for `torch.compile`'s; see docs/METHOD.md for what each means on a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// No fusion, cheapest autotune (`--no-compile`).
    NoCompile,
    /// Fusion and balanced autotune where the backend has them.
    #[default]
    Default,
    /// As `default`, with graph capture and replay of inference and decode.
    ReduceOverhead,
    /// Fusion, full autotune, graph capture and replay.
    MaxAutotune,
}

impl Mode {
    /// Whether it asks for graphs that are recorded once and replayed.
    #[must_use]
    pub fn replays(self) -> bool {
        matches!(self, Self::ReduceOverhead | Self::MaxAutotune)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCompile => "no-compile",
            Self::Default => "default",
            Self::ReduceOverhead => "reduce-overhead",
            Self::MaxAutotune => "max-autotune",
        })
    }
}

/// What a process finds of kernels that earlier processes tuned and compiled, and what it leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TuningCache {
    /// burnmark's own cache, kept from run to run.
    #[default]
    Kept,
    /// A cache of the cell's own, empty at first.
    Cold,
    /// A cache of the cell's own, filled before by a process that did the same work.
    Warm,
    /// No cache: nothing is found and nothing is left.
    Off,
}

impl fmt::Display for TuningCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept => "kept",
            Self::Cold => "cold",
            Self::Warm => "warm",
            Self::Off => "off",
        })
    }
}

/// Element type of weights and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floating point throughout.
    #[default]
    F32,
    /// 64-bit floating point throughout: for verification, not for speed.
    F64,
    /// bfloat16 weights and activations; norms, softmax and loss computed in 32 bits.
    Bf16,
    /// As bf16, but training keeps 32-bit master weights and gets 32-bit gradients of them (arXiv:1710.03740).
    Mixed,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bf16 => "bf16",
            Self::Mixed => "mixed",
        })
    }
}

/// The optimiser applied after backward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// Gradients are dropped.
    #[default]
    None,
    /// AdamW (arXiv:1711.05101), timed as its own phase.
    Adamw,
}

/// How often a step runs: first untimed-for-statistics, then as samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepSpec {
    /// Steps before the first sample; their times are kept as the warm-up curve.
    pub warmup_steps: usize,
    /// Samples taken.
    pub benchmark_steps: usize,
}

/// What ends a workload's samples before their count; nothing if both are absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stopping {
    /// Half of the 95 % interval of the mean, in percent of it, at which the samples are enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_width_percent: Option<f64>,
    /// Seconds after which no more samples are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_seconds: Option<f64>,
}

/// What ended a workload's samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Ending {
    /// All that were asked for were taken.
    #[serde(rename = "count")]
    Count,
    /// The interval of the mean was narrow enough.
    #[serde(rename = "narrow enough")]
    NarrowEnough,
    /// Time was up.
    #[serde(rename = "time")]
    Time,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "count",
            Self::NarrowEnough => "narrow enough",
            Self::Time => "time",
        })
    }
}

/// Training, one step a sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrainingSpec {
    /// How often.
    pub steps: StepSpec,
    /// What happens to the gradients.
    pub optimizer: Optimizer,
}

/// Generation, one prompt and its continuation a sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GenerationSpec {
    /// Sequences generated side by side.
    pub batch_size: usize,
    /// Tokens in the prompt; the prefill.
    pub prompt_tokens: usize,
    /// Tokens produced, the first of them by the prefill.
    pub new_tokens: usize,
    /// Iterations before the first sample.
    pub warmup_iterations: usize,
    /// Samples taken.
    pub iterations: usize,
}

/// The workloads of a cell; absent ones are not run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Workloads {
    /// Training, if asked for.
    pub training: Option<TrainingSpec>,
    /// Inference, if asked for.
    pub inference: Option<StepSpec>,
    /// Generation, if asked for.
    pub generation: Option<GenerationSpec>,
}

/// One cell of the plan: everything a child needs to reproduce the measurement by hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CellSpec {
    /// Backend and device, such as `flex` or `cuda:0`.
    pub backend: String,
    /// Name of the model family in the registry, `decoder` for the built-in one.
    pub family: String,
    /// Variant of the family, such as `default`, `example` or `example-without-attention`.
    pub variant: String,
    /// Execution mode asked for.
    pub mode: Mode,
    /// What the process finds of earlier tuning.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tuning_cache: TuningCache,
    /// Which repetition of a cold cell it is, from 0.
    #[serde(default, skip_serializing_if = "is_default")]
    pub repeat: usize,
    /// Element type asked for.
    pub precision: Precision,
    /// Sequences per training and inference step.
    pub batch_size: usize,
    /// Tokens per sequence of a training and inference step.
    pub seq_length: usize,
    /// Sizes of the model.
    pub model: ModelConfig,
    /// What is measured.
    pub workloads: Workloads,
    /// What ends a workload's samples before their count.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stopping: Stopping,
    /// Whether samples that something else disturbed are taken again.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub redo_disturbed: bool,
    /// Seed of weights and token ids.
    pub seed: u64,
}

impl CellSpec {
    /// A name that is unique within a plan and stable between runs: the axes, then a digest of the whole spec.
    ///
    /// Two specs with the same id measure the same thing, which is what `--resume` relies on.
    #[must_use]
    pub fn id(&self) -> String {
        let text = serde_json::to_string(self).expect("a cell spec always serialises");
        format!("{}-{:08x}", self.label(), fnv1a(text.as_bytes()))
    }

    /// The axes in words, without the digest.
    #[must_use]
    pub fn label(&self) -> String {
        self.axes().join("/")
    }

    /// Those parts of the label that `other` does not share; the variant if it shares all.
    #[must_use]
    pub fn label_beside(&self, other: &Self) -> String {
        let (own, others) = (self.axes(), other.axes());
        let differing: Vec<&str> =
            own.iter().zip(&others).filter(|(own, other)| own != other).map(|(own, _)| own.as_str()).collect();
        if differing.is_empty() { self.variant.clone() } else { differing.join("/") }
    }

    fn axes(&self) -> [String; 5] {
        let repeat = if self.repeat == 0 { String::new() } else { format!("#{}", self.repeat + 1) };
        let cache = match self.tuning_cache {
            TuningCache::Kept => String::new(),
            cache => format!("/{cache}{repeat}"),
        };
        [
            self.backend.clone(),
            self.variant.clone(),
            format!("{}{cache}", self.mode),
            self.precision.to_string(),
            format!("b{}s{}", self.batch_size, self.seq_length),
        ]
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// FNV-1a folded to 32 bits: stable between builds, which `std`'s hasher does not promise.
fn fnv1a(bytes: &[u8]) -> u32 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ (hash >> 32)) as u32
}
