//! SwiGLU (Shazeer 2020, arXiv:2002.05202) on gate and up-projection side by side.
//!
//! ```text
//! y  = silu(g) u,   silu(g) = g s,   s = 1 / (1 + e^-g)
//! dg = dy u s (1 + g (1 - s))        du = dy silu(g)
//! ```
//!
//! Saved for backward: the input.

mod autodiff;
#[cfg(feature = "cubecl")]
pub(super) mod cube;
#[cfg(feature = "flex")]
mod flex;
mod generic;
#[cfg(feature = "tch")]
mod libtorch;
#[cfg(all(test, feature = "flex"))]
mod tests;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
#[cfg(feature = "cubecl")]
use burn::tensor::Shape;
use burn::tensor::Tensor;

#[cfg(feature = "cubecl")]
use crate::ops::primitive::with_last;

/// The shape of the result.
#[cfg(feature = "cubecl")]
pub(super) fn halved(gate_up: &Shape) -> Shape {
    let last = gate_up[gate_up.num_dims() - 1];
    with_last(gate_up.clone(), last / 2)
}

/// What a backend provides for [`swiglu`].
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cubecl"),
    LibTorch: cfg(feature = "tch"),
    Fusion: cfg(feature = "cubecl"), Autodiff
)]
pub trait SwigluOps: Backend {
    /// `gate_up [.., 2 n]`, gate first, to `[.., n]`.
    #[fusion(dtype = gate_up, shape = halved(gate_up))]
    fn swiglu(gate_up: FloatTensor<Self>) -> FloatTensor<Self> {
        generic::forward::<Self>(gate_up)
    }

    /// Gradient of `gate_up [.., 2 n]` from that of the result `[.., n]`.
    #[fusion(dtype = gate_up, shape = gate_up)]
    fn swiglu_backward(gate_up: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        generic::backward::<Self>(gate_up, gradient)
    }
}

/// `silu(gate) * up` of `gate_up [.., 2 n]`, gate first: `[.., n]`.
#[must_use]
pub fn swiglu<const D: usize>(gate_up: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as SwigluOps>::swiglu(gate_up.into_dispatch()))
}

/// Gradient of [`swiglu`]'s `gate_up [.., 2 n]` from that of its result.
#[must_use]
pub fn swiglu_backward<const D: usize>(gate_up: Tensor<D>, gradient: Tensor<D>) -> Tensor<D> {
    let (gate_up, gradient) = (gate_up.into_dispatch(), gradient.into_dispatch());
    Tensor::from_dispatch(<Dispatch as SwigluOps>::swiglu_backward(gate_up, gradient))
}
