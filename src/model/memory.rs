//! How much memory a step of the built-in decoder takes at its peak, from its sizes: weights, what is kept for backward,
//! gradients, key-value cache, and the largest of the intermediates that are there for a moment.
//!
//! A pass is a row of stages. Forward, each stage has a moment of its own and leaves what backward will ask for; backward,
//! the stages give that back last to first while the gradients of the weights add up. The peak is the worst moment:
//!
//! ```text
//! forward    weights + kept by the stages before + the stage's moment
//! backward   weights + gradients of the stages behind + kept up to the stage + its moment
//! ```
//!
//! Every operation counts as it would run by itself, as on flex; fusion on other backends may need less. What a matrix
//! library or a device's memory pool takes for itself is not counted. docs/METHOD.md has the table behind the formulas.

use super::{Optimization, Optimizations};
use crate::ops::linear_cross_entropy::{CHUNK_ELEMENTS, chunk_rows};
use crate::spec::{CellSpec, GenerationSpec, ModelConfig, Optimizer, Precision, Workload};

/// Predicted peak of a workload of a cell of the built-in decoder, in bytes; `None` if the cell does not run it or has a
/// variant that the decoder does not know.
#[must_use]
pub fn predicted_peak_bytes(cell: &CellSpec, workload: Workload) -> Option<u64> {
    let optimizations = Optimizations::of_variant(&cell.variant)?;
    let model = &cell.model;
    let sizes = |batch, seq, training: Option<Optimizer>| Sizes {
        model,
        optimizations: &optimizations,
        bytes: Bytes::of(cell.precision, training.is_some()),
        by_hand: training == Some(Optimizer::None) && optimizations.has(Optimization::Backward),
        batch: batch as u64,
        seq: seq as u64,
    };
    match workload {
        Workload::Training => {
            let optimizer = cell.workloads.training.as_ref()?.optimizer;
            Some(sizes(cell.batch_size, cell.seq_length, Some(optimizer)).training(optimizer))
        }
        Workload::Inference => {
            cell.workloads.inference.as_ref()?;
            Some(sizes(cell.batch_size, cell.seq_length, None).inference())
        }
        Workload::Generation => {
            let spec = cell.workloads.generation.as_ref()?;
            Some(sizes(spec.batch_size, spec.prompt_tokens, None).generation(spec))
        }
    }
}

/// Bytes of an element.
#[derive(Clone, Copy)]
struct Bytes {
    weight: u64,
    /// Of the weights as products use them, if that is another type than they are kept in.
    copies: u64,
    /// Of activations.
    value: u64,
    /// Of what is computed in at least 32 bits: norms, softmax, loss.
    wide: u64,
}

impl Bytes {
    fn of(precision: Precision, training: bool) -> Self {
        let (weight, copies, value, wide) = match precision {
            Precision::F32 => (4, 0, 4, 4),
            Precision::F64 => (8, 0, 8, 8),
            Precision::Mixed if training => (4, 2, 2, 4),
            Precision::Mixed | Precision::Bf16 => (2, 0, 2, 4),
        };
        Self { weight, copies, value, wide }
    }
}

/// A part of the forward pass, in bytes.
#[derive(Clone, Copy, Default)]
struct Stage {
    /// Kept for backward, the results that later stages keep included.
    kept: u64,
    /// Most at one moment of its forward pass, what it keeps included.
    forward: u64,
    /// Most at one moment of its backward pass beyond what is kept: gradients that come in and go out.
    backward: u64,
    /// Gradients of its weights.
    gradients: u64,
}

/// What decides how large tensors are.
struct Sizes<'a> {
    model: &'a ModelConfig,
    optimizations: &'a Optimizations,
    bytes: Bytes,
    /// Whether training is, which keeps what it reads again and nothing for autodiff.
    by_hand: bool,
    batch: u64,
    seq: u64,
}

impl Sizes<'_> {
    fn has(&self, optimization: Optimization) -> bool {
        // Products by the vendor's library are a part of our linear layer.
        let implied = optimization == Optimization::Linear && self.optimizations.has(Optimization::VendorProducts);
        self.optimizations.has(optimization) || implied
    }

    /// Positions of all sequences.
    fn rows(&self) -> u64 {
        self.batch * self.seq
    }

    /// Bytes of hidden states `[rows, hidden]`.
    fn hidden(&self) -> u64 {
        self.rows() * self.model.hidden_size as u64 * self.bytes.value
    }

    /// Bytes of the keys of one layer `[rows, kv]`.
    fn keys(&self) -> u64 {
        self.rows() * self.model.kv_size() as u64 * self.bytes.value
    }

    /// Bytes of a gate `[rows, intermediate]`.
    fn gate(&self) -> u64 {
        self.rows() * self.model.intermediate_size as u64 * self.bytes.value
    }

    /// Bytes of the scores of one layer `[batch, heads, seq, seq]`.
    fn scores(&self) -> u64 {
        self.rows() * self.seq * self.model.num_attention_heads as u64 * self.bytes.wide
    }

    /// Bytes of the mask of scores, `[seq, seq]`.
    fn mask(&self) -> u64 {
        self.seq * self.seq
    }

    /// Bytes of logits `[rows, vocabulary]` of so many rows.
    fn logits(&self, rows: u64) -> u64 {
        rows * self.model.vocab_size as u64 * self.bytes.wide
    }

    /// Weights, and rotary tables where they are made once.
    fn weights(&self) -> u64 {
        let tables = self.model.max_position_embeddings * self.model.head_dim();
        let tables = if self.has(Optimization::Rope) { tables as u64 * self.bytes.wide } else { 0 };
        self.model.parameter_count() as u64 * (self.bytes.weight + self.bytes.copies) + tables
    }

    /// A matrix `[input, output]` of the model as a gradient.
    fn matrix(&self, input: usize, output: usize) -> u64 {
        (input * output) as u64 * self.bytes.weight
    }

    /// What Burn's own linear layer takes for a moment: its results twice, and through autodiff the gradient of its weight
    /// once for each sequence before they are added up, twice.
    fn linear_backward(&self, inputs: u64, gradients: u64) -> u64 {
        match (self.has(Optimization::Linear), self.by_hand) {
            (true, _) => gradients,
            (false, true) => inputs + gradients,
            (false, false) => inputs + inputs.max(2 * self.batch * gradients),
        }
    }

    /// Backward of projections of hidden states, from the gradients of their results.
    fn projecting_backward(&self, results: u64, largest: u64) -> u64 {
        let at_once = self.has(Optimization::Linear) || self.by_hand;
        let weights = if at_once { largest } else { 2 * self.batch * largest };
        results + self.hidden() + weights
    }

    fn norm(&self) -> Stage {
        let (hidden, wide) = (self.hidden(), self.hidden() / self.bytes.value * self.bytes.wide);
        // Autodiff keeps the input over its root mean square, beside the result.
        let kept = if self.has(Optimization::RmsNorm) || self.by_hand { hidden } else { wide + hidden };
        Stage { kept, forward: kept + hidden, backward: wide, gradients: 0 }
    }

    /// Projections of queries, keys and values, rotation, attention; its result is the next stage's.
    fn attention(&self) -> Stage {
        let (hidden, keys) = (self.hidden(), self.keys());
        let packed = hidden + 2 * keys;
        let (width, kv) = (self.model.hidden_size, self.model.kv_size());
        let gradients = self.matrix(width, width + 2 * kv);
        // Cosines and sines of a whole head, for queries and for keys.
        let tables = 4 * self.seq * self.model.head_dim() as u64 * self.bytes.wide;
        let turned = self.has(Optimization::Rope) || self.by_hand;
        let (tables, turning) = if turned { (0, 0) } else { (tables, 2 * packed + 2 * hidden) };
        let (kept, attending) = if self.has(Optimization::Attention) {
            (packed + tables, hidden + packed)
        } else {
            // Autodiff: rotation that leaves all three in one tensor keeps all of it for the queries' sake; keys and values
            // are repeated for the heads that share them. Softmax keeps its shifted scores and their exponentials, the
            // product with the values what they come to. By hand, the last alone.
            let queries = if self.has(Optimization::Rope) { packed } else { hidden };
            let shared = self.model.num_key_value_heads < self.model.num_attention_heads;
            let repeated = if shared || !self.has(Optimization::Rope) { 2 * hidden } else { 0 };
            let probabilities = self.scores() / self.bytes.wide * self.bytes.value;
            let kept = queries + repeated + 2 * self.scores() + probabilities + self.mask() + tables;
            (if self.by_hand { packed + probabilities } else { kept }, 2 * self.scores() + hidden)
        };
        let largest = if self.has(Optimization::FusedWeights) { gradients } else { self.matrix(width, width) };
        let backward = attending.max(turning).max(self.projecting_backward(packed, largest).saturating_sub(kept));
        Stage { kept, forward: kept + packed + hidden, backward, gradients }
    }

    /// A projection of `width` features back to the residual stream, of which the sum is kept.
    fn residual(&self, width: usize) -> Stage {
        let (hidden, inputs) = (self.hidden(), self.rows() * width as u64 * self.bytes.value);
        let gradients = self.matrix(width, self.model.hidden_size);
        let twice = if self.has(Optimization::Linear) { 0 } else { hidden };
        let backward = self.linear_backward(inputs, gradients);
        Stage { kept: inputs + hidden, forward: inputs + hidden + twice, backward, gradients }
    }

    /// Gate and up-projection, and their product, which is the next stage's.
    fn gated(&self) -> Stage {
        let gate = self.gate();
        let gradients = self.matrix(self.model.hidden_size, 2 * self.model.intermediate_size);
        let fused = self.has(Optimization::FusedWeights);
        // Autodiff keeps gate, its sigmoid, the product of both and the up-projection. Gradients of parts of one tensor are
        // as large as the whole of it; others take the places of what was kept.
        let (kept, multiplying) = match (self.has(Optimization::Swiglu), fused, self.by_hand) {
            (true, _, _) | (false, false, true) => (2 * gate, 3 * gate),
            (false, true, true) => (2 * gate, 4 * gate),
            (false, true, false) => (4 * gate, 3 * gate),
            (false, false, false) => (4 * gate, gate),
        };
        let largest = if fused { gradients } else { gradients / 2 };
        let backward = multiplying.max(self.projecting_backward(2 * gate, largest).saturating_sub(kept));
        Stage { kept, forward: (kept + gate).max(self.gated_moment()), backward, gradients }
    }

    /// Most of gate, up-projection and their product at one moment without autodiff.
    fn gated_moment(&self) -> u64 {
        let [fused, swiglu, linear] =
            [Optimization::FusedWeights, Optimization::Swiglu, Optimization::Linear].map(|step| self.has(step));
        // Put side by side for the product, or made side by side by a layer that takes its result twice.
        if (swiglu && !fused) || (fused && !linear) { 4 * self.gate() } else { 3 * self.gate() }
    }

    /// Projection to logits, and their loss.
    fn loss(&self) -> Stage {
        let (hidden, logits) = (self.hidden(), self.logits(self.rows()));
        let gradients = self.matrix(self.model.hidden_size, self.model.vocab_size);
        if self.has(Optimization::Loss) {
            // Both gradients are made at once; that of the hidden states takes the place of these.
            let chunk = self.logits(chunk_rows(CHUNK_ELEMENTS, self.model.vocab_size) as u64);
            let forward = hidden + gradients + chunk.min(logits);
            return Stage { kept: gradients, forward, backward: hidden.max(gradients), gradients };
        }
        let backward = (2 * logits).max(self.linear_backward(hidden, gradients));
        // By hand, their gradient is made where they are.
        Stage { kept: if self.by_hand { 0 } else { logits }, forward: 2 * logits, backward, gradients }
    }

    /// The whole forward pass of training, in order.
    fn stages(&self) -> Vec<Stage> {
        let hidden = self.hidden();
        let gradients = self.matrix(self.model.vocab_size, self.model.hidden_size);
        let embedding = Stage { kept: hidden, forward: hidden, backward: hidden + 2 * gradients, gradients };
        let layer = [
            self.norm(),
            self.attention(),
            self.residual(self.model.hidden_size),
            self.norm(),
            self.gated(),
            self.residual(self.model.intermediate_size),
        ];
        // The gradient of the residual stream is there throughout.
        let layer = layer.map(|stage| Stage { backward: stage.backward + hidden, ..stage });
        let layers = std::iter::repeat_n(layer, self.model.num_hidden_layers).flatten();
        std::iter::once(embedding).chain(layers).chain([self.norm(), self.loss()]).collect()
    }

    fn training(&self, optimizer: Optimizer) -> u64 {
        let stages = self.stages();
        let (mut live, mut peak) = (self.weights(), 0);
        for stage in &stages {
            peak = peak.max(live + stage.forward);
            live += stage.kept;
        }
        for stage in stages.iter().rev() {
            peak = peak.max(live + stage.backward);
            live = live + stage.gradients - stage.kept;
        }
        match optimizer {
            Optimizer::None => peak,
            // Two moments of each weight stay; it runs with the gradients there.
            Optimizer::Adamw => {
                let weights = self.model.parameter_count() as u64 * self.bytes.weight;
                2 * weights + peak.max(self.weights() + weights)
            }
        }
    }

    /// The worst moment of a layer without autodiff, hidden states included and a cache not.
    fn moment(&self, cached: bool) -> u64 {
        let (hidden, keys) = (self.hidden(), self.keys());
        let packed = hidden + 2 * keys;
        let plain = |optimization| !self.has(optimization);
        let attending = if self.has(Optimization::Attention) {
            // A cache that is written in place gets copies of keys and values.
            packed + 2 * hidden + if cached && self.has(Optimization::KvCache) { 2 * keys } else { 0 }
        } else {
            // Keys and values of a cache are its own.
            2 * self.scores() + self.mask() + 3 * hidden + if cached { 0 } else { keys }
        };
        let turning = match (plain(Optimization::Rope), plain(Optimization::FusedWeights)) {
            (true, false) => 2 * packed + 3 * hidden + hidden / 2,
            (_, true) => 2 * packed + hidden,
            (false, false) => packed + hidden,
        };
        let projecting =
            if plain(Optimization::Linear) && !plain(Optimization::FusedWeights) { 2 * packed + 2 * hidden } else { 0 };
        let turning = if self.has(Optimization::Attention) { turning } else { 0 };
        attending.max(turning).max(projecting).max(hidden + self.gated_moment())
    }

    /// Logits of so many rows, and hidden states.
    fn head(&self, rows: u64) -> u64 {
        let logits = self.logits(rows) / self.bytes.wide * self.bytes.value;
        self.hidden() + if self.has(Optimization::Linear) { logits } else { 2 * logits }
    }

    fn inference(&self) -> u64 {
        self.weights() + self.moment(false).max(self.head(self.rows()))
    }

    /// Of the prefill, with the cache of all layers; of later tokens, with what a growing cache copies.
    fn generation(&self, spec: &GenerationSpec) -> u64 {
        let capacity = (spec.prompt_tokens + spec.new_tokens) as u64;
        let cache = |positions: u64| {
            let kv = (self.model.kv_size() * self.model.num_hidden_layers) as u64;
            2 * self.batch * positions * kv * self.bytes.value
        };
        let rows = if self.has(Optimization::LastLogits) { self.batch } else { self.rows() };
        let prefill = self.moment(true).max(self.head(rows));
        let layer = cache(capacity) / self.model.num_hidden_layers as u64;
        let (first, last) = if self.has(Optimization::KvCache) {
            (cache(capacity), cache(capacity))
        } else {
            (cache(self.seq), cache(capacity) + layer)
        };
        let step = Self { seq: 1, ..*self };
        self.weights() + (first + prefill).max(last + step.moment(true))
    }
}
