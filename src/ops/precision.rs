//! Element types: products in what the model computes in, sums and exponentials in at least 32 bits.

use burn::tensor::{DType, FloatDType, Tensor};

/// The tensor in at least 32 bits.
pub(crate) fn widened<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if matches!(x.dtype(), DType::BF16 | DType::F16) { x.cast(FloatDType::F32) } else { x }
}

/// The tensor in `dtype`.
pub(crate) fn in_type<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype { x } else { x.cast(FloatDType::from(dtype)) }
}
