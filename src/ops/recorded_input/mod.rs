//! What a recorded graph reads: token ids and a position, which stay where they are in memory while their values change.
//! Not differentiable.

#[cfg(feature = "cubecl")]
mod cube;
#[cfg(all(test, feature = "flex"))]
mod tests;

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "tch")]
use burn::backend::LibTorch;
use burn::backend::tensor::IntTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Int, Tensor};

/// What a backend provides for [`place`].
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cubecl"),
    LibTorch: cfg(feature = "tch"),
    Fusion: cfg(feature = "cubecl")
)]
pub trait RecordedInputOps: Backend {
    /// `ids` and `at` in place of what is in `held`, of the shape of `ids`, and in `position [1]`.
    #[fusion(meta = |held, position, _, _| (held.clone(), position.clone()))]
    fn place(
        held: IntTensor<Self>,
        position: IntTensor<Self>,
        ids: IntTensor<Self>,
        at: usize,
    ) -> (IntTensor<Self>, IntTensor<Self>) {
        drop(held);
        let position =
            Self::int_full(position.shape(), (at as i64).into(), &position.device(), position.dtype().into());
        (ids, position)
    }
}

#[cfg(feature = "flex")]
impl RecordedInputOps for Flex {}

#[cfg(feature = "tch")]
impl RecordedInputOps for LibTorch {}

/// `held [batch, count]` and `position [1]` with `ids [batch, count]` and `at` in their place; on a device that records
/// graphs in the same memory.
#[must_use]
pub fn place(
    (held, position): (Tensor<2, Int>, Tensor<1, Int>),
    ids: Tensor<2, Int>,
    at: usize,
) -> (Tensor<2, Int>, Tensor<1, Int>) {
    assert_eq!(held.dims(), ids.dims(), "a recorded graph keeps its shapes");
    let (held, position) = (held.into_dispatch(), position.into_dispatch());
    let (held, position) = <Dispatch as RecordedInputOps>::place(held, position, ids.into_dispatch(), at);
    (Tensor::from_dispatch(held), Tensor::from_dispatch(position))
}
