use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

use crate::ops::primitive::{as_rows, rounded, widened};
use crate::ops::rms_norm::inverse_rms;

/// The rows of `product`, each divided by the root mean square of that of `x`.
pub(super) fn divided<B: Backend>(product: FloatTensor<B>, x: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let (shape, dtype) = (product.shape(), product.dtype());
    let r = inverse_rms::<B>(widened::<B>(as_rows::<B>(x)), eps);
    let divided = B::float_mul(widened::<B>(as_rows::<B>(product)), r);
    B::float_reshape(rounded::<B>(divided, dtype), shape)
}
