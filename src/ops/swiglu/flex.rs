use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::DType;
use rayon::prelude::*;

use super::{SwigluOps, generic};
use crate::ops::flex::{Real, contiguous, new_tensor, rows_per_task, simd, slice};
use crate::ops::primitive::with_last;

impl SwigluOps for Flex {
    fn swiglu(gate_up: FloatTensor<Self>) -> FloatTensor<Self> {
        match gate_up.dtype() {
            DType::F32 => forward::<f32>(gate_up),
            DType::F64 => forward::<f64>(gate_up),
            _ => generic::forward::<Self>(gate_up),
        }
    }

    fn swiglu_backward(gate_up: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        match gate_up.dtype() {
            DType::F32 => backward::<f32>(gate_up, gradient),
            DType::F64 => backward::<f64>(gate_up, gradient),
            _ => generic::backward::<Self>(gate_up, gradient),
        }
    }
}

#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    T::one() / (T::one() + (-x).exp_lane())
}

fn forward<T: Real>(gate_up: FloatTensor<Flex>) -> FloatTensor<Flex> {
    let gate_up = contiguous(gate_up);
    let shape = gate_up.shape();
    let n = shape[shape.num_dims() - 1] / 2;
    let data: &[T] = slice(&gate_up);
    let mut to = vec![T::zero(); data.len() / 2];
    let rows = rows_per_task(to.len() / n, 2 * n);
    to.par_chunks_mut(rows * n).zip(data.par_chunks(rows * 2 * n)).for_each(|(to, data)| {
        simd(|| {
            for (to, row) in to.chunks_exact_mut(n).zip(data.chunks_exact(2 * n)) {
                let (gate, up) = row.split_at(n);
                for ((to, g), u) in to.iter_mut().zip(gate).zip(up) {
                    *to = *g * sigmoid(*g) * *u;
                }
            }
        });
    });
    new_tensor(to, with_last(shape, n))
}

fn backward<T: Real>(gate_up: FloatTensor<Flex>, gradient: FloatTensor<Flex>) -> FloatTensor<Flex> {
    let (gate_up, gradient) = (contiguous(gate_up), contiguous(gradient));
    let shape = gate_up.shape();
    let n = shape[shape.num_dims() - 1] / 2;
    let (data, dy): (&[T], &[T]) = (slice(&gate_up), slice(&gradient));
    let mut to = vec![T::zero(); data.len()];
    let rows = rows_per_task(dy.len() / n, 2 * n);
    to.par_chunks_mut(rows * 2 * n).zip(data.par_chunks(rows * 2 * n)).zip(dy.par_chunks(rows * n)).for_each(
        |((to, data), dy)| {
            simd(|| {
                for ((to, row), dy) in to.chunks_exact_mut(2 * n).zip(data.chunks_exact(2 * n)).zip(dy.chunks_exact(n))
                {
                    let (d_gate, d_up) = to.split_at_mut(n);
                    let (gate, up) = row.split_at(n);
                    for ((((d_gate, d_up), g), u), dy) in d_gate.iter_mut().zip(d_up).zip(gate).zip(up).zip(dy) {
                        let s = sigmoid(*g);
                        *d_up = *dy * *g * s;
                        *d_gate = *dy * *u * s * (T::one() + *g * (T::one() - s));
                    }
                }
            });
        },
    );
    new_tensor(to, shape)
}
