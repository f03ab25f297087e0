//! Short names for backend primitives, for the generic compositions.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, FloatDType, Shape, Slice};

/// Elements `range` along the last dimension.
pub(crate) fn last_dim<B: Backend>(tensor: FloatTensor<B>, range: std::ops::Range<usize>) -> FloatTensor<B> {
    let last = tensor.shape().num_dims() - 1;
    narrow::<B>(tensor, last, range)
}

/// Elements `range` along `dim`.
pub(crate) fn narrow<B: Backend>(tensor: FloatTensor<B>, dim: usize, range: std::ops::Range<usize>) -> FloatTensor<B> {
    let mut slices: Vec<Slice> = tensor.shape().into_ranges().into_iter().map(Slice::from).collect();
    slices[dim] = Slice::from(range);
    B::float_slice(tensor, &slices)
}

/// The tensor as a matrix whose rows are its last dimension: `[.., n]` to `[rows, n]`.
pub(crate) fn as_rows<B: Backend>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    let shape = tensor.shape();
    let columns = shape[shape.num_dims() - 1];
    let rows = shape.num_elements() / columns.max(1);
    B::float_reshape(tensor, Shape::new([rows, columns]))
}

/// `shape` with its last dimension replaced.
pub(crate) fn with_last(mut shape: Shape, last: usize) -> Shape {
    let dim = shape.num_dims() - 1;
    shape[dim] = last;
    shape
}

/// The tensor in at least 32 bits, for sums and exponentials.
pub(crate) fn widened<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    if matches!(x.dtype(), DType::BF16 | DType::F16) { B::float_cast(x, FloatDType::F32) } else { x }
}

/// The tensor rounded to the element type that products are made in: the way back from [`widened`].
pub(crate) fn rounded<B: Backend>(x: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if x.dtype() == dtype { x } else { B::float_cast(x, dtype.into()) }
}

/// The logistic function `1 / (1 + e^-x)`.
pub(crate) fn sigmoid<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_recip(B::float_add_scalar(B::float_exp(B::float_neg(x)), 1.0.into()))
}
