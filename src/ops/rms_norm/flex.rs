use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::DType;
use rayon::prelude::*;

use super::{RmsNormOps, generic};
use crate::ops::flex::{Real, contiguous, lane_sum, new_tensor, rows_per_task, simd, slice};

impl RmsNormOps for Flex {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => forward::<f32>(x, weight, eps),
            DType::F64 => forward::<f64>(x, weight, eps),
            _ => generic::forward::<Self>(x, weight, eps),
        }
    }

    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        match x.dtype() {
            DType::F32 => backward::<f32>(x, weight, gradient, eps),
            DType::F64 => backward::<f64>(x, weight, gradient, eps),
            _ => generic::backward::<Self>(x, weight, gradient, eps),
        }
    }
}

#[inline(always)]
fn inverse_rms<T: Real>(x: &[T], eps: T) -> T {
    let mean = lane_sum(x, |x| x * x) / T::of(x.len() as f64);
    T::one() / (mean + eps).sqrt()
}

fn forward<T: Real>(x: FloatTensor<Flex>, weight: FloatTensor<Flex>, eps: f64) -> FloatTensor<Flex> {
    let (x, weight) = (contiguous(x), contiguous(weight));
    let (data, weight, eps): (&[T], &[T], T) = (slice(&x), slice(&weight), T::of(eps));
    let n = weight.len();
    let mut to = vec![T::zero(); data.len()];
    let task = n * rows_per_task(data.len() / n, n);
    to.par_chunks_mut(task).zip(data.par_chunks(task)).for_each(|(to, x)| {
        simd(|| {
            for (to, x) in to.chunks_exact_mut(n).zip(x.chunks_exact(n)) {
                let r = inverse_rms(x, eps);
                for ((to, x), w) in to.iter_mut().zip(x).zip(weight) {
                    *to = *x * r * *w;
                }
            }
        });
    });
    new_tensor(to, x.shape())
}

fn backward<T: Real>(
    x: FloatTensor<Flex>,
    weight: FloatTensor<Flex>,
    gradient: FloatTensor<Flex>,
    eps: f64,
) -> (FloatTensor<Flex>, FloatTensor<Flex>) {
    let (x, weight, gradient) = (contiguous(x), contiguous(weight), contiguous(gradient));
    let (data, w, dy): (&[T], &[T], &[T]) = (slice(&x), slice(&weight), slice(&gradient));
    let (n, eps) = (w.len(), T::of(eps));
    let mut dx = vec![T::zero(); data.len()];
    let task = n * rows_per_task(data.len() / n, n);
    let partial: Vec<Vec<T>> = dx
        .par_chunks_mut(task)
        .zip(data.par_chunks(task))
        .zip(dy.par_chunks(task))
        .map(|((dx, x), dy)| {
            let mut dw = vec![T::zero(); n];
            simd(|| backward_rows(dx, &mut dw, x, w, dy, eps));
            dw
        })
        .collect();
    let mut dw = vec![T::zero(); n];
    for partial in partial {
        for (dw, partial) in dw.iter_mut().zip(partial) {
            *dw = *dw + partial;
        }
    }
    (new_tensor(dx, x.shape()), new_tensor(dw, [n]))
}

#[inline(always)]
fn backward_rows<T: Real>(dx: &mut [T], dw: &mut [T], x: &[T], w: &[T], dy: &[T], eps: T) {
    let n = w.len();
    for ((dx, x), dy) in dx.chunks_exact_mut(n).zip(x.chunks_exact(n)).zip(dy.chunks_exact(n)) {
        let r = inverse_rms(x, eps);
        for ((((dx, dw), x), w), dy) in dx.iter_mut().zip(dw.iter_mut()).zip(x).zip(w).zip(dy) {
            *dw = *dw + *dy * *x * r;
            *dx = *w * *dy;
        }
        let dot = crate::ops::flex::lane_dot(dx, x);
        let factor = r * r * r * dot / T::of(n as f64);
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx = *dx * r - *x * factor;
        }
    }
}
