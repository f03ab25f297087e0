//! Output projection and cross-entropy in chunks of rows, never holding the logits of the whole batch.
//!
//! ```text
//! Z = H W        loss = mean over counted rows of  log sum_j e^{z_j} - z_target
//! dZ = (softmax(Z) - onehot(target)) / count        dH = dZ W^T        dW = H^T dZ
//! ```
//!
//! The gradients are made chunk by chunk in the forward sweep, while the chunk's logits are there (as in Liger Kernel,
//! Hsu et al. 2024, arXiv:2410.10989), and saved for backward in their stead. Peak memory is that of one chunk plus
//! `dH` and `dW`, whatever batch, sequence and vocabulary are.

mod autodiff;
#[cfg(feature = "cubecl")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
mod generic;
#[cfg(feature = "tch")]
mod libtorch;
#[cfg(all(test, feature = "flex"))]
mod tests;

#[cfg(feature = "cubecl")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
#[cfg(feature = "cubecl")]
use burn::tensor::{DType, Shape};
use burn::tensor::{Int, Tensor};

use super::linear::Products;

/// Logits held at once, in elements: 4 MiB in single precision.
pub(crate) const CHUNK_ELEMENTS: usize = 1 << 20;

/// Rows whose logits are held at once, `elements` of them.
pub(crate) fn chunk_rows(elements: usize, vocabulary: usize) -> usize {
    (elements / vocabulary.max(1)).clamp(64, elements / 2048)
}

/// Metadata of [`LinearCrossEntropyOps::linear_cross_entropy`], whose loss is made in at least 32 bits.
#[cfg(feature = "cubecl")]
fn loss(hidden: &TensorSpec) -> TensorSpec {
    TensorSpec::new(Shape::new([1]), if hidden.dtype == DType::F64 { DType::F64 } else { DType::F32 })
}

/// What a backend provides for [`linear_cross_entropy`].
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cubecl"),
    LibTorch: cfg(feature = "tch"),
    Fusion: cfg(feature = "cubecl"), Autodiff
)]
pub trait LinearCrossEntropyOps: Backend {
    /// Loss `[1]` of `hidden [rows, n]`, `weight [n, vocabulary]` and `targets [rows]`; rows with a negative target do
    /// not count, `count` is the number of those that do.
    #[fusion(meta = |hidden, _, _, _, _| loss(hidden))]
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        count: usize,
        _by: Products,
    ) -> FloatTensor<Self> {
        generic::forward::<Self>(hidden, weight, targets, count)
    }

    /// Loss, and the gradients of `hidden` and `weight`.
    #[fusion(meta = |hidden, weight, _, _, _| (loss(hidden), hidden.clone(), weight.clone()))]
    fn linear_cross_entropy_with_gradients(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        count: usize,
        _by: Products,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        generic::with_gradients::<Self>(hidden, weight, targets, count)
    }
}

/// Mean cross-entropy `[1]` of the logits `hidden [rows, n] weight [n, vocabulary]` against `targets [rows]`.
///
/// Rows with a negative target do not count; `count` is the number of those that do.
#[must_use]
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    count: usize,
    by: Products,
) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as LinearCrossEntropyOps>::linear_cross_entropy(
        hidden.into_dispatch(),
        weight.into_dispatch(),
        targets.into_dispatch(),
        count,
        by,
    ))
}

/// [`linear_cross_entropy`], and the gradients of `hidden` and `weight`.
#[must_use]
pub fn linear_cross_entropy_with_gradients(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    count: usize,
    by: Products,
) -> (Tensor<1>, Tensor<2>, Tensor<2>) {
    let (hidden, weight, targets) = (hidden.into_dispatch(), weight.into_dispatch(), targets.into_dispatch());
    let (loss, d_hidden, d_weight) =
        <Dispatch as LinearCrossEntropyOps>::linear_cross_entropy_with_gradients(hidden, weight, targets, count, by);
    (Tensor::from_dispatch(loss), Tensor::from_dispatch(d_hidden), Tensor::from_dispatch(d_weight))
}
