//! The plain way: what the baseline does, every intermediate materialised, in ordinary tensor operations; and the
//! gradients of each, for a backward pass without autodiff.

use burn::tensor::activation::{log_softmax, sigmoid, softmax};
use burn::tensor::{Bool, DType, Device, IndexingUpdateOp, Int, Tensor};

use crate::ops::precision::{in_type, widened};

/// RMSNorm (arXiv:1910.07467) of `x [batch, seq, n]` with `weight [n]`.
pub(crate) fn rms_norm(x: Tensor<3>, weight: Tensor<1>, eps: f64) -> Tensor<3> {
    let (dtype, x) = (x.dtype(), widened(x));
    let mean_square = x.clone().powi_scalar(2).mean_dim(2);
    in_type(x / (mean_square + eps).sqrt() * widened(weight).unsqueeze(), dtype)
}

/// Gradients of [`rms_norm`]'s `x` and `weight` from that of its result.
pub(crate) fn rms_norm_backward(
    x: Tensor<3>,
    weight: Tensor<1>,
    gradient: Tensor<3>,
    eps: f64,
) -> (Tensor<3>, Tensor<1>) {
    let (dtype, weight_dtype, [_, _, n]) = (x.dtype(), weight.dtype(), x.dims());
    let (x, gradient) = (widened(x), widened(gradient));
    let r = (x.clone().powi_scalar(2).mean_dim(2) + eps).sqrt().recip();
    let normed = x * r.clone();
    let d_weight = (gradient.clone() * normed.clone()).sum_dim(0).sum_dim(1).reshape([n]);
    let d_normed = gradient * widened(weight).unsqueeze();
    let along = (d_normed.clone() * normed.clone()).mean_dim(2);
    (in_type((d_normed - normed * along) * r, dtype), in_type(d_weight, weight_dtype))
}

/// Rotary embedding (arXiv:2104.09864) of `x [batch, seq, heads * head_dim]`; `cos` and `sin` are
/// `[seq, head_dim / 2]`.
pub(crate) fn rope(x: Tensor<3>, cos: Tensor<2>, sin: Tensor<2>, heads: usize) -> Tensor<3> {
    let [batch, seq, width] = x.dims();
    let half = width / heads / 2;
    let doubled = |table: Tensor<2>| Tensor::cat(vec![table.clone(), table], 1).reshape([1, seq, 1, 2 * half]);
    let (dtype, x) = (x.dtype(), widened(x.reshape([batch, seq, heads, 2 * half])));
    let a = x.clone().narrow(3, 0, half);
    let b = x.clone().narrow(3, half, half);
    let rotated = Tensor::cat(vec![b.neg(), a], 3);
    in_type(x * doubled(cos) + rotated * doubled(sin), dtype).reshape([batch, seq, width])
}

/// `silu(gate) * up` (arXiv:2002.05202), `[batch, seq, n]` each.
pub(crate) fn swiglu(gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    gate.clone() * sigmoid(gate) * up
}

/// Gradients of [`swiglu`]'s `gate` and `up` from that of its result.
pub(crate) fn swiglu_backward(gate: Tensor<3>, up: Tensor<3>, gradient: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
    let s = sigmoid(gate.clone());
    let silu = gate * s.clone();
    let d_gate = gradient.clone() * up * (s.clone() + silu.clone() * (s.neg() + 1.0));
    (d_gate, gradient * silu)
}

/// Attention of `q [batch, heads, seq, head_dim]` on `k`, `v [batch, kv_heads, keys, head_dim]`; `hidden` is true where
/// a key must not be seen.
pub(crate) fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, hidden: Option<Tensor<4, Bool>>) -> Tensor<4> {
    weighed(probabilities(q, k, hidden, v.dtype()), v)
}

/// What queries take of each key, `[batch, heads, seq, keys]`; see [`attention`].
pub(crate) fn probabilities(q: Tensor<4>, k: Tensor<4>, hidden: Option<Tensor<4, Bool>>, dtype: DType) -> Tensor<4> {
    let [_, heads, _, head_dim] = q.dims();
    // A product: the gradient of Burn 0.22.1's division by a number rounds that number to single precision.
    let scores = q.matmul(repeated(k, heads).swap_dims(2, 3)) * (head_dim as f64).powf(-0.5);
    let scores = match hidden {
        Some(hidden) => scores.mask_fill(hidden, f32::NEG_INFINITY),
        None => scores,
    };
    in_type(softmax(widened(scores), 3), dtype)
}

/// Values `v [batch, kv_heads, keys, head_dim]` as `probabilities [batch, heads, seq, keys]` weigh them.
pub(crate) fn weighed(probabilities: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    let [_, heads, _, _] = probabilities.dims();
    probabilities.matmul(repeated(v, heads))
}

/// Gradients of [`attention`]'s `q`, `k` and `v` from that of its result.
pub(crate) fn attention_backward(
    [q, k, v]: [Tensor<4>; 3],
    probabilities: Tensor<4>,
    gradient: Tensor<4>,
) -> [Tensor<4>; 3] {
    let [batch, heads, _, head_dim] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let summed = |d: Tensor<4>| {
        d.reshape([batch, kv_heads, heads / kv_heads, keys, head_dim])
            .sum_dim(2)
            .reshape([batch, kv_heads, keys, head_dim])
    };
    let d_v = probabilities.clone().swap_dims(2, 3).matmul(gradient.clone());
    let d_p = widened(gradient.matmul(repeated(v, heads).swap_dims(2, 3)));
    let p = widened(probabilities);
    let along = (p.clone() * d_p.clone()).sum_dim(3);
    let d_scores = in_type(p * (d_p - along) * (head_dim as f64).powf(-0.5), q.dtype());
    let d_q = d_scores.clone().matmul(repeated(k, heads));
    [d_q, summed(d_scores.swap_dims(2, 3).matmul(q)), summed(d_v)]
}

/// Each key-value head for every query head that shares it.
fn repeated(x: Tensor<4>, heads: usize) -> Tensor<4> {
    let [batch, kv_heads, keys, head_dim] = x.dims();
    x.unsqueeze_dim::<5>(2).repeat_dim(2, heads / kv_heads).reshape([batch, heads, keys, head_dim])
}

/// True where a key comes after the query, `[1, 1, seq, keys]`, the queries being the last `seq` positions; a single
/// one sees everything.
pub(crate) fn later_keys(seq: usize, keys: usize, device: &Device) -> Option<Tensor<4, Bool>> {
    (seq > 1).then(|| Tensor::<2, Bool>::tril_mask([seq, keys], (keys - seq) as i64, device).unsqueeze())
}

/// Mean next-token cross-entropy `[1]` of `logits [batch, seq, vocabulary]` against `ids [batch, seq]`.
pub(crate) fn next_token_loss(logits: Tensor<3>, ids: Tensor<2, Int>) -> Tensor<1> {
    let [_, seq, _] = logits.dims();
    let log_probabilities = log_softmax(widened(logits.narrow(1, 0, seq - 1)), 2);
    let targets = ids.narrow(1, 1, seq - 1).unsqueeze_dim::<3>(2);
    log_probabilities.gather(2, targets).mean().neg()
}

/// [`next_token_loss`], and the gradient of the logits.
pub(crate) fn next_token_loss_with_gradient(logits: Tensor<3>, ids: Tensor<2, Int>) -> (Tensor<1>, Tensor<3>) {
    let ([batch, seq, vocabulary], dtype) = (logits.dims(), logits.dtype());
    let log_probabilities = log_softmax(widened(logits.narrow(1, 0, seq - 1)), 2);
    let targets = ids.narrow(1, 1, seq - 1).unsqueeze_dim::<3>(2);
    let loss = log_probabilities.clone().gather(2, targets.clone()).mean().neg();
    let minus_one = Tensor::full([batch, seq - 1, 1], -1, (&targets.device(), log_probabilities.dtype()));
    let counted = log_probabilities.exp().scatter(2, targets, minus_one, IndexingUpdateOp::Add);
    let counted = in_type(counted * (1.0 / (batch * (seq - 1)) as f64), dtype);
    let last = Tensor::zeros([batch, 1, vocabulary], (&counted.device(), dtype));
    (loss, Tensor::cat(vec![counted, last], 1))
}
