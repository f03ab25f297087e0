//! RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467).
//!
//! ```text
//! y  = x r w,   r = 1 / sqrt(mean(x^2) + eps)         over the last dimension
//! dx = r w dy - x r^3 / n sum(w dy x)
//! dw = sum over rows of dy x r
//! ```
//!
//! Saved for backward: `x` and `w`; `r` is computed again.

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

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

pub(super) use generic::inverse_rms;

/// What a backend provides for [`rms_norm`].
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cubecl"),
    LibTorch: cfg(feature = "tch"),
    Fusion: cfg(feature = "cubecl"), Autodiff
)]
pub trait RmsNormOps: Backend {
    /// `x [.., n]` normalised and scaled by `weight [n]`.
    #[fusion(dtype = x, shape = x)]
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        generic::forward::<Self>(x, weight, eps)
    }

    /// Gradients of `x` and `weight` from that of the result.
    #[fusion(meta = |x, weight, _, _| (x.clone(), weight.clone()))]
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        generic::backward::<Self>(x, weight, gradient, eps)
    }

    /// As [`Self::rms_norm_backward`], what flows past the norm added to the gradient of `x`.
    #[fusion(meta = |x, weight, _, _, _| (x.clone(), weight.clone()))]
    fn rms_norm_backward_add(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        past: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (d_x, d_weight) = Self::rms_norm_backward(x, weight, gradient, eps);
        (Self::float_add(past, d_x), d_weight)
    }
}

/// `x [.., n]` over its root mean square, scaled by `weight [n]`.
#[must_use]
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as RmsNormOps>::rms_norm(x.into_dispatch(), weight.into_dispatch(), eps))
}

/// Gradients of [`rms_norm`]'s `x` and `weight` from that of its result.
#[must_use]
pub fn rms_norm_backward<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    gradient: Tensor<D>,
    eps: f64,
) -> (Tensor<D>, Tensor<1>) {
    let (x, weight, gradient) = (x.into_dispatch(), weight.into_dispatch(), gradient.into_dispatch());
    let (d_x, d_weight) = <Dispatch as RmsNormOps>::rms_norm_backward(x, weight, gradient, eps);
    (Tensor::from_dispatch(d_x), Tensor::from_dispatch(d_weight))
}

/// As [`rms_norm_backward`], with `past`, the gradient that flows past the norm, added to that of `x`.
#[must_use]
pub fn rms_norm_backward_add<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    gradient: Tensor<D>,
    past: Tensor<D>,
    eps: f64,
) -> (Tensor<D>, Tensor<1>) {
    let (x, weight, gradient) = (x.into_dispatch(), weight.into_dispatch(), gradient.into_dispatch());
    let past = past.into_dispatch();
    let (d_x, d_weight) = <Dispatch as RmsNormOps>::rms_norm_backward_add(x, weight, gradient, past, eps);
    (Tensor::from_dispatch(d_x), Tensor::from_dispatch(d_weight))
}
