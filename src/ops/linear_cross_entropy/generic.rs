use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings};
use burn::tensor::{IndexingUpdateOp, Shape, Slice};

use super::chunk_rows;
use crate::ops::primitive::{narrow, rounded, widened};

/// What one chunk contributes, in at least 32 bits: its summed loss `[1]`, and the gradient of its logits
/// `[rows, vocabulary]`.
struct Chunk<B: Backend> {
    loss: FloatTensor<B>,
    d_logits: FloatTensor<B>,
}

fn chunk<B: Backend>(logits: FloatTensor<B>, targets: IntTensor<B>, count: usize) -> Chunk<B> {
    let device = logits.device();
    let settings = get_or_init_device_settings::<B>(&device);
    let dtype = logits.dtype().into();
    let rows = targets.shape()[0];
    let targets = B::int_reshape(targets, Shape::new([rows, 1]));
    let counted = B::int_greater_equal_elem(targets.clone(), 0.into(), settings.bool_dtype);
    let weight = B::float_mul_scalar(B::bool_into_float(counted, dtype), (1.0 / count as f64).into());
    let targets = B::int_clamp_min(targets, 0.into());

    let max = B::float_max_dim(logits.clone(), 1);
    let shifted = B::float_sub(logits, max);
    let exp = B::float_exp(shifted.clone());
    let sum = B::float_sum_dim(exp.clone(), 1);
    let log_probability = B::float_sub(B::float_gather(1, shifted, targets.clone()), B::float_log(sum.clone()));
    let loss = B::float_neg(B::float_sum(B::float_mul(log_probability, weight.clone())));
    let p = B::float_div(exp, sum);
    let minus_one = B::float_neg(B::float_ones(Shape::new([rows, 1]), &device, dtype));
    let d_logits = B::float_mul(B::float_scatter(1, p, targets, minus_one, IndexingUpdateOp::Add), weight);
    Chunk { loss: B::float_reshape(loss, Shape::new([1])), d_logits }
}

/// Calls `visit` with every chunk of rows and its hidden states.
fn sweep<B: Backend>(
    hidden: FloatTensor<B>,
    weight: &FloatTensor<B>,
    targets: &IntTensor<B>,
    count: usize,
    mut visit: impl FnMut(FloatTensor<B>, Chunk<B>),
) {
    let rows = hidden.shape()[0];
    let step = chunk_rows(weight.shape()[1]);
    for first in (0..rows).step_by(step) {
        let range = first..rows.min(first + step);
        let hidden = narrow::<B>(hidden.clone(), 0, range.clone());
        let targets = B::int_slice(targets.clone(), &[Slice::from(range)]);
        let logits = widened::<B>(B::float_matmul(hidden.clone(), weight.clone()));
        visit(hidden, chunk::<B>(logits, targets, count));
    }
}

pub(super) fn forward<B: Backend>(
    hidden: FloatTensor<B>,
    weight: FloatTensor<B>,
    targets: IntTensor<B>,
    count: usize,
) -> FloatTensor<B> {
    let mut total: Option<FloatTensor<B>> = None;
    sweep::<B>(hidden, &weight, &targets, count, |_, chunk| total = Some(add::<B>(total.take(), chunk.loss)));
    total.expect("at least one row")
}

pub(super) fn with_gradients<B: Backend>(
    hidden: FloatTensor<B>,
    weight: FloatTensor<B>,
    targets: IntTensor<B>,
    count: usize,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (mut loss, mut d_weight, mut d_hidden) = (None, None, Vec::new());
    sweep::<B>(hidden, &weight, &targets, count, |hidden, chunk| {
        loss = Some(add::<B>(loss.take(), chunk.loss));
        let d_logits = rounded::<B>(chunk.d_logits, weight.dtype());
        let part = B::float_matmul(B::float_transpose(hidden), d_logits.clone());
        d_weight = Some(add::<B>(d_weight.take(), widened::<B>(part)));
        d_hidden.push(B::float_matmul(d_logits, B::float_transpose(weight.clone())));
    });
    let d_weight = rounded::<B>(d_weight.expect("at least one row"), weight.dtype());
    (loss.expect("at least one row"), B::float_cat(d_hidden, 0), d_weight)
}

fn add<B: Backend>(total: Option<FloatTensor<B>>, part: FloatTensor<B>) -> FloatTensor<B> {
    match total {
        Some(total) => B::float_add(total, part),
        None => part,
    }
}
