use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Shape;

use crate::ops::primitive::{as_rows, rounded, widened};

/// `[rows, 1]`: one over the root mean square of each row.
pub(in crate::ops) fn inverse_rms<B: Backend>(x: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let mean_square = B::float_mean_dim(B::float_mul(x.clone(), x), 1);
    B::float_recip(B::float_sqrt(B::float_add_scalar(mean_square, eps.into())))
}

fn as_row<B: Backend>(weight: FloatTensor<B>) -> FloatTensor<B> {
    let columns = weight.shape()[0];
    widened::<B>(B::float_reshape(weight, Shape::new([1, columns])))
}

pub(super) fn forward<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let (shape, dtype) = (x.shape(), x.dtype());
    let x = widened::<B>(as_rows::<B>(x));
    let r = inverse_rms::<B>(x.clone(), eps);
    let y = B::float_mul(B::float_mul(x, r), as_row::<B>(weight));
    B::float_reshape(rounded::<B>(y, dtype), shape)
}

pub(super) fn backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    gradient: FloatTensor<B>,
    eps: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (shape, x_dtype, weight_dtype) = (x.shape(), x.dtype(), weight.dtype());
    let (x, gradient) = (widened::<B>(as_rows::<B>(x)), widened::<B>(as_rows::<B>(gradient)));
    let n = x.shape()[1];
    let r = inverse_rms::<B>(x.clone(), eps);
    let normalised = B::float_mul(x, r.clone());
    let dw = B::float_sum_dim(B::float_mul(gradient.clone(), normalised.clone()), 0);
    let scaled = B::float_mul(gradient, as_row::<B>(weight));
    let mean = B::float_mean_dim(B::float_mul(scaled.clone(), normalised.clone()), 1);
    let dx = B::float_mul(B::float_sub(scaled, B::float_mul(normalised, mean)), r);
    let (dx, dw) = (rounded::<B>(dx, x_dtype), rounded::<B>(dw, weight_dtype));
    (B::float_reshape(dx, shape), B::float_reshape(dw, Shape::new([n])))
}
