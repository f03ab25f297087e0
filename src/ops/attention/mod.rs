//! Causal grouped-query attention (Vaswani et al. 2017, arXiv:1706.03762; Ainslie et al. 2023, arXiv:2305.13245) on
//! packed projections, without repeating key-value heads and without a score matrix of the whole sequence.
//!
//! ```text
//! P  = softmax(mask(Q K^T / sqrt(head_dim)))                O = P V
//! dV = P^T dO      dP = dO V^T      dS = P (dP - rowsum(P dP)) / sqrt(head_dim)
//! dQ = dS K        dK = dS^T Q
//! ```
//!
//! A packed row holds all query heads, then all key heads, then all value heads. Saved for backward: the packed
//! input; scores are computed again.

mod autodiff;
#[cfg(feature = "flex")]
mod flex;
mod generic;
#[cfg(feature = "tch")]
mod libtorch;
#[cfg(all(test, feature = "flex"))]
mod tests;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Int, Tensor};

use crate::ops::precision::{in_type, widened};

/// Query heads and the key-value heads they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key-value heads; divides `query`.
    pub key_value: usize,
}

impl Heads {
    /// Query heads that share a key-value head.
    #[must_use]
    pub fn group(self) -> usize {
        self.query / self.key_value
    }

    /// Heads in a packed row.
    #[must_use]
    pub fn packed(self) -> usize {
        self.query + 2 * self.key_value
    }
}

/// What a backend provides for [`attention`].
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cubecl"),
    LibTorch: cfg(feature = "tch"),
    Fusion: cfg(feature = "cubecl"), Autodiff
)]
pub trait AttentionOps: Backend {
    /// Every position of `qkv [batch, seq, packed * head_dim]` attends to itself and those before it:
    /// `[batch, seq, query * head_dim]`.
    #[fusion(default)]
    fn packed_attention(qkv: FloatTensor<Self>, heads: Heads) -> FloatTensor<Self> {
        generic::forward::<Self>(qkv, heads)
    }

    /// Gradient of `qkv` from that of the result.
    #[fusion(default)]
    fn packed_attention_backward(
        qkv: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        heads: Heads,
    ) -> FloatTensor<Self> {
        generic::backward::<Self>(qkv, gradient, heads)
    }
}

/// What a backend provides for [`cached_attention`]; there is no gradient.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cubecl"),
    LibTorch: cfg(feature = "tch"),
    Fusion: cfg(feature = "cubecl")
)]
pub trait CachedAttentionOps: Backend {
    /// The last `seq` of `length` positions attend to those up to their own: `queries [batch, seq, query * head_dim]`
    /// (further features of a row are ignored), `keys` and `values [batch, key_value, capacity, head_dim]`, of which
    /// the first `length` positions are filled. Returns `[batch, seq, query * head_dim]`.
    #[fusion(default)]
    fn cached_attention(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        length: usize,
        heads: Heads,
    ) -> FloatTensor<Self> {
        generic::cached::<Self>(queries, keys, values, length, heads)
    }
}

/// Causal attention of `qkv [batch, seq, packed * head_dim]`: `[batch, seq, query * head_dim]`.
#[must_use]
pub fn attention(qkv: Tensor<3>, heads: Heads) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as AttentionOps>::packed_attention(qkv.into_dispatch(), heads))
}

/// Causal attention of the newest positions on a preallocated key-value cache; see
/// [`CachedAttentionOps::cached_attention`] for shapes. Not differentiable.
#[must_use]
pub fn cached_attention(
    queries: Tensor<3>,
    keys: Tensor<4>,
    values: Tensor<4>,
    length: usize,
    heads: Heads,
) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as CachedAttentionOps>::cached_attention(
        queries.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        length,
        heads,
    ))
}

/// Attention of one new position, whose number is in `position [1]`, on a preallocated key-value cache: shapes do not
/// depend on the position, so it can be recorded. See [`CachedAttentionOps::cached_attention`] for shapes. A composition
/// on every backend.
#[must_use]
pub fn attention_at(
    queries: Tensor<3>,
    keys: Tensor<4>,
    values: Tensor<4>,
    position: &Tensor<1, Int>,
    heads: Heads,
) -> Tensor<3> {
    let [batch, key_value, capacity, head_dim] = keys.dims();
    let (outer, group, dtype) = (batch * key_value, heads.group(), keys.dtype());
    let q = queries.narrow(2, 0, heads.query * head_dim).reshape([outer, group, head_dim]);
    let k = keys.reshape([outer, capacity, head_dim]).swap_dims(1, 2);
    let scores = widened(q.matmul(k)) * (head_dim as f64).powf(-0.5);
    let scores = scores.mask_fill(later_slots(capacity, position).expand([outer, group, capacity]), f32::NEG_INFINITY);
    let p = in_type(softmax(scores, 2), dtype);
    p.matmul(values.reshape([outer, capacity, head_dim])).reshape([batch, 1, heads.query * head_dim])
}

/// True for the slots of a cache behind the position whose number is in `position [1]`, `[1, 1, capacity]`.
pub(crate) fn later_slots(capacity: usize, position: &Tensor<1, Int>) -> Tensor<3, Bool> {
    let slots = Tensor::<1, Int>::arange(0..capacity as i64, &position.device());
    slots.greater(position.clone().expand([capacity])).reshape([1, 1, capacity])
}
