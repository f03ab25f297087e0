use burn::backend::ops::IntTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, IntDType};
use rayon::prelude::*;

use super::{CHUNK_ELEMENTS, LinearCrossEntropyOps, chunk_rows, generic};
use crate::ops::flex::{
    Matrix, MatrixMut, Real, contiguous, lane_max, lane_sum, multiply_parallel, new_tensor, rows_per_task, simd, slice,
};
use crate::ops::linear::Products;

impl LinearCrossEntropyOps for Flex {
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        count: usize,
        _: Products,
    ) -> FloatTensor<Self> {
        match hidden.dtype() {
            DType::F32 => sweep::<f32>(&hidden, &weight, targets, count, None),
            DType::F64 => sweep::<f64>(&hidden, &weight, targets, count, None),
            _ => generic::forward::<Self>(hidden, weight, targets, count),
        }
    }

    fn linear_cross_entropy_with_gradients(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        count: usize,
        _: Products,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        match hidden.dtype() {
            DType::F32 => with_gradients::<f32>(&hidden, &weight, targets, count),
            DType::F64 => with_gradients::<f64>(&hidden, &weight, targets, count),
            _ => generic::with_gradients::<Self>(hidden, weight, targets, count),
        }
    }
}

fn with_gradients<T: Real>(
    hidden: &FloatTensor<Flex>,
    weight: &FloatTensor<Flex>,
    targets: IntTensor<Flex>,
    count: usize,
) -> (FloatTensor<Flex>, FloatTensor<Flex>, FloatTensor<Flex>) {
    let mut d_hidden = vec![T::zero(); hidden.shape().num_elements()];
    let mut d_weight = vec![T::zero(); weight.shape().num_elements()];
    let loss = sweep(hidden, weight, targets, count, Some((&mut d_hidden, &mut d_weight)));
    (loss, new_tensor(d_hidden, hidden.shape()), new_tensor(d_weight, weight.shape()))
}

/// One pass over the rows, with or without gradients.
fn sweep<T: Real>(
    hidden: &FloatTensor<Flex>,
    weight: &FloatTensor<Flex>,
    targets: IntTensor<Flex>,
    count: usize,
    mut gradients: Option<(&mut [T], &mut [T])>,
) -> FloatTensor<Flex> {
    let (hidden, weight) = (contiguous(hidden.clone()), contiguous(weight.clone()));
    let targets = contiguous(Flex::int_cast(targets, IntDType::I64));
    let targets: &[i64] = targets.as_slice().expect("targets were made contiguous 64-bit integers");
    let [n, vocabulary] = weight.shape().dims();
    let (data, weight): (&[T], &[T]) = (slice(&hidden), slice(&weight));
    let weight = Matrix::new(weight, n, vocabulary, vocabulary);
    let chunk = chunk_rows(CHUNK_ELEMENTS, vocabulary).min(targets.len());
    let mut logits = vec![T::zero(); chunk * vocabulary];
    let mut loss = 0.0;
    for (index, targets) in targets.chunks(chunk.max(1)).enumerate() {
        let rows = targets.len();
        let range = index * chunk * n..(index * chunk + rows) * n;
        let hidden = Matrix::new(&data[range.clone()], rows, n, n);
        let logits = &mut logits[..rows * vocabulary];
        multiply_parallel(&mut MatrixMut::new(logits, rows, vocabulary, vocabulary), false, T::one(), hidden, weight);
        loss += losses(logits, targets, vocabulary, gradients.is_some().then_some(count));
        if let Some((d_hidden, d_weight)) = &mut gradients {
            let d_logits = Matrix::new(logits, rows, vocabulary, vocabulary);
            let mut d_hidden = MatrixMut::new(&mut d_hidden[range], rows, n, n);
            multiply_parallel(&mut d_hidden, false, T::one(), d_logits, weight.transposed());
            let mut d_weight = MatrixMut::new(d_weight, n, vocabulary, vocabulary);
            multiply_parallel(&mut d_weight, index > 0, T::one(), hidden.transposed(), d_logits);
        }
    }
    new_tensor(vec![T::of(loss / count as f64)], [1])
}

/// Sum of the rows' losses; where gradients are wanted, `logits` are replaced by those of the mean over `count`.
fn losses<T: Real>(logits: &mut [T], targets: &[i64], vocabulary: usize, count: Option<usize>) -> f64 {
    let rows = rows_per_task(targets.len(), vocabulary);
    let tasks = logits.par_chunks_mut(rows * vocabulary).zip(targets.par_chunks(rows));
    let sums: Vec<f64> = tasks
        .map(|(logits, targets)| {
            simd(|| {
                logits
                    .chunks_exact_mut(vocabulary)
                    .zip(targets)
                    .map(|(row, target)| row_loss(row, *target, count))
                    .sum()
            })
        })
        .collect();
    sums.into_iter().sum()
}

#[inline(always)]
fn row_loss<T: Real>(row: &mut [T], target: i64, count: Option<usize>) -> f64 {
    let Ok(target) = usize::try_from(target) else {
        if count.is_some() {
            row.fill(T::zero());
        }
        return 0.0;
    };
    let max = lane_max(row);
    let target_logit = row[target];
    for x in row.iter_mut() {
        *x = (*x - max).exp_lane();
    }
    let sum = lane_sum(row, |x| x);
    if let Some(count) = count {
        let weight = T::one() / T::of(count as f64);
        let scale = weight / sum;
        for x in row.iter_mut() {
            *x = *x * scale;
        }
        row[target] = row[target] - weight;
    }
    sum.wide().ln() + max.wide() - target_logit.wide()
}
