//! The gradient of an embedding: each row of the table gets the sum of what the positions that read it got.
//!
//! ```text
//! dE[v] = sum over positions with id v of dx        in at least 32 bits, in the order of positions
//! ```

#[cfg(feature = "cubecl")]
mod cube;
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
use burn::backend::{Backend, Dispatch, backend_extension};
#[cfg(feature = "cubecl")]
use burn::tensor::Shape;
use burn::tensor::{DType, Int, Tensor};

/// What a backend provides for [`embedding_gradient`].
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cubecl"),
    LibTorch: cfg(feature = "tch"),
    Fusion: cfg(feature = "cubecl")
)]
pub trait EmbeddingOps: Backend {
    /// `[vocabulary, width]` in `dtype`, from `gradient [rows, width]` and `ids [rows]`.
    #[fusion(meta = |gradient, _, vocabulary, dtype| {
        TensorSpec::new(Shape::new([*vocabulary, gradient.shape[1]]), *dtype)
    })]
    fn embedding_gradient(
        gradient: FloatTensor<Self>,
        ids: IntTensor<Self>,
        vocabulary: usize,
        dtype: DType,
    ) -> FloatTensor<Self> {
        generic::gradient::<Self>(gradient, ids, vocabulary, dtype)
    }
}

#[cfg(feature = "flex")]
impl EmbeddingOps for Flex {}

#[cfg(feature = "tch")]
impl EmbeddingOps for LibTorch {}

/// Gradient `[vocabulary, width]`, in `dtype`, of the table that `ids [rows]` read, from that of the rows they got,
/// `gradient [rows, width]`. Not differentiable.
#[must_use]
pub fn embedding_gradient(gradient: Tensor<2>, ids: Tensor<1, Int>, vocabulary: usize, dtype: DType) -> Tensor<2> {
    let (gradient, ids) = (gradient.into_dispatch(), ids.into_dispatch());
    Tensor::from_dispatch(<Dispatch as EmbeddingOps>::embedding_gradient(gradient, ids, vocabulary, dtype))
}
