//! What reads the products of rows that a norm was asked for, where the norm's scale is multiplied into the weight beforehand:
//!
//! ```text
//! rms_norm(x) W = r x diag(w) W = r (x V),   r = 1 / sqrt(mean(x^2) + eps),   V = diag(w) W
//! ```
//!
//! `x V` needs no launch before it; `r` is a number a row, and these find it beside what they do anyway. For weights that are not
//! trained. Not differentiable.

#![expect(clippy::too_many_arguments, reason = "operations take what they read one by one")]

#[cfg(feature = "cubecl")]
mod cube;
mod generic;
#[cfg(all(test, feature = "flex"))]
mod tests;

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "tch")]
use burn::backend::LibTorch;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, backend_extension};
use burn::tensor::{DType, Device, Tensor};

use super::attention::Heads;
use super::cache::CacheOps;
#[cfg(feature = "cubecl")]
use super::cache::queries;
use super::fused_linear::WeightLayoutOps;
use super::rope::{RopeOps, RopeTables, Turn};
use super::swiglu::SwigluOps;
#[cfg(feature = "cubecl")]
use super::swiglu::halved;

/// What a backend provides for [`rope`], [`turn_and_put`] and [`swiglu`]. Rows are those of `x [.., n]`.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cubecl"),
    LibTorch: cfg(feature = "tch"),
    Fusion: cfg(feature = "cubecl")
)]
pub trait FoldedNormOps: CacheOps + RopeOps + SwigluOps {
    /// [`RopeOps::rope`] of `qkv [batch, seq, width]`, its rows times `r`.
    #[fusion(dtype = qkv, shape = qkv)]
    fn normed_rope(
        qkv: FloatTensor<Self>,
        x: FloatTensor<Self>,
        eps: f64,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        heads: usize,
        first: usize,
    ) -> FloatTensor<Self> {
        Self::rope(generic::divided::<Self>(qkv, x, eps), cos, sin, heads, first, Turn::Forward)
    }

    /// [`CacheOps::turn_and_put`] of `qkv [batch, seq, packed * head_dim]`, its rows times `r`.
    #[fusion(meta = |qkv, _, _, _, _, keys, values, _, heads| (queries(qkv, heads), keys.clone(), values.clone()))]
    fn normed_turn_and_put(
        qkv: FloatTensor<Self>,
        x: FloatTensor<Self>,
        eps: f64,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        first: usize,
        heads: Heads,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        Self::turn_and_put(generic::divided::<Self>(qkv, x, eps), cos, sin, keys, values, first, heads)
    }

    /// [`SwigluOps::swiglu`] of `gate_up [.., 2 n]`, its rows times `r`: `[.., n]`.
    #[fusion(dtype = gate_up, shape = halved(gate_up))]
    fn normed_swiglu(gate_up: FloatTensor<Self>, x: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        Self::swiglu(generic::divided::<Self>(gate_up, x, eps))
    }
}

#[cfg(feature = "flex")]
impl FoldedNormOps for Flex {}

#[cfg(feature = "tch")]
impl FoldedNormOps for LibTorch {}

/// Whether scales of norms of `width` elements had better be folded into weights on this device.
#[must_use]
pub fn folds_norms(width: usize, device: &Device, dtype: DType) -> bool {
    <Dispatch as WeightLayoutOps>::folds_norms(Tensor::<1>::empty([width], (device, dtype)).into_dispatch())
}

/// [`ops::rope`](super::rope()) of `qkv [batch, seq, width]`, the product of `x [batch, seq, n]`.
#[must_use]
pub fn rope(qkv: Tensor<3>, x: Tensor<3>, eps: f64, tables: &RopeTables, heads: usize, first: usize) -> Tensor<3> {
    let (cos, sin) = tables.clone().into_parts();
    let (qkv, x, cos, sin) = (qkv.into_dispatch(), x.into_dispatch(), cos.into_dispatch(), sin.into_dispatch());
    Tensor::from_dispatch(<Dispatch as FoldedNormOps>::normed_rope(qkv, x, eps, cos, sin, heads, first))
}

/// [`ops::cache::turn_and_put`](super::cache::turn_and_put) of `qkv`, the product of `x [batch, seq, n]`.
#[must_use]
pub fn turn_and_put(
    (qkv, x): (Tensor<3>, Tensor<3>),
    eps: f64,
    tables: &RopeTables,
    (keys, values): (Tensor<4>, Tensor<4>),
    first: usize,
    heads: Heads,
) -> (Tensor<3>, (Tensor<4>, Tensor<4>)) {
    let (cos, sin) = tables.clone().into_parts();
    let (queries, keys, values) = <Dispatch as FoldedNormOps>::normed_turn_and_put(
        qkv.into_dispatch(),
        x.into_dispatch(),
        eps,
        cos.into_dispatch(),
        sin.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        first,
        heads,
    );
    (Tensor::from_dispatch(queries), (Tensor::from_dispatch(keys), Tensor::from_dispatch(values)))
}

/// [`ops::swiglu`](super::swiglu()) of `gate_up [batch, seq, 2 m]`, the product of `x [batch, seq, n]`: `[batch, seq, m]`.
#[must_use]
pub fn swiglu(gate_up: Tensor<3>, x: Tensor<3>, eps: f64) -> Tensor<3> {
    let (gate_up, x) = (gate_up.into_dispatch(), x.into_dispatch());
    Tensor::from_dispatch(<Dispatch as FoldedNormOps>::normed_swiglu(gate_up, x, eps))
}
