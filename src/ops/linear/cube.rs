//! The composition, its products asking a tuner of our own.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;

use super::LinearOps;
use crate::ops::cube::{product, product_in};
use crate::ops::primitive::{as_rows, with_last};

impl LinearOps for CubeBackend {
    fn packed_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let shape = with_last(x.shape(), weight.shape()[1]);
        Self::float_reshape(product(as_rows::<Self>(x), weight), shape)
    }

    fn linear_input_gradient(gradient: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::packed_linear(gradient, Self::float_transpose(weight))
    }

    fn linear_weight_gradient(gradient: FloatTensor<Self>, x: FloatTensor<Self>, dtype: DType) -> FloatTensor<Self> {
        product_in(Self::float_transpose(as_rows::<Self>(x)), as_rows::<Self>(gradient), dtype)
    }
}
