use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

use crate::ops::primitive::{as_rows, with_last};

pub(super) fn forward<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let shape = with_last(x.shape(), weight.shape()[1]);
    B::float_reshape(B::float_matmul(as_rows::<B>(x), weight), shape)
}

pub(super) fn input_gradient<B: Backend>(gradient: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    forward::<B>(gradient, B::float_transpose(weight))
}

pub(super) fn weight_gradient<B: Backend>(gradient: FloatTensor<B>, x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_matmul(B::float_transpose(as_rows::<B>(x)), as_rows::<B>(gradient))
}
