//! A training step of the decoder without autodiff: forward, keeping what backward wants, then the chain rule by hand.
//!
//! Autodiff's bookkeeping is work for the host at every step, and its work cannot be recorded as a graph; this can. What
//! each operation computes is the same as through autodiff, in both directions, for every set of optimisations.

use burn::module::Param;
use burn::optim::GradientsParams;
use burn::tensor::{Int, Tensor};

use super::decoder::{Decoder, Layer};
use super::heads::{Qkv, join_heads, split_heads};
use super::layers::{Linear, Norm};
use super::shared::{Place, Shared};
use super::{Optimization, TrainingStep, plain};
use crate::ops;
use crate::ops::attention::SavedAttention;
use crate::ops::precision::in_type;

/// Loss and gradients of `ids [batch, seq]`.
pub(super) fn training_step(decoder: &Decoder, ids: Tensor<2, Int>, place: &Place) -> TrainingStep {
    let shared = &decoder.shared;
    let mut gradients = Collected { shared, gradients: GradientsParams::new() };
    let mut x = decoder.embedded(ids.clone());
    let mut saved = Vec::with_capacity(decoder.layers.len());
    for layer in &decoder.layers {
        let (y, layer) = SavedLayer::forward(layer, x, place, shared);
        saved.push(layer);
        x = y;
    }
    let (hidden, norm) = SavedNorm::forward(&decoder.norm, x, shared);
    let (loss, d_hidden) = gradients.loss(&decoder.head, hidden, ids.clone());
    let mut d_x = norm.backward(d_hidden, &mut gradients);
    while let Some(layer) = saved.pop() {
        d_x = layer.backward(d_x, place, &mut gradients);
    }
    gradients.embedding(&decoder.embedding, ids, d_x);
    TrainingStep { loss, gradients: gradients.gradients }
}

/// Gradients of parameters, in the type of each.
struct Collected<'a> {
    shared: &'a Shared,
    gradients: GradientsParams,
}

impl Collected<'_> {
    fn add<const D: usize>(&mut self, parameter: &Param<Tensor<D>>, gradient: Tensor<D>) {
        let dtype = parameter.val().dtype();
        self.gradients.register(parameter.id, in_type(gradient, dtype));
    }

    /// Loss `[1]` of the normalised states `hidden [batch, seq, hidden]`, and their gradient.
    fn loss(&mut self, head: &Linear, hidden: Tensor<3>, ids: Tensor<2, Int>) -> (Tensor<1>, Tensor<3>) {
        if self.shared.has(Optimization::Loss) {
            let shape = hidden.dims();
            let [batch, seq, width] = shape;
            let rows = hidden.reshape([batch * seq, width]);
            let (targets, count) = Decoder::targets(ids);
            let by = self.shared.products();
            let (loss, d_hidden, d_weight) =
                ops::linear_cross_entropy::linear_cross_entropy_with_gradients(rows, head.weight(), targets, count, by);
            self.add(&head.weight, d_weight);
            return (loss, d_hidden.reshape(shape));
        }
        let (logits, saved) = SavedLinear::forward(head, hidden, self.shared);
        let (loss, d_logits) = plain::next_token_loss_with_gradient(logits, ids);
        (loss, saved.backward(d_logits, self))
    }

    /// Each row of the table gets what the positions that read it got.
    fn embedding(&mut self, table: &Param<Tensor<2>>, ids: Tensor<2, Int>, gradient: Tensor<3>) {
        let ([batch, seq, width], [vocabulary, _]) = (gradient.dims(), table.dims());
        let (gradient, ids) = (gradient.reshape([batch * seq, width]), ids.reshape([batch * seq]));
        let sums = ops::embedding::embedding_gradient(gradient, ids, vocabulary, table.val().dtype());
        self.add(table, sums);
    }
}

/// A linear layer's input, and its weight as the product used it.
struct SavedLinear<'a> {
    linear: &'a Linear,
    weight: Tensor<2>,
    x: Tensor<3>,
}

impl<'a> SavedLinear<'a> {
    fn forward(linear: &'a Linear, x: Tensor<3>, shared: &Shared) -> (Tensor<3>, Self) {
        let weight = linear.weight();
        let y = match shared.linear() {
            Some(by) => ops::linear(x.clone(), weight.clone(), by),
            None => burn::tensor::module::linear(x.clone(), weight.clone(), None),
        };
        (y, Self { linear, weight, x })
    }

    /// As [`Self::forward`], added to `residual`.
    fn forward_add(linear: &'a Linear, x: Tensor<3>, residual: Tensor<3>, shared: &Shared) -> (Tensor<3>, Self) {
        let Some(by) = shared.linear() else {
            let (y, saved) = Self::forward(linear, x, shared);
            return (residual + y, saved);
        };
        let weight = linear.weight();
        (ops::linear_add(x.clone(), weight.clone(), residual, by), Self { linear, weight, x })
    }

    fn backward(self, gradient: Tensor<3>, to: &mut Collected) -> Tensor<3> {
        let Self { linear, weight, x } = self;
        let (d_x, d_weight) = if let Some(by) = to.shared.linear() {
            ops::linear::linear_backward(x, weight, gradient, linear.weight.val().dtype(), by)
        } else {
            let rows = |x: &Tensor<3>| {
                let [batch, seq, width] = x.dims();
                x.clone().reshape([batch * seq, width])
            };
            let d_x = rows(&gradient).matmul(weight.transpose()).reshape(x.dims());
            (d_x, rows(&x).transpose().matmul(rows(&gradient)))
        };
        to.add(&linear.weight, d_weight);
        d_x
    }
}

/// A normalisation's input.
struct SavedNorm<'a> {
    norm: &'a Norm,
    x: Tensor<3>,
}

impl<'a> SavedNorm<'a> {
    fn forward(norm: &'a Norm, x: Tensor<3>, shared: &Shared) -> (Tensor<3>, Self) {
        (shared.norm(norm, x.clone()), Self { norm, x })
    }

    fn backward(self, gradient: Tensor<3>, to: &mut Collected) -> Tensor<3> {
        let (weight, eps) = (self.norm.weight.val(), to.shared.config.rms_norm_eps);
        let (d_x, d_weight) = if to.shared.has(Optimization::RmsNorm) {
            ops::rms_norm::rms_norm_backward(self.x, weight, gradient, eps)
        } else {
            plain::rms_norm_backward(self.x, weight, gradient, eps)
        };
        to.add(&self.norm.weight, d_weight);
        d_x
    }

    /// As [`Self::backward`], with `past`, the gradient of the residual stream past the norm, added.
    fn backward_add(self, gradient: Tensor<3>, past: Tensor<3>, to: &mut Collected) -> Tensor<3> {
        if !to.shared.has(Optimization::RmsNorm) {
            return past + self.backward(gradient, to);
        }
        let (weight, eps) = (self.norm.weight.val(), to.shared.config.rms_norm_eps);
        let (d_x, d_weight) = ops::rms_norm::rms_norm_backward_add(self.x, weight, gradient, past, eps);
        to.add(&self.norm.weight, d_weight);
        d_x
    }
}

/// Attention's inputs, and what it computed with them.
#[expect(clippy::large_enum_variant, reason = "one lives for each layer")]
enum SavedHeads {
    Ours(SavedAttention),
    Plain { qkv: [Tensor<4>; 3], probabilities: Tensor<4> },
}

impl SavedHeads {
    /// Attention heads `[batch, seq, hidden]` of turned queries and keys.
    fn forward(qkv: Qkv, shared: &Shared) -> (Tensor<3>, Self) {
        let heads = shared.heads;
        if shared.has(Optimization::Attention) {
            let (out, saved) = ops::attention::attention_saving(qkv.packed(), heads);
            return (out, Self::Ours(saved));
        }
        let [q, k, v] = qkv.apart(&shared.config);
        let [_, seq, _] = q.dims();
        let qkv =
            [(q, heads.query), (k, heads.key_value), (v, heads.key_value)].map(|(x, heads)| split_heads(x, heads));
        let [q, k, v] = qkv.clone();
        let probabilities = plain::probabilities(q, k, plain::later_keys(seq, seq, &shared.device), v.dtype());
        let out = join_heads(plain::weighed(probabilities.clone(), v));
        (out, Self::Plain { qkv, probabilities })
    }

    fn backward(self, gradient: Tensor<3>, shared: &Shared) -> Qkv {
        match self {
            Self::Ours(saved) => Qkv::Packed(ops::attention::attention_backward(saved, gradient)),
            Self::Plain { qkv, probabilities } => {
                let gradient = split_heads(gradient, shared.heads.query);
                Qkv::Apart(plain::attention_backward(qkv, probabilities, gradient).map(join_heads))
            }
        }
    }
}

/// What a layer's backward pass reads again.
struct SavedLayer<'a> {
    attn_norm: SavedNorm<'a>,
    qkv: Vec<SavedLinear<'a>>,
    heads: SavedHeads,
    output: SavedLinear<'a>,
    mlp_norm: SavedNorm<'a>,
    gate_up: Vec<SavedLinear<'a>>,
    /// The projections, side by side or apart.
    gated: Vec<Tensor<3>>,
    down: SavedLinear<'a>,
}

impl<'a> SavedLayer<'a> {
    fn forward(layer: &'a Layer, x: Tensor<3>, place: &Place, shared: &Shared) -> (Tensor<3>, Self) {
        let products = |linears: &'a [Linear], x: &Tensor<3>| -> (Vec<Tensor<3>>, Vec<SavedLinear<'a>>) {
            linears.iter().map(|linear| SavedLinear::forward(linear, x.clone(), shared)).unzip()
        };
        let (h, attn_norm) = SavedNorm::forward(&layer.attn_norm, x.clone(), shared);
        let (projected, qkv) = products(&layer.qkv, &h);
        let (h, heads) = SavedHeads::forward(Qkv::of(projected).turned(place, shared), shared);
        let (x, output) = SavedLinear::forward_add(&layer.output, h, x, shared);
        let (h, mlp_norm) = SavedNorm::forward(&layer.mlp_norm, x.clone(), shared);
        let (projected, gate_up) = products(&layer.gate_up, &h);
        let gated = shared.gate_up(projected);
        let (x, down) = SavedLinear::forward_add(&layer.down, shared.swiglu(gated.clone()), x, shared);
        (x, Self { attn_norm, qkv, heads, output, mlp_norm, gate_up, gated, down })
    }

    fn backward(self, gradient: Tensor<3>, place: &Place, to: &mut Collected) -> Tensor<3> {
        let shared = to.shared;
        let through = |linears: Vec<SavedLinear>, gradients: Vec<Tensor<3>>, to: &mut Collected| {
            let each = linears.into_iter().zip(gradients).map(|(linear, gradient)| linear.backward(gradient, to));
            each.reduce(|a, b| a + b).expect("a layer has projections")
        };
        let d_gated = self.down.backward(gradient.clone(), to);
        let d_gate_up = shared.swiglu_backward(self.gated, d_gated, self.gate_up.len());
        let d_x = through(self.gate_up, d_gate_up, to);
        let d_x = self.mlp_norm.backward_add(d_x, gradient, to);
        let d_heads = self.output.backward(d_x.clone(), to);
        let d_qkv = self.heads.backward(d_heads, shared).turned_back(place, shared);
        let d_qkv = d_qkv.split(self.qkv.len(), &shared.config);
        let d_h = through(self.qkv, d_qkv, to);
        self.attn_norm.backward_add(d_h, d_x, to)
    }
}
