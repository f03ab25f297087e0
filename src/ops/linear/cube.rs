//! The composition, its products made by the vendor's library or asking a tuner of our own.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;

use super::{LinearOps, Products};
use crate::ops::cube::{product, product_add, product_in};
use crate::ops::primitive::{as_rows, with_last};

impl LinearOps for CubeBackend {
    fn packed_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, by: Products) -> FloatTensor<Self> {
        let shape = with_last(x.shape(), weight.shape()[1]);
        Self::float_reshape(product(as_rows::<Self>(x), weight, by), shape)
    }

    fn packed_linear_add(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        by: Products,
    ) -> FloatTensor<Self> {
        let shape = residual.shape();
        Self::float_reshape(product_add(as_rows::<Self>(x), weight, as_rows::<Self>(residual), by), shape)
    }

    fn linear_input_gradient(
        gradient: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        by: Products,
    ) -> FloatTensor<Self> {
        Self::packed_linear(gradient, Self::float_transpose(weight), by)
    }

    fn linear_weight_gradient(
        gradient: FloatTensor<Self>,
        x: FloatTensor<Self>,
        dtype: DType,
        by: Products,
    ) -> FloatTensor<Self> {
        product_in(Self::float_transpose(as_rows::<Self>(x)), as_rows::<Self>(gradient), dtype, by)
    }
}
