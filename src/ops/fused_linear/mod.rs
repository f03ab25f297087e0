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
mod transposed_weight;

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "tch")]
use burn::backend::LibTorch;
#[cfg(feature = "cubecl")]
use burn::backend::fusion::{Fusion, FusionBackend};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
#[cfg(feature = "cubecl")]
use burn::tensor::Shape;
use burn::tensor::{DType, Device, Tensor};

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
    /// A weight `[out, in]` seen as `[in, out]`, lying as it did.
    #[fusion(dtype = weight, shape = Shape::new([weight[1], weight[0]]))]
    fn transposed(weight: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_transpose(weight)
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

/// What a backend knows of how weights should be made ready.
#[backend_extension(Flex: cfg(feature = "flex"), Cube: cfg(feature = "cubecl"), LibTorch: cfg(feature = "tch"))]
pub trait WeightLayoutOps: Backend {
    /// Whether products of few rows read a weight like this one `[in, out]` faster if it lies `[out, in]`.
    fn reads_transposed(_like: FloatTensor<Self>) -> bool {
        false
    }

    /// Whether [folding norms](super::folded_norm) of rows like `like [n]` spares anything: the composition has more to do, and
    /// kernels that look at a wide row more than once too.
    fn folds_norms(_like: FloatTensor<Self>) -> bool {
        false
    }
}

#[cfg(feature = "flex")]
impl WeightLayoutOps for Flex {}

#[cfg(feature = "tch")]
impl WeightLayoutOps for LibTorch {}

#[cfg(feature = "cubecl")]
impl<B: FusionBackend + WeightLayoutOps> WeightLayoutOps for Fusion<B> {
    fn reads_transposed(like: FloatTensor<Self>) -> bool {
        B::reads_transposed(like.client.clone().resolve_tensor_float::<B>(like))
    }

    fn folds_norms(like: FloatTensor<Self>) -> bool {
        B::folds_norms(like.client.clone().resolve_tensor_float::<B>(like))
    }
}

/// Most rows that a product of this module is one launch for, on the device that takes most.
pub const MOST_ROWS: usize = 8;

/// Whether the products of this module read weights of `input` features faster if they lie `[out, in]`, see [`transposed`].
#[must_use]
pub fn reads_transposed(input: usize, device: &Device, dtype: DType) -> bool {
    let like = Tensor::<2>::empty([input, 1], (device, dtype));
    <Dispatch as WeightLayoutOps>::reads_transposed(like.into_dispatch())
}

/// A weight `[out, in]` seen as `[in, out]`, lying as it did: an operation of its own, which fusion does not make a copy of. No
/// launch that overlaps may have written it, since products may ask for it while the launch before still runs.
#[must_use]
pub fn transposed(weight: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as FusedLinearOps>::transposed(weight.into_dispatch()))
}

/// `x [.., in]` normalised with `norm [in]`, times `weight [in, out]`. As of a [`transposed`] weight, no launch that overlaps may have
/// written the norm.
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
