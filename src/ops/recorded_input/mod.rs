//! What a recorded graph reads: token ids and a position, which stay where they are in memory while their values change.
//! Not differentiable.

#[cfg(feature = "cubecl")]
mod cube;
#[cfg(all(test, feature = "flex"))]
mod tests;

use std::any::Any;
use std::sync::Arc;

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "tch")]
use burn::backend::LibTorch;
#[cfg(feature = "cubecl")]
use burn::backend::fusion::{Fusion, FusionBackend};
use burn::backend::tensor::IntTensor;
use burn::backend::{Backend, Dispatch, ExtensionType, TensorMetadata, backend_extension};
use burn::tensor::{Int, Tensor};

/// Ids `[batch, count]` and a position `[1]` in memory of their own.
#[derive(Clone, Debug, ExtensionType)]
pub struct Inputs<B: Backend> {
    ids: IntTensor<B>,
    position: IntTensor<B>,
    /// Both as the backend behind fusion has them, where there is one.
    unfused: Option<Arc<dyn Any + Send + Sync>>,
}

/// What a backend provides for [`RecordedInput`].
#[backend_extension(Flex: cfg(feature = "flex"), Cube: cfg(feature = "cubecl"), LibTorch: cfg(feature = "tch"))]
pub trait RecordedInputOps: Backend {
    /// Takes over `ids` and `position`, which nobody else may hold.
    fn inputs(ids: IntTensor<Self>, position: IntTensor<Self>) -> Inputs<Self> {
        Inputs { ids, position, unfused: None }
    }

    /// `ids` and `at` in place of what is in `held`.
    fn place(#[extension_type] held: Inputs<Self>, ids: IntTensor<Self>, at: usize) -> Inputs<Self> {
        let Inputs { position, unfused, .. } = held;
        let position =
            Self::int_full(position.shape(), (at as i64).into(), &position.device(), position.dtype().into());
        Inputs { ids, position, unfused }
    }
}

/// Launched at once: there is nothing to merge it with, and fusion would look at it for longer than many a graph runs.
#[cfg(feature = "cubecl")]
impl<B: FusionBackend + RecordedInputOps> RecordedInputOps for Fusion<B> {
    fn inputs(ids: IntTensor<Self>, position: IntTensor<Self>) -> Inputs<Self> {
        let unfused = |tensor: &IntTensor<Self>| tensor.client.resolve_tensor_int::<B>(tensor.clone());
        let behind = B::inputs(unfused(&ids), unfused(&position));
        Inputs { ids, position, unfused: Some(Arc::new(behind)) }
    }

    fn place(held: Inputs<Self>, ids: IntTensor<Self>, at: usize) -> Inputs<Self> {
        let behind = held.unfused.as_ref().and_then(|behind| behind.downcast_ref::<Inputs<B>>());
        // Burn 0.22.1 keeps the number of a tensor that is resolved as the last of its kind: some bytes each time.
        let ids = ids.client.clone().resolve_tensor_int::<B>(ids);
        // In the same memory, so that what fusion knows it by stays.
        let _placed = B::place(behind.expect("made by `inputs`").clone(), ids, at);
        held
    }
}

#[cfg(feature = "flex")]
impl RecordedInputOps for Flex {}

#[cfg(feature = "tch")]
impl RecordedInputOps for LibTorch {}

/// What a recorded graph reads, always in the same memory on a device that records graphs.
#[derive(Clone)]
pub struct RecordedInput(Inputs<Dispatch>);

impl RecordedInput {
    /// Begins with `ids` and `position`.
    #[must_use]
    pub fn new(ids: Tensor<2, Int>, position: usize) -> Self {
        let position = Tensor::<1, Int>::from_data([position as i64], &ids.device());
        // Memory of its own: the caller may hold the ids.
        let ids = ids.zeros_like() + ids;
        Self(<Dispatch as RecordedInputOps>::inputs(ids.into_dispatch(), position.into_dispatch()))
    }

    /// `ids` of the same shape, made by this thread, and `position` in place of what was there.
    pub fn place(&mut self, ids: Tensor<2, Int>, position: usize) {
        assert_eq!(self.dims(), ids.dims(), "a recorded graph keeps its shapes");
        self.0 = <Dispatch as RecordedInputOps>::place(self.0.clone(), ids.into_dispatch(), position);
    }

    /// Batch and count of the ids.
    #[must_use]
    pub fn dims(&self) -> [usize; 2] {
        self.0.ids.shape().dims()
    }

    /// `[batch, count]`.
    #[must_use]
    pub fn ids(&self) -> Tensor<2, Int> {
        Tensor::from_dispatch(self.0.ids.clone())
    }

    /// `[1]`.
    #[must_use]
    pub fn position(&self) -> Tensor<1, Int> {
        Tensor::from_dispatch(self.0.position.clone())
    }
}
