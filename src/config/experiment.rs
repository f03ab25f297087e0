use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::spec::{Mode, ModelConfig, Optimizer, Precision, TuningCache};

/// A valid experiment: what the user wants, with nothing left open.
///
/// Its fields are the keys of an experiment file; `keys::KEYS` says what each may hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// Name, for reports.
    pub name: String,
    /// The question it answers.
    pub description: String,
    /// Seed of weights and token ids.
    pub seed: u64,
    /// Results file.
    pub output: PathBuf,
    /// Processes each cell is measured in, one after another, the other cells between.
    pub rounds: usize,
    /// What is measured.
    pub model: Model,
    /// Axes of the plan.
    pub axes: Axes,
    /// Cells of the product that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Exclude>,
    /// Tuning.
    pub tuning: Tuning,
    /// How often training and inference run.
    pub steps: Steps,
    /// What ends a workload's samples before their count.
    #[serde(default)]
    pub stopping: Stopping,
    /// Training.
    pub training: Training,
    /// Inference.
    pub inference: Inference,
    /// Generation.
    pub generation: Generation,
    /// What a cell may take.
    pub limits: Limits,
    /// The correctness gate.
    pub verify: Verify,
}

/// The model family and its sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the sizes are documented in `ModelConfig`")]
pub struct Model {
    pub family: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub max_position_embeddings: usize,
    pub rope_theta: f64,
    pub rms_norm_eps: f64,
}

/// Lists whose product, less the exclusions, is the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Axes {
    /// Backends and devices; empty for the best compiled in.
    pub backends: Vec<String>,
    /// Variants of the family; the first is the baseline.
    pub variants: Vec<String>,
    /// Whether each optimisation is also added alone to, and left out alone of, the variants.
    pub ladder: bool,
    /// Execution modes.
    pub modes: Vec<Mode>,
    /// What a process finds of earlier tuning.
    pub tuning_caches: Vec<TuningCache>,
    /// Element types.
    pub precisions: Vec<Precision>,
    /// Sequences per step.
    pub batch_sizes: Vec<usize>,
    /// Tokens per sequence.
    pub seq_lengths: Vec<usize>,
}

/// Cells that match every axis named here are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "one value of the axis of the same name")]
#[serde(default)]
pub struct Exclude {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tuning_cache: Option<TuningCache>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq_length: Option<usize>,
}

/// Tuning of kernels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// Fresh caches a cold cell is repeated in.
    pub cold_repeats: usize,
}

/// Steps of training and inference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    /// Before the first sample.
    pub warmup: usize,
    /// Samples.
    pub benchmark: usize,
    /// Whether samples of any workload that something else disturbed are taken again.
    pub redo_disturbed: bool,
}

/// What ends a workload's samples before their count; nothing if both are absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stopping {
    /// Half of the 95 % interval of the mean, in percent of it.
    pub half_width_percent: Option<f64>,
    /// Seconds of a round.
    pub max_seconds: Option<f64>,
}

/// The training workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Whether it runs.
    pub enabled: bool,
    /// What happens to the gradients.
    pub optimizer: Optimizer,
}

/// The inference workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inference {
    /// Whether it runs.
    pub enabled: bool,
}

/// The generation workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Whether it runs.
    pub enabled: bool,
    /// Sequences generated side by side.
    pub batch_size: usize,
    /// Tokens in the prompt.
    pub prompt_tokens: usize,
    /// Tokens produced.
    pub new_tokens: usize,
    /// Iterations before the first sample.
    pub warmup_iterations: usize,
    /// Samples.
    pub iterations: usize,
}

/// What a cell may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Seconds.
    pub timeout_s: u64,
    /// Memory in MB of 2^20 bytes; 90 % of the machine's if absent.
    pub memory_mb: Option<u64>,
}

/// The correctness gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verify {
    /// Whether it runs.
    pub enabled: bool,
    /// Largest relative L2 of logits and loss; by precision if absent.
    pub logits_tolerance: Option<f64>,
    /// Largest relative L2 of a gradient; by precision if absent.
    pub gradients_tolerance: Option<f64>,
}

impl Default for Experiment {
    fn default() -> Self {
        let sizes = ModelConfig::default();
        Self {
            name: "default".to_owned(),
            description: String::new(),
            seed: 42,
            output: "benchmark_results.json".into(),
            rounds: 3,
            model: Model {
                family: "decoder".to_owned(),
                vocab_size: sizes.vocab_size,
                hidden_size: sizes.hidden_size,
                intermediate_size: sizes.intermediate_size,
                num_hidden_layers: sizes.num_hidden_layers,
                num_attention_heads: sizes.num_attention_heads,
                num_key_value_heads: sizes.num_key_value_heads,
                max_position_embeddings: sizes.max_position_embeddings,
                rope_theta: sizes.rope_theta,
                rms_norm_eps: sizes.rms_norm_eps,
            },
            axes: Axes {
                backends: Vec::new(),
                variants: vec!["default".to_owned(), "example".to_owned()],
                ladder: false,
                modes: vec![Mode::Default],
                tuning_caches: vec![TuningCache::Kept],
                precisions: Vec::new(),
                batch_sizes: vec![2],
                seq_lengths: vec![512],
            },
            exclude: Vec::new(),
            tuning: Tuning { cold_repeats: 1 },
            steps: Steps { warmup: 10, benchmark: 50, redo_disturbed: true },
            stopping: Stopping::default(),
            training: Training { enabled: true, optimizer: Optimizer::None },
            inference: Inference { enabled: true },
            generation: Generation {
                enabled: true,
                batch_size: 1,
                prompt_tokens: 128,
                new_tokens: 128,
                warmup_iterations: 3,
                iterations: 20,
            },
            limits: Limits { timeout_s: 3600, memory_mb: None },
            verify: Verify { enabled: true, logits_tolerance: None, gradients_tolerance: None },
        }
    }
}

impl Model {
    /// The sizes alone.
    #[must_use]
    pub fn sizes(&self) -> ModelConfig {
        ModelConfig {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            max_position_embeddings: self.max_position_embeddings,
            rope_theta: self.rope_theta,
            rms_norm_eps: self.rms_norm_eps,
        }
    }
}
