//! Linear layers together with what stands before them, for the few rows of a decode step. Not differentiable.
//!
//! ```text
//! y = rms_norm(x) W            y = swiglu(rms_norm(x) W)            y = residual + x W
//! ```
//!
//! A step of one token does little at every layer: what it takes is the launches. On CubeCL devices each of these is one,
//! every cube making the row it multiplies for itself; more rows, and other backends, go through the operations alone, their
//! products made by whom the caller names.

#[cfg(feature = "cubecl")]
mod cube;
#[cfg(feature = "cubecl")]
mod kernel;
#[cfg(all(test, feature = "flex"))]
mod tests;
#[cfg(feature = "cubecl")]
mod turned;

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "tch")]
use burn::backend::LibTorch;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Dispatch, backend_extension};
use burn::tensor::Tensor;

use super::linear::{LinearOps, Products};
#[cfg(feature = "cubecl")]
use super::primitive::with_last;
use super::rms_norm::RmsNormOps;
use super::swiglu::SwigluOps;

/// What a backend provides for [`rms_norm_linear`], [`rms_norm_linear_swiglu`] and [`linear_add`].
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cubecl"),
    LibTorch: cfg(feature = "tch"),
    Fusion: cfg(feature = "cubecl")
)]
pub trait FusedLinearOps: LinearOps + RmsNormOps + SwigluOps {
    /// `weight [in, out]`, lying as products of few rows read it fastest.
    #[fusion(dtype = weight, shape = weight)]
    fn laid_for_few_rows(weight: FloatTensor<Self>) -> FloatTensor<Self> {
        weight
    }

    /// `x [.., in]` normalised with `norm [in]`, times `weight [in, out]`: `[.., out]`.
    #[fusion(dtype = x, shape = with_last(x.clone(), weight[1]))]
    fn rms_norm_linear(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
        by: Products,
    ) -> FloatTensor<Self> {
        Self::packed_linear(Self::rms_norm(x, norm, eps), weight, by)
    }

    /// SwiGLU of the same, gate first: `[.., out / 2]`.
    #[fusion(dtype = x, shape = with_last(x.clone(), weight[1] / 2))]
    fn rms_norm_linear_swiglu(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
        by: Products,
    ) -> FloatTensor<Self> {
        Self::swiglu(Self::packed_linear(Self::rms_norm(x, norm, eps), weight, by))
    }

    /// `residual [.., out]` plus `x [.., in]` times `weight [in, out]`.
    #[fusion(dtype = residual, shape = residual)]
    fn few_rows_linear_add(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        by: Products,
    ) -> FloatTensor<Self> {
        Self::packed_linear_add(x, weight, residual, by)
    }
}

#[cfg(feature = "flex")]
impl FusedLinearOps for Flex {}

#[cfg(feature = "tch")]
impl FusedLinearOps for LibTorch {}

/// `weight [in, out]`, lying as the products of this module read it fastest; it takes as much memory as before.
#[must_use]
pub fn laid_for_few_rows(weight: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as FusedLinearOps>::laid_for_few_rows(weight.into_dispatch()))
}

/// `x [.., in]` normalised with `norm [in]`, times `weight [in, out]`.
#[must_use]
pub fn rms_norm_linear(x: Tensor<3>, norm: Tensor<1>, weight: Tensor<2>, eps: f64, by: Products) -> Tensor<3> {
    let (x, norm, weight) = (x.into_dispatch(), norm.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(<Dispatch as FusedLinearOps>::rms_norm_linear(x, norm, weight, eps, by))
}

/// SwiGLU of [`rms_norm_linear`], gate first: `[.., out / 2]`.
#[must_use]
pub fn rms_norm_linear_swiglu(x: Tensor<3>, norm: Tensor<1>, weight: Tensor<2>, eps: f64, by: Products) -> Tensor<3> {
    let (x, norm, weight) = (x.into_dispatch(), norm.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(<Dispatch as FusedLinearOps>::rms_norm_linear_swiglu(x, norm, weight, eps, by))
}

/// `residual [.., out]` plus `x [.., in]` times `weight [in, out]`.
#[must_use]
pub fn linear_add(x: Tensor<3>, weight: Tensor<2>, residual: Tensor<3>, by: Products) -> Tensor<3> {
    let (x, weight, residual) = (x.into_dispatch(), weight.into_dispatch(), residual.into_dispatch());
    Tensor::from_dispatch(<Dispatch as FusedLinearOps>::few_rows_linear_add(x, weight, residual, by))
}
