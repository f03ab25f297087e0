use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::DType;
use rayon::prelude::*;

use super::{RopeOps, Turn, generic};
use crate::ops::flex::{Real, contiguous, owned_storage, rows_per_task, simd, slice};

impl RopeOps for Flex {
    fn rope(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        heads: usize,
        first: usize,
        turn: Turn,
    ) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => rotate::<f32>(x, cos, sin, heads, first, turn),
            DType::F64 => rotate::<f64>(x, cos, sin, heads, first, turn),
            _ => generic::rotate::<Self>(x, cos, sin, heads, first, turn),
        }
    }
}

/// In place when nobody else holds `x`.
fn rotate<T: Real>(
    x: FloatTensor<Flex>,
    cos: FloatTensor<Flex>,
    sin: FloatTensor<Flex>,
    heads: usize,
    first: usize,
    turn: Turn,
) -> FloatTensor<Flex> {
    let [_, seq, width] = x.shape().dims();
    let half = cos.shape()[1];
    assert!(2 * half * heads <= width, "rope: {heads} heads of {} do not fit a width of {width}", 2 * half);
    let (cos, sin) = (contiguous(cos), contiguous(sin));
    let (cos, sin): (&[T], &[T]) = (&slice(&cos)[first * half..], &slice(&sin)[first * half..]);
    let sign = if turn == Turn::Back { -T::one() } else { T::one() };
    let mut x = owned_storage(x);
    let data = x.storage_mut::<T>();
    let rows = rows_per_task(data.len() / width, width);
    data.par_chunks_mut(rows * width).enumerate().for_each(|(task, chunk)| {
        simd(|| {
            for (row, features) in chunk.chunks_exact_mut(width).enumerate() {
                let at = (task * rows + row) % seq * half;
                let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
                for head in features.chunks_exact_mut(2 * half).take(heads) {
                    let (a, b) = head.split_at_mut(half);
                    for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                        let (old_a, old_b, sin) = (*a, *b, *sin * sign);
                        *a = old_a * *cos - old_b * sin;
                        *b = old_b * *cos + old_a * sin;
                    }
                }
            }
        });
    });
    x
}
