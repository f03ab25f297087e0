use burnmark_backend_api::KernelUse;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CardReading, Disturbance, Ending, Workload};

/// One figure of memory with its provenance; `bytes` is `None` only together with a `note` that says why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Figure {
    /// The figure, if the backend can give it.
    pub bytes: Option<u64>,
    /// Where it comes from: `counting allocator`, `resident set`, `allocator pool`, `driver`.
    pub source: String,
    /// Why it is missing, or how to read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Figure {
    /// A figure that was read.
    #[must_use]
    pub fn read(bytes: u64, source: &str) -> Self {
        Self { bytes: Some(bytes), source: source.to_owned(), note: None }
    }

    /// A figure that cannot be given, and why.
    #[must_use]
    pub fn missing(source: &str, why: &str) -> Self {
        Self { bytes: None, source: source.to_owned(), note: Some(why.to_owned()) }
    }
}

/// Memory of one workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryObservation {
    /// In use when the workload began, weights included.
    pub start: Figure,
    /// Highest in use while samples were taken (peak is reset after warm-up).
    pub peak: Figure,
    /// In use after the last step, its results dropped.
    pub current: Figure,
    /// Held from the operating system or driver at that moment.
    pub reserved: Figure,
    /// Lost to alignment within `current`, where the allocator tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding: Option<Figure>,
    /// In use after the workload's model and inputs were dropped.
    pub after_release: Figure,
}

/// Part of a step whose memory is read apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemoryPhase {
    /// The model, before any step.
    Weights,
    /// Forward pass, its activations kept where a backward pass follows.
    Forward,
    /// Backward pass.
    Backward,
    /// Forward and backward pass, where they are one piece of work.
    Step,
    /// Optimiser step.
    Optimizer,
    /// A prompt into the key-value cache.
    Prefill,
    /// All later tokens.
    Decode,
}

/// Memory at the end of one part of a step, which ran once more after the samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PhaseMemory {
    /// The part.
    pub phase: MemoryPhase,
    /// Most in use during it.
    pub peak: Figure,
    /// In use at its end, its results alive.
    pub current: Figure,
}

/// The same step on the device's clock and on the host's, from steps that ran after the samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceClock {
    /// Time on the device, a step an entry; the device may idle within it while it waits for the host.
    pub device_ns: Vec<u64>,
    /// Wall clock of the same steps.
    pub wall_ns: Vec<u64>,
}

/// The kernels of one step, which ran once more after the samples; for generation of one iteration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepLaunches {
    /// Every kernel, those that took longest first.
    pub kernels: Vec<KernelUse>,
}

/// Whether an optimisation's own kernels ran in a step, so that its name is not all there is of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PathProof {
    /// The optimisation.
    pub optimization: String,
    /// Kernels of which at least one must be among the step's.
    pub kernels: Vec<String>,
    /// Whether one was.
    pub launched: bool,
}

/// A reading, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Reading<T> {
    /// It.
    Read(T),
    /// Why not.
    Missing {
        /// The reason.
        reason: String,
    },
}

impl<T> Reading<T> {
    /// Why there is none.
    pub fn missing(reason: impl Into<String>) -> Self {
        Self::Missing { reason: reason.into() }
    }

    /// The reading, if there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Read(value) => Some(value),
            Self::Missing { .. } => None,
        }
    }
}

impl<T> Default for Reading<T> {
    fn default() -> Self {
        Self::missing("the child reported none")
    }
}

/// The two clocks of generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GenerationSeries {
    /// Prompt in, logits of the first new token out; one entry an iteration.
    pub first_token_ns: Vec<u64>,
    /// Every gap between later tokens, by position; one row an iteration.
    pub per_token_ns: Vec<Vec<u64>>,
}

/// What was read while one workload ran. Raw: every derived figure can be computed again from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Observation {
    /// Which workload.
    pub workload: Workload,
    /// Wall clock of every warm-up step in order, the first step included: the warm-up curve.
    pub warmup_ns: Vec<u64>,
    /// Wall clock of every sample; for generation the whole iteration.
    pub samples_ns: Vec<u64>,
    /// Wall clock of every sample until its calls returned, the device perhaps still at work; the sum over all tokens for generation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub returned_ns: Vec<u64>,
    /// What ended the samples, if the child says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<Ending>,
    /// When each warm-up step began, on the time axis of the tuning events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warmup_at_ns: Vec<u64>,
    /// When each sample began, on the time axis of the tuning events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples_at_ns: Vec<u64>,
    /// Wall clock of the optimiser's part of each sample, if there is an optimiser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer_ns: Option<Vec<u64>>,
    /// First token and gaps, for generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<GenerationSeries>,
    /// Sequences worked on per sample.
    pub sequences_per_sample: usize,
    /// Tokens worked on per sample; for generation the tokens produced.
    pub tokens_per_sample: usize,
    /// Memory.
    pub memory: MemoryObservation,
    /// Peak that the model's sizes predict, in bytes beyond `memory.start`, if the model's family predicts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_peak_bytes: Option<u64>,
    /// Memory in use after each sample, in bytes.
    #[serde(default)]
    pub memory_by_step: Reading<Vec<u64>>,
    /// Memory by part of a step.
    #[serde(default)]
    pub memory_by_phase: Vec<PhaseMemory>,
    /// What the driver says the process holds at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_memory: Option<Figure>,
    /// Whether the device replayed a recorded graph; `None` where that was not to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<bool>,
    /// The device's own clock.
    #[serde(default)]
    pub device_clock: Reading<DeviceClock>,
    /// When something else disturbed the samples, as far as that can be told; at their end 100 ms may be too short to tell.
    #[serde(default)]
    pub disturbances: Reading<Vec<Disturbance>>,
    /// The graphics card at the first sample and whenever disturbances were looked for.
    #[serde(default)]
    pub card: Reading<Vec<CardReading>>,
    /// The kernels of one step.
    #[serde(default)]
    pub launches: Reading<StepLaunches>,
    /// Whether the kernels of the model's optimisations are among them.
    #[serde(default)]
    pub paths: Reading<Vec<PathProof>>,
}

impl Observation {
    /// An observation of nothing but memory.
    #[must_use]
    pub fn new(workload: Workload, memory: MemoryObservation) -> Self {
        Self {
            workload,
            warmup_ns: Vec::new(),
            samples_ns: Vec::new(),
            returned_ns: Vec::new(),
            ended_by: None,
            warmup_at_ns: Vec::new(),
            samples_at_ns: Vec::new(),
            optimizer_ns: None,
            generation: None,
            sequences_per_sample: 0,
            tokens_per_sample: 0,
            memory,
            predicted_peak_bytes: None,
            memory_by_step: Reading::default(),
            memory_by_phase: Vec::new(),
            driver_memory: None,
            replayed: None,
            device_clock: Reading::default(),
            disturbances: Reading::default(),
            card: Reading::default(),
            launches: Reading::default(),
            paths: Reading::default(),
        }
    }

    /// How far the predicted peak is off: `(predicted / (peak - start) - 1) * 100`.
    #[must_use]
    pub fn prediction_error_percent(&self) -> Option<f64> {
        let beyond_start = self.memory.peak.bytes?.checked_sub(self.memory.start.bytes?).filter(|bytes| *bytes > 0)?;
        Some((self.predicted_peak_bytes? as f64 / beyond_start as f64 - 1.0) * 100.0)
    }
}
