//! Writing keys and values into a preallocated cache, turned to their positions before or on the way.
//!
//! Keys and values come packed behind the queries, as the projection leaves them; the caches keep their memory, which a
//! recorded graph relies on. Not differentiable.

#[cfg(feature = "cubecl")]
pub(super) mod cube;
mod generic;
#[cfg(all(test, feature = "flex"))]
mod tests;

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "tch")]
use burn::backend::LibTorch;
#[cfg(feature = "cubecl")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Dispatch, backend_extension};
use burn::tensor::{Int, Tensor};

use super::attention::Heads;
#[cfg(feature = "cubecl")]
use super::attention::attended;
use super::rope::{RopeOps, RopeTables};

/// Queries of a packed row, turned: the metadata of [`CacheOps::turn_and_put`]'s first result.
#[cfg(feature = "cubecl")]
pub(super) fn queries(qkv: &TensorSpec, heads: &Heads) -> TensorSpec {
    TensorSpec::new(attended(&qkv.shape, heads), qkv.dtype)
}

/// What a backend provides for [`put`] and [`turn_and_put`].
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cubecl"),
    LibTorch: cfg(feature = "tch"),
    Fusion: cfg(feature = "cubecl")
)]
pub trait CacheOps: RopeOps {
    /// `keys` and `values [batch, key_value, capacity, head_dim]` with those of `qkv [batch, seq, packed * head_dim]`
    /// at positions `first..first + seq`.
    #[fusion(meta = |_, keys, values, _, _| (keys.clone(), values.clone()))]
    fn put(
        qkv: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        first: usize,
        heads: Heads,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        generic::put::<Self>(qkv, keys, values, first, heads)
    }

    /// As [`Self::put`] for one position, whose number is in `position [1]`.
    #[fusion(meta = |_, keys, values, _, _| (keys.clone(), values.clone()))]
    fn put_at(
        qkv: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        position: IntTensor<Self>,
        heads: Heads,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        generic::put_at::<Self>(qkv, keys, values, position, heads)
    }

    /// As [`Self::put`], queries and keys turned before as [`RopeOps::rope`] does, each position with its row of the tables.
    /// The turned queries `[batch, seq, query * head_dim]`, and the caches.
    #[fusion(meta = |qkv, _, _, keys, values, _, heads| (queries(qkv, heads), keys.clone(), values.clone()))]
    fn turn_and_put(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        first: usize,
        heads: Heads,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (queries, qkv) = generic::turned::<Self>(qkv, cos, sin, first, heads);
        let (keys, values) = Self::put(qkv, keys, values, first, heads);
        (queries, keys, values)
    }
}

#[cfg(feature = "flex")]
impl CacheOps for Flex {}

#[cfg(feature = "tch")]
impl CacheOps for LibTorch {}

/// The caches, written; see [`CacheOps::put`] for shapes. Nobody else may hold them.
#[must_use]
pub fn put(
    qkv: Tensor<3>,
    (keys, values): (Tensor<4>, Tensor<4>),
    first: usize,
    heads: Heads,
) -> (Tensor<4>, Tensor<4>) {
    let (qkv, keys, values) = (qkv.into_dispatch(), keys.into_dispatch(), values.into_dispatch());
    let (keys, values) = <Dispatch as CacheOps>::put(qkv, keys, values, first, heads);
    (Tensor::from_dispatch(keys), Tensor::from_dispatch(values))
}

/// The caches, written at the one position whose number is in `position [1]`; see [`CacheOps::put_at`].
#[must_use]
pub fn put_at(
    qkv: Tensor<3>,
    (keys, values): (Tensor<4>, Tensor<4>),
    position: &Tensor<1, Int>,
    heads: Heads,
) -> (Tensor<4>, Tensor<4>) {
    let (qkv, keys, values) = (qkv.into_dispatch(), keys.into_dispatch(), values.into_dispatch());
    let (keys, values) = <Dispatch as CacheOps>::put_at(qkv, keys, values, position.clone().into_dispatch(), heads);
    (Tensor::from_dispatch(keys), Tensor::from_dispatch(values))
}

/// Turned queries `[batch, seq, query * head_dim]`, and the caches with the turned keys and the values, `tables` beginning at the
/// first position; see [`CacheOps::turn_and_put`].
#[must_use]
pub fn turn_and_put(
    qkv: Tensor<3>,
    tables: &RopeTables,
    (keys, values): (Tensor<4>, Tensor<4>),
    first: usize,
    heads: Heads,
) -> (Tensor<3>, (Tensor<4>, Tensor<4>)) {
    let (cos, sin) = tables.clone().into_parts();
    let (queries, keys, values) = <Dispatch as CacheOps>::turn_and_put(
        qkv.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        first,
        heads,
    );
    (Tensor::from_dispatch(queries), (Tensor::from_dispatch(keys), Tensor::from_dispatch(values)))
}
