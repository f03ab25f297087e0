use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, IndexingUpdateOp, Shape};

use crate::ops::primitive::{rounded, widened};

pub(super) fn gradient<B: Backend>(
    gradient: FloatTensor<B>,
    ids: IntTensor<B>,
    vocabulary: usize,
    dtype: DType,
) -> FloatTensor<B> {
    let gradient = widened::<B>(gradient);
    let shape = Shape::new([vocabulary, gradient.shape()[1]]);
    let zeros = B::float_zeros(shape, &gradient.device(), gradient.dtype().into());
    rounded::<B>(B::float_select_assign(zeros, 0, ids, gradient, IndexingUpdateOp::Add), dtype)
}
