//! The plain way: what the baseline does, every intermediate materialised, in ordinary tensor operations.

use burn::tensor::activation::{log_softmax, sigmoid, softmax};
use burn::tensor::{Bool, Device, Int, Tensor};

use crate::ops::precision::{in_type, widened};

/// RMSNorm (arXiv:1910.07467) of `x [batch, seq, n]` with `weight [n]`.
pub(crate) fn rms_norm(x: Tensor<3>, weight: Tensor<1>, eps: f64) -> Tensor<3> {
    let (dtype, x) = (x.dtype(), widened(x));
    let mean_square = x.clone().powi_scalar(2).mean_dim(2);
    in_type(x / (mean_square + eps).sqrt() * widened(weight).unsqueeze(), dtype)
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

/// Attention of `q [batch, heads, seq, head_dim]` on `k`, `v [batch, kv_heads, keys, head_dim]`; `hidden` is true where
/// a key must not be seen.
pub(crate) fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, hidden: Option<Tensor<4, Bool>>) -> Tensor<4> {
    let [batch, heads, _, head_dim] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let repeated =
        |x: Tensor<4>| x.unsqueeze_dim::<5>(2).repeat_dim(2, heads / kv_heads).reshape([batch, heads, keys, head_dim]);
    // A product: the gradient of Burn 0.22.1's division by a number rounds that number to single precision.
    let scores = q.matmul(repeated(k).swap_dims(2, 3)) * (head_dim as f64).powf(-0.5);
    let scores = match hidden {
        Some(hidden) => scores.mask_fill(hidden, f32::NEG_INFINITY),
        None => scores,
    };
    in_type(softmax(widened(scores), 3), v.dtype()).matmul(repeated(v))
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
