use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

use crate::ops::primitive::{last_dim, rounded, sigmoid, widened};

fn halves<B: Backend>(gate_up: FloatTensor<B>) -> (FloatTensor<B>, FloatTensor<B>) {
    let gate_up = widened::<B>(gate_up);
    let shape = gate_up.shape();
    let n = shape[shape.num_dims() - 1] / 2;
    (last_dim::<B>(gate_up.clone(), 0..n), last_dim::<B>(gate_up, n..2 * n))
}

pub(super) fn forward<B: Backend>(gate_up: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = gate_up.dtype();
    let (gate, up) = halves::<B>(gate_up);
    rounded::<B>(B::float_mul(B::float_mul(gate.clone(), sigmoid::<B>(gate)), up), dtype)
}

pub(super) fn backward<B: Backend>(gate_up: FloatTensor<B>, gradient: FloatTensor<B>) -> FloatTensor<B> {
    let (last, dtype) = (gate_up.shape().num_dims() - 1, gate_up.dtype());
    let gradient = widened::<B>(gradient);
    let (gate, up) = halves::<B>(gate_up);
    let s = sigmoid::<B>(gate.clone());
    let silu = B::float_mul(gate, s.clone());
    // s (1 + g (1 - s)) = s + silu - silu s
    let slope = B::float_sub(B::float_add(s.clone(), silu.clone()), B::float_mul(silu.clone(), s));
    let d_gate = B::float_mul(B::float_mul(gradient.clone(), up), slope);
    rounded::<B>(B::float_cat(vec![d_gate, B::float_mul(gradient, silu)], last), dtype)
}
