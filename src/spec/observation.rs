use serde::{Deserialize, Serialize};

use super::Workload;

/// One figure of memory with its provenance; `bytes` is `None` only together with a `note` that says why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryObservation {
    /// In use when the workload began, weights included.
    pub start: Figure,
    /// Highest in use while samples were taken (peak is reset after warm-up).
    pub peak: Figure,
    /// In use after the last step, its results dropped.
    pub current: Figure,
    /// Held from the operating system or driver at that moment.
    pub reserved: Figure,
    /// In use after the workload's model and inputs were dropped.
    pub after_release: Figure,
}

/// The two clocks of generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationSeries {
    /// Prompt in, logits of the first new token out; one entry an iteration.
    pub first_token_ns: Vec<u64>,
    /// Every gap between later tokens, by position; one row an iteration.
    pub per_token_ns: Vec<Vec<u64>>,
}

/// What was read while one workload ran. Raw: every derived figure can be computed again from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Which workload.
    pub workload: Workload,
    /// Wall clock of every warm-up step in order, the first step included: the warm-up curve.
    pub warmup_ns: Vec<u64>,
    /// Wall clock of every sample; for generation the whole iteration.
    pub samples_ns: Vec<u64>,
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
}
