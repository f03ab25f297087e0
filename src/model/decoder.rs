//! The decoder: Llama's architecture (Touvron et al. 2023, arXiv:2302.13971), pre-norm, rotary positions, grouped-query
//! attention, SwiGLU, no biases, head not tied to the embedding. Written once; [`Optimizations`] choose which operation
//! computes each step, never what is computed.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{DType, Gradients, Int, Tensor, TensorData};

use super::backward::training_step;
use super::cache::LayerCache;
use super::generation::{Generation, ReplayedGeneration};
use super::heads::{Qkv, join_heads, split_heads};
use super::layers::{Linear, Norm, Source, host};
use super::shared::{First, Place, Shared, table_dtype};
use super::{Array, BuildError, BuildRequest, Model, Optimization, Optimizations, Session, TrainingStep, Work, plain};
use crate::ops;
use crate::ops::attention::{Heads, later_slots};
use crate::ops::precision::in_type;
use crate::ops::rope::RopeTables;
use crate::spec::Workload;

#[derive(Module, Debug)]
pub(super) struct Decoder {
    pub embedding: Param<Tensor<2>>,
    pub layers: Vec<Layer>,
    pub norm: Norm,
    pub head: Linear,
    #[module(skip)]
    pub shared: Shared,
}

#[derive(Module, Debug)]
pub(super) struct Layer {
    pub attn_norm: Norm,
    /// Query, key and value projections, in this order: one matrix or three.
    pub qkv: Vec<Linear>,
    pub output: Linear,
    pub mlp_norm: Norm,
    /// Gate and up-projection, in this order: one matrix or two.
    pub gate_up: Vec<Linear>,
    pub down: Linear,
}

impl Decoder {
    pub fn new(request: &BuildRequest, optimizations: Optimizations) -> Result<Self, BuildError> {
        let config = request.config;
        request.weights.check(config).map_err(BuildError::Weights)?;
        let few_rows = optimizations.has(Optimization::Linear) && !request.trained;
        let folds = optimizations.fold_norms()
            && !request.trained
            // The host multiplies in 32 bits, and 16 with a short exponent need not hold a row before it is divided.
            && matches!(request.weight_dtype, DType::F32 | DType::BF16)
            && ops::folded_norm::folds_norms(config.hidden_size, request.device, request.weight_dtype);
        let fuse = optimizations.has(Optimization::FusedWeights);
        let behind = |norm: &str, names: &[(String, usize)]| -> Vec<Linear> {
            let folded = folds.then_some(norm);
            let sources: Vec<_> = names.iter().map(|(name, out)| Source { name: name.clone(), out: *out }).collect();
            if fuse {
                vec![Linear::new(request, sources, folded, few_rows)]
            } else {
                sources.into_iter().map(|source| Linear::new(request, vec![source], folded, few_rows)).collect()
            }
        };
        let one = |name: String, out| Linear::new(request, vec![Source { name, out }], None, few_rows);
        let (hidden, kv, mlp) = (config.hidden_size, config.kv_size(), config.intermediate_size);
        let layer = |index: usize| {
            let name = |part: &str| format!("model.layers.{index}.{part}.weight");
            let (attn_norm, mlp_norm) = (name("input_layernorm"), name("post_attention_layernorm"));
            Layer {
                qkv: behind(
                    &attn_norm,
                    &[
                        (name("self_attn.q_proj"), hidden),
                        (name("self_attn.k_proj"), kv),
                        (name("self_attn.v_proj"), kv),
                    ],
                ),
                attn_norm: Norm::new(request, attn_norm, folds),
                output: one(name("self_attn.o_proj"), hidden),
                gate_up: behind(&mlp_norm, &[(name("mlp.gate_proj"), mlp), (name("mlp.up_proj"), mlp)]),
                mlp_norm: Norm::new(request, mlp_norm, folds),
                down: one(name("mlp.down_proj"), hidden),
            }
        };
        let embedding = &request.weights.0[EMBEDDING];
        let embedding = TensorData::new(embedding.values.clone(), [config.vocab_size, hidden]);
        let tables = optimizations.has(Optimization::Rope).then(|| {
            let (positions, theta) = (config.max_position_embeddings, config.rope_theta);
            RopeTables::new(0..positions, config.head_dim(), theta, table_dtype(request.dtype), request.device)
        });
        Ok(Self {
            embedding: Param::from_tensor(Tensor::from_data(embedding, (request.device, request.weight_dtype))),
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            norm: Norm::new(request, "model.norm.weight".to_owned(), false),
            head: one("lm_head.weight".to_owned(), config.vocab_size),
            shared: Shared {
                config: config.clone(),
                heads: Heads { query: config.num_attention_heads, key_value: config.num_key_value_heads },
                optimizations,
                folds,
                tables,
                dtype: request.dtype,
                device: request.device.clone(),
            },
        })
    }

    /// Final hidden states `[batch, seq, hidden]` of `ids [batch, seq]`.
    fn hidden(&self, ids: Tensor<2, Int>, place: &Place, caches: Option<&mut [LayerCache]>) -> Tensor<3> {
        let mut x = self.embedded(ids);
        let mut caches = caches.map(|caches| caches.iter_mut());
        for layer in &self.layers {
            let cache = caches.as_mut().and_then(Iterator::next);
            x = layer.forward(x, place, cache, &self.shared);
        }
        x
    }

    /// Rows of the embedding, `[batch, seq, hidden]`.
    pub fn embedded(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        let x = self.embedding.val().select(0, ids.reshape([batch * seq]));
        in_type(x.reshape([batch, seq, self.shared.config.hidden_size]), self.shared.dtype)
    }

    /// What each position of `ids [batch, seq]` is to predict, `[batch * seq]`, -1 for the last of a sequence; and how
    /// many positions count.
    pub fn targets(ids: Tensor<2, Int>) -> (Tensor<1, Int>, usize) {
        let [batch, seq] = ids.dims();
        let nothing = Tensor::full([batch, 1], -1, &ids.device());
        let targets = Tensor::cat(vec![ids.narrow(1, 1, seq - 1), nothing], 1).reshape([batch * seq]);
        (targets, batch * (seq - 1))
    }

    /// Logits `[batch, vocabulary]` of the last of `ids [batch, count]`.
    pub fn last_logits(&self, ids: Tensor<2, Int>, place: &Place, caches: &mut [LayerCache]) -> Tensor<2> {
        let [batch, count] = ids.dims();
        let hidden = self.hidden(ids, place, Some(caches));
        let last_only = self.shared.has(Optimization::LastLogits);
        let hidden = if last_only { hidden.narrow(1, count - 1, 1) } else { hidden };
        let logits = self.logits(hidden, true);
        let [_, rows, vocabulary] = logits.dims();
        logits.narrow(1, rows - 1, 1).reshape([batch, vocabulary])
    }

    /// A cache for each layer.
    pub fn caches(&self, batch: usize, capacity: usize) -> Vec<LayerCache> {
        let shared = &self.shared;
        let shape = [batch, shared.heads.key_value, capacity, shared.config.head_dim()];
        let zeros = || Tensor::zeros(shape, (&shared.device, shared.dtype));
        let cache = |_| {
            if shared.has(Optimization::KvCache) {
                LayerCache::Preallocated(Some((zeros(), zeros())))
            } else {
                LayerCache::Growing(None)
            }
        };
        self.layers.iter().map(cache).collect()
    }

    fn logits(&self, hidden: Tensor<3>, generates: bool) -> Tensor<3> {
        self.shared.normed(&self.norm, std::slice::from_ref(&self.head), hidden, generates).remove(0)
    }
}

const EMBEDDING: &str = "model.embed_tokens.weight";

impl Model for Decoder {
    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let place = self.shared.place(0, ids.dims()[1]);
        self.logits(self.hidden(ids, &place, None), false)
    }

    fn loss(&self, ids: Tensor<2, Int>) -> Tensor<1> {
        if !self.shared.has(Optimization::Loss) {
            return plain::next_token_loss(self.forward(ids.clone()), ids);
        }
        let [batch, seq] = ids.dims();
        let place = self.shared.place(0, seq);
        let hidden = self.shared.norm(&self.norm, self.hidden(ids.clone(), &place, None));
        let (targets, count) = Self::targets(ids);
        let hidden = hidden.reshape([batch * seq, self.shared.config.hidden_size]);
        ops::linear_cross_entropy(hidden, self.head.weight(), targets, count, self.shared.products())
    }

    fn session(&self, batch: usize, capacity: usize) -> Box<dyn Session + '_> {
        Box::new(Generation::new(self, batch, capacity))
    }

    fn recordable(&self, seq: usize) -> Work<'_, Tensor<3>> {
        let place = self.shared.place(0, seq);
        Box::new(move |ids, _| self.logits(self.hidden(ids, &place, None), false))
    }

    fn replayed_session(&self, batch: usize, capacity: usize) -> Option<Box<dyn Session + '_>> {
        let fixed = self.shared.has(Optimization::KvCache);
        fixed.then(|| Box::new(ReplayedGeneration::new(self, batch, capacity)) as Box<dyn Session>)
    }

    fn training_step(&self, seq: usize) -> Option<Work<'_, TrainingStep>> {
        let place = self.shared.place(0, seq);
        let by_hand = self.shared.has(Optimization::Backward);
        by_hand.then(|| Box::new(move |ids, _: &_| training_step(self, ids, &place)) as Work<'_, TrainingStep>)
    }

    fn own_kernels(&self, workload: Workload) -> Vec<(String, &'static [&'static str])> {
        self.shared.optimizations.own_kernels(workload)
    }

    fn collect(&self, gradients: Gradients) -> GradientsParams {
        GradientsParams::from_grads(gradients, self)
    }

    fn gradients(&self, gradients: &GradientsParams) -> BTreeMap<String, Array<f64>> {
        let mut to = BTreeMap::new();
        let matrix = |linear: &Linear, to: &mut BTreeMap<_, _>| {
            if let Some(gradient) = linear.gradient(gradients) {
                linear.export(&gradient, to);
            }
        };
        let vector = |norm: &Norm, to: &mut BTreeMap<_, _>| {
            if let Some(gradient) = gradients.get(norm.weight.id) {
                norm.export(gradient, to);
            }
        };
        if let Some(gradient) = gradients.get::<2>(self.embedding.id) {
            let shape = gradient.dims().to_vec();
            to.insert(EMBEDDING.to_owned(), Array { shape, values: host(gradient) });
        }
        for layer in &self.layers {
            for linear in layer.qkv.iter().chain(&layer.gate_up).chain([&layer.output, &layer.down]) {
                matrix(linear, &mut to);
            }
            vector(&layer.attn_norm, &mut to);
            vector(&layer.mlp_norm, &mut to);
        }
        vector(&self.norm, &mut to);
        matrix(&self.head, &mut to);
        to
    }

    fn apply(&mut self, optimizer: &mut ModuleOptimizer, learning_rate: f64, gradients: GradientsParams) {
        *self = optimizer.step(learning_rate, self.clone(), gradients);
    }
}

impl Layer {
    fn forward(&self, x: Tensor<3>, at: &Place, cache: Option<&mut LayerCache>, shared: &Shared) -> Tensor<3> {
        let ([batch, seq, _], generates) = (x.dims(), cache.is_some());
        // Few rows have kernels that norm them, and attention to a recorded position turns them without a norm.
        let folds = shared.folds && batch * seq > ops::fused_linear::MOST_ROWS;
        let qkv = if folds && seq > 1 {
            Qkv::Undivided(self.qkv[0].forward(x.clone(), shared.linear()), x.clone())
        } else {
            Qkv::of(shared.normed(&self.attn_norm, &self.qkv, x.clone(), generates))
        };
        let h = Self::attend(qkv, at, cache, shared);
        let x = shared.added(&self.output, h, x, generates);
        let eps = shared.config.rms_norm_eps;
        let h = if folds {
            ops::folded_norm::swiglu(self.gate_up[0].forward(x.clone(), shared.linear()), x.clone(), eps)
        } else if generates && shared.optimizations.gate_at_once() {
            let (norm, weight) = (self.mlp_norm.weight.val(), self.gate_up[0].weight());
            ops::fused_linear::rms_norm_linear_swiglu(x.clone(), norm, weight, eps, shared.products())
        } else {
            let projected = shared.normed(&self.mlp_norm, &self.gate_up, x.clone(), generates);
            shared.swiglu(shared.gate_up(projected))
        };
        shared.added(&self.down, h, x, generates)
    }

    /// Attention heads before the output projection, `[batch, seq, hidden]`.
    fn attend(qkv: Qkv, at: &Place, cache: Option<&mut LayerCache>, shared: &Shared) -> Tensor<3> {
        let heads = shared.heads;
        match (shared.has(Optimization::Attention), cache) {
            (true, None) => ops::attention(qkv.turned(at, shared).packed(), heads),
            (true, Some(cache)) => cache.attend(qkv, at, shared),
            (false, None) => {
                let [q, k, v] = qkv.turned(at, shared).apart(&shared.config);
                let [_, seq, _] = q.dims();
                let (k, v) = (split_heads(k, heads.key_value), split_heads(v, heads.key_value));
                let hidden = plain::later_keys(seq, seq, &shared.device);
                join_heads(plain::attention(split_heads(q, heads.query), k, v, hidden))
            }
            (false, Some(cache)) => {
                let qkv = qkv.turned(at, shared);
                let (k, v) = cache.append(qkv.clone(), &at.first, shared);
                let [q, _, _] = qkv.apart(&shared.config);
                let [_, seq, _] = q.dims();
                let (k, v, hidden) = match &at.first {
                    First::Known(first) => {
                        let length = first + seq;
                        let hidden = plain::later_keys(seq, length, &shared.device);
                        (k.narrow(2, 0, length), v.narrow(2, 0, length), hidden)
                    }
                    First::InTensor(position) => {
                        let hidden = later_slots(k.dims()[2], position).unsqueeze();
                        (k, v, Some(hidden))
                    }
                };
                join_heads(plain::attention(split_heads(q, heads.query), k, v, hidden))
            }
        }
    }
}
