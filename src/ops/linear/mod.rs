//! Linear layer on weights stored `[in, out]`, optionally adding its result to a residual stream.
//!
//! ```text
//! y = x W            y = residual + x W
//! dx = dy W^T        dW = x^T dy        dresidual = dy
//! ```
//!
//! Weights are stored input-major so that a product for few rows streams them front to back and a product for many
//! packs them without a transpose; for an exception see [`super::fused_linear::transposed`]. Saved for backward: `x` and `W`.

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
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
#[cfg(feature = "cubecl")]
use burn::tensor::Shape;
use burn::tensor::{DType, Tensor};

use crate::ops::primitive::rounded;
#[cfg(feature = "cubecl")]
use crate::ops::primitive::with_last;

/// Features of a row.
#[cfg(feature = "cubecl")]
fn width(shape: &Shape) -> usize {
    shape[shape.num_dims() - 1]
}

/// Who makes the products of linear layers, where a device offers the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// Kernels of ours and of the backend, its tuner choosing among them if it has one.
    Tuned,
    /// The vendor's library: cuBLASLt on CUDA. Where there is none, or where it does not take the factors, as [`Self::Tuned`].
    Vendor,
}

/// What a backend provides for [`linear`] and [`linear_add`].
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cubecl"),
    LibTorch: cfg(feature = "tch"),
    Fusion: cfg(feature = "cubecl"), Autodiff
)]
pub trait LinearOps: Backend {
    /// `x [.., in] W [in, out]`, `[.., out]`.
    #[fusion(dtype = x, shape = with_last(x.clone(), weight[1]))]
    fn packed_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, _by: Products) -> FloatTensor<Self> {
        generic::forward::<Self>(x, weight)
    }

    /// `residual [.., out] + x [.., in] W [in, out]`.
    #[fusion(dtype = residual, shape = residual)]
    fn packed_linear_add(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        by: Products,
    ) -> FloatTensor<Self> {
        Self::float_add(residual, Self::packed_linear(x, weight, by))
    }

    /// Gradient of `x`, from that of the result: `dy [.., out] W^T`.
    #[fusion(dtype = gradient, shape = with_last(gradient.clone(), weight[0]))]
    fn linear_input_gradient(
        gradient: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        _by: Products,
    ) -> FloatTensor<Self> {
        generic::input_gradient::<Self>(gradient, weight)
    }

    /// Gradient of the weight, from that of the result: `x^T dy`, `[in, out]`, in the type of the weight, which may be wider
    /// than what products are made in.
    #[fusion(meta = |gradient, x, dtype, _| TensorSpec::new(Shape::new([width(&x.shape), width(&gradient.shape)]), *dtype))]
    fn linear_weight_gradient(
        gradient: FloatTensor<Self>,
        x: FloatTensor<Self>,
        dtype: DType,
        _by: Products,
    ) -> FloatTensor<Self> {
        rounded::<Self>(generic::weight_gradient::<Self>(gradient, x), dtype)
    }
}

/// `x [.., in]` times `weight [in, out]`.
#[must_use]
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, by: Products) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as LinearOps>::packed_linear(x.into_dispatch(), weight.into_dispatch(), by))
}

/// `residual [.., out]` plus `x [.., in]` times `weight [in, out]`.
#[must_use]
pub fn linear_add<const D: usize>(x: Tensor<D>, weight: Tensor<2>, residual: Tensor<D>, by: Products) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as LinearOps>::packed_linear_add(
        x.into_dispatch(),
        weight.into_dispatch(),
        residual.into_dispatch(),
        by,
    ))
}

/// Gradients of [`linear`]'s `x [.., in]` and `weight [in, out]` from that of its result, the latter in `dtype`.
#[must_use]
pub fn linear_backward<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    gradient: Tensor<D>,
    dtype: DType,
    by: Products,
) -> (Tensor<D>, Tensor<2>) {
    let (x, weight, gradient) = (x.into_dispatch(), weight.into_dispatch(), gradient.into_dispatch());
    let d_weight = <Dispatch as LinearOps>::linear_weight_gradient(gradient.clone(), x, dtype, by);
    let d_x = <Dispatch as LinearOps>::linear_input_gradient(gradient, weight, by);
    (Tensor::from_dispatch(d_x), Tensor::from_dispatch(d_weight))
}
