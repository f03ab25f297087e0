use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CellRecord, GenerationFigures, StepFigures};
use crate::spec::{CellSpec, Mode};

/// The sizes and settings of the comparison at the top level, under their classic names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClassicConfig {
    /// Sequences per training and inference step.
    pub batch_size: usize,
    /// Tokens per sequence of a training and inference step.
    pub seq_length: usize,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated feed-forward block.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key-value heads.
    pub num_key_value_heads: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// Warm-up steps of training, or of inference if there is no training; null if there is neither.
    pub num_warmup_steps: Option<usize>,
    /// Samples of training, or of inference if there is no training; null if there is neither.
    pub num_benchmark_steps: Option<usize>,
    /// Whether an execution mode other than `no-compile` was asked for.
    pub use_compile: bool,
    /// The execution mode asked for.
    pub compile_mode: Mode,
    /// Backend and device, such as `flex` or `cuda:0`.
    pub device: String,
    /// Why figures are null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl ClassicConfig {
    /// The classic view of one cell.
    pub fn of(cell: &CellSpec) -> Self {
        let training = cell.workloads.training.as_ref().map(|training| &training.steps);
        let steps = training.or(cell.workloads.inference.as_ref());
        let model = &cell.model;
        Self {
            batch_size: cell.batch_size,
            seq_length: cell.seq_length,
            vocab_size: model.vocab_size,
            hidden_size: model.hidden_size,
            intermediate_size: model.intermediate_size,
            num_hidden_layers: model.num_hidden_layers,
            num_attention_heads: model.num_attention_heads,
            num_key_value_heads: model.num_key_value_heads,
            max_position_embeddings: model.max_position_embeddings,
            num_warmup_steps: steps.map(|steps| steps.warmup_steps),
            num_benchmark_steps: steps.map(|steps| steps.benchmark_steps),
            use_compile: cell.mode != Mode::NoCompile,
            compile_mode: cell.mode,
            device: cell.backend.clone(),
            reason: steps.is_none().then(|| "neither training nor inference was asked for".to_owned()),
        }
    }
}

/// The figures of one side of a comparison.
///
/// Every path is always there: a workload without figures has nulls, each with its reason beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClassicModel {
    /// Id of the cell the figures are of.
    pub cell: Option<String>,
    /// Variant of the model family.
    pub variant: Option<String>,
    /// Number of trained values.
    pub parameters: Option<usize>,
    /// Training.
    pub training: StepFigures,
    /// Inference.
    pub inference: StepFigures,
    /// Generation.
    pub generation: GenerationFigures,
    /// Why there is no cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl ClassicModel {
    /// The view of one planned cell, of which `record` may be there already.
    pub fn of(cell: &CellSpec, record: Option<&CellRecord>) -> Self {
        let gap = |asked: bool| gap(asked, record);
        let asked = &cell.workloads;
        let done = record.map(CellRecord::workloads);
        let step = |asked: bool, figures: Option<&StepFigures>| {
            figures.cloned().unwrap_or_else(|| StepFigures::missing(&gap(asked)))
        };
        let training = done.and_then(|done| done.training.as_ref()).map(|record| &record.figures);
        let inference = done.and_then(|done| done.inference.as_ref()).map(|record| &record.figures);
        let generation = done.and_then(|done| done.generation.as_ref()).map(|record| record.figures.clone());
        Self {
            cell: Some(cell.id()),
            variant: Some(cell.variant.clone()),
            parameters: Some(cell.model.parameter_count()),
            training: step(asked.training.is_some(), training),
            inference: step(asked.inference.is_some(), inference),
            generation: generation.unwrap_or_else(|| GenerationFigures::missing(&gap(asked.generation.is_some()))),
            reason: None,
        }
    }

    /// No cell, and why.
    pub fn absent(reason: &str) -> Self {
        Self {
            cell: None,
            variant: None,
            parameters: None,
            training: StepFigures::missing(reason),
            inference: StepFigures::missing(reason),
            generation: GenerationFigures::missing(reason),
            reason: Some(reason.to_owned()),
        }
    }
}

/// Why a workload has no figures.
fn gap(asked: bool, record: Option<&CellRecord>) -> String {
    if !asked {
        return "this workload was not asked for".to_owned();
    }
    match record.map(CellRecord::failure) {
        Some(Some(failure)) => failure.to_string(),
        Some(None) => "the workload was not reported".to_owned(),
        None => "not measured yet".to_owned(),
    }
}
