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
//! input, the result (which the projection behind it keeps anyway), and what a backend adds: CubeCL's kernels the
//! logarithm of each row's sum, 4 bytes a row and head; the others nothing. Scores are computed again.

mod autodiff;
#[cfg(feature = "cubecl")]
mod choice;
#[cfg(feature = "cubecl")]
mod cube;
#[cfg(feature = "cubecl")]
mod decode;
#[cfg(feature = "flex")]
mod flex;
mod generic;
#[cfg(feature = "tch")]
mod libtorch;
#[cfg(feature = "cubecl")]
mod matrices;
#[cfg(feature = "cubecl")]
mod packed;
#[cfg(feature = "cubecl")]
mod parts;
#[cfg(feature = "cubecl")]
mod passes;
#[cfg(feature = "cubecl")]
mod places;
#[cfg(all(test, feature = "flex"))]
mod tests;
#[cfg(feature = "cubecl")]
mod units;

#[cfg(feature = "cubecl")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
#[cfg(feature = "cubecl")]
use burn::tensor::DType;
use burn::tensor::{Bool, Int, Shape, Tensor};

use super::cache::CacheOps;
use super::rope::{RopeTables, Turn};
#[cfg(feature = "cubecl")]
use crate::ops::primitive::with_last;

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

/// Shape of the attention of `qkv`.
#[cfg(feature = "cubecl")]
pub(super) fn attended(qkv: &Shape, heads: &Heads) -> Shape {
    let head_dim = qkv[2] / heads.packed();
    with_last(qkv.clone(), heads.query * head_dim)
}

/// The attention of `qkv`, and what CubeCL's kernels save of it.
#[cfg(feature = "cubecl")]
fn saved(qkv: &TensorSpec, heads: &Heads) -> (TensorSpec, TensorSpec) {
    let wide = if qkv.dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let sums = with_last(qkv.shape.clone(), heads.query);
    (TensorSpec::new(attended(&qkv.shape, heads), qkv.dtype), TensorSpec::new(sums, wide))
}

/// Shape of the attention of `queries` to cached keys.
#[cfg(feature = "cubecl")]
fn newest(queries: &Shape, keys: &Shape, heads: &Heads) -> Shape {
    with_last(queries.clone(), heads.query * keys[3])
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
    #[fusion(dtype = qkv, shape = attended(qkv, heads))]
    fn packed_attention(qkv: FloatTensor<Self>, heads: Heads) -> FloatTensor<Self> {
        generic::forward::<Self>(qkv, heads)
    }

    /// The same, and what [`Self::packed_attention_backward`] wants of it beside the result.
    #[fusion(meta = |qkv, heads| saved(qkv, heads))]
    fn packed_attention_saving(qkv: FloatTensor<Self>, heads: Heads) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let nothing = Self::float_empty(Shape::new([0]), &qkv.device(), qkv.dtype().into());
        (Self::packed_attention(qkv, heads), nothing)
    }

    /// Gradient of `qkv` from that of the result.
    #[fusion(dtype = qkv, shape = qkv)]
    fn packed_attention_backward(
        qkv: FloatTensor<Self>,
        out: FloatTensor<Self>,
        saved: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        heads: Heads,
    ) -> FloatTensor<Self> {
        let _ = (out, saved);
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
pub trait CachedAttentionOps: CacheOps {
    /// The last `seq` of `length` positions attend to those up to their own: `queries [batch, seq, query * head_dim]`
    /// (further features of a row are ignored), `keys` and `values [batch, key_value, capacity, head_dim]`, of which
    /// the first `length` positions are filled. Returns `[batch, seq, query * head_dim]`.
    #[fusion(dtype = queries, shape = newest(queries, keys, heads))]
    fn cached_attention(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        length: usize,
        heads: Heads,
    ) -> FloatTensor<Self> {
        generic::cached::<Self>(queries, keys, values, length, heads)
    }

    /// As [`Self::cached_attention`] for one position, whose number is in `position [1]`: shapes do not depend on it, so
    /// that the step can be recorded.
    #[fusion(dtype = queries, shape = newest(queries, keys, heads))]
    fn attention_at(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        position: IntTensor<Self>,
        heads: Heads,
    ) -> FloatTensor<Self> {
        generic::at::<Self>(queries, keys, values, position, heads)
    }

    /// As [`Self::attention_at`], the position's queries, key and value side by side in `qkv [batch, 1, packed * head_dim]`:
    /// queries and key are turned before, as [`RopeOps::rope`](super::rope::RopeOps::rope) does, by the row of the tables that
    /// has the position's number, and key and value put into the caches. The result, and the caches.
    #[fusion(meta = |qkv, _, _, keys, values, _, heads| {
        (TensorSpec::new(newest(&qkv.shape, &keys.shape, heads), qkv.dtype), keys.clone(), values.clone())
    })]
    fn turned_attention_at(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        position: IntTensor<Self>,
        heads: Heads,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [cos, sin] = [cos, sin].map(|table| Self::float_select(table, 0, position.clone()));
        let qkv = Self::rope(qkv, cos, sin, heads.query + heads.key_value, 0, Turn::Forward);
        let (keys, values) = Self::put_at(qkv.clone(), keys, values, position.clone(), heads);
        (Self::attention_at(qkv, keys.clone(), values.clone(), position, heads), keys, values)
    }
}

/// Causal attention of `qkv [batch, seq, packed * head_dim]`: `[batch, seq, query * head_dim]`.
#[must_use]
pub fn attention(qkv: Tensor<3>, heads: Heads) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as AttentionOps>::packed_attention(qkv.into_dispatch(), heads))
}

/// What [`attention_backward`] reads again of an [`attention`].
#[derive(Clone, Debug)]
pub struct SavedAttention {
    qkv: Tensor<3>,
    out: Tensor<3>,
    /// What the backend adds, of whatever shape: `[batch, seq, query]` with CubeCL, nothing with flex.
    more: FloatTensor<Dispatch>,
    heads: Heads,
}

/// [`attention`], and what its gradient wants.
#[must_use]
pub fn attention_saving(qkv: Tensor<3>, heads: Heads) -> (Tensor<3>, SavedAttention) {
    let (out, more) = <Dispatch as AttentionOps>::packed_attention_saving(qkv.clone().into_dispatch(), heads);
    let out = Tensor::from_dispatch(out);
    (out.clone(), SavedAttention { qkv, out, more, heads })
}

/// Gradient of [`attention`]'s `qkv` from that of its result.
#[must_use]
pub fn attention_backward(saved: SavedAttention, gradient: Tensor<3>) -> Tensor<3> {
    let SavedAttention { qkv, out, more, heads } = saved;
    let (qkv, out, gradient) = (qkv.into_dispatch(), out.into_dispatch(), gradient.into_dispatch());
    Tensor::from_dispatch(<Dispatch as AttentionOps>::packed_attention_backward(qkv, out, more, gradient, heads))
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

/// Attention of one new position, whose number is in `position [1]`, on a preallocated key-value cache; see
/// [`CachedAttentionOps::attention_at`]. Not differentiable.
#[must_use]
pub fn attention_at(
    queries: Tensor<3>,
    keys: Tensor<4>,
    values: Tensor<4>,
    position: &Tensor<1, Int>,
    heads: Heads,
) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as CachedAttentionOps>::attention_at(
        queries.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        position.clone().into_dispatch(),
        heads,
    ))
}

/// [`attention_at`] of `qkv [batch, 1, packed * head_dim]`, turned and put into the caches on the way, `tables` beginning at the
/// first position; and the caches, which nobody else may hold. No launch that overlaps may have written `position`. See
/// [`CachedAttentionOps::turned_attention_at`]. Not differentiable.
#[must_use]
pub fn turned_attention_at(
    qkv: Tensor<3>,
    tables: &RopeTables,
    (keys, values): (Tensor<4>, Tensor<4>),
    position: &Tensor<1, Int>,
    heads: Heads,
) -> (Tensor<3>, (Tensor<4>, Tensor<4>)) {
    let (cos, sin) = tables.clone().into_parts();
    let (out, keys, values) = <Dispatch as CachedAttentionOps>::turned_attention_at(
        qkv.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        position.clone().into_dispatch(),
        heads,
    );
    (Tensor::from_dispatch(out), (Tensor::from_dispatch(keys), Tensor::from_dispatch(values)))
}

/// True for the slots of a cache behind the position whose number is in `position [1]`, `[1, 1, capacity]`.
pub(crate) fn later_slots(capacity: usize, position: &Tensor<1, Int>) -> Tensor<3, Bool> {
    let slots = Tensor::<1, Int>::arange(0..capacity as i64, &position.device());
    slots.greater(position.clone().expand([capacity])).reshape([1, 1, capacity])
}
