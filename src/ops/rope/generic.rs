use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::Shape;

use super::Turn;
use crate::ops::primitive::{last_dim, narrow, rounded, widened};

pub(super) fn rotate<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    heads: usize,
    first: usize,
    turn: Turn,
) -> FloatTensor<B> {
    let [batch, seq, width] = x.shape().dims();
    let half = cos.shape()[1];
    let rotated = 2 * half * heads;
    let rows = |table: FloatTensor<B>| {
        B::float_reshape(narrow::<B>(table, 0, first..first + seq), Shape::new([1, seq, 1, half]))
    };
    let (cos, sin) = (rows(cos), rows(sin));
    let sin = if turn == Turn::Back { B::float_neg(sin) } else { sin };
    let head = B::float_reshape(last_dim::<B>(x.clone(), 0..rotated), Shape::new([batch, seq, heads, 2 * half]));
    let head = widened::<B>(head);
    let a = last_dim::<B>(head.clone(), 0..half);
    let b = last_dim::<B>(head, half..2 * half);
    let turned = B::float_cat(
        vec![
            B::float_sub(B::float_mul(a.clone(), cos.clone()), B::float_mul(b.clone(), sin.clone())),
            B::float_add(B::float_mul(b, cos), B::float_mul(a, sin)),
        ],
        3,
    );
    let turned = rounded::<B>(B::float_reshape(turned, Shape::new([batch, seq, rotated])), x.dtype());
    if rotated == width { turned } else { B::float_cat(vec![turned, last_dim::<B>(x, rotated..width)], 2) }
}
