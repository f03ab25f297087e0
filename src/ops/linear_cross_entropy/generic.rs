use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings};
use burn::tensor::{IndexingUpdateOp, Shape, Slice};

use super::{CHUNK_ELEMENTS, chunk_rows};
use crate::ops::primitive::{narrow, rounded, widened};

/// What one chunk contributes: its summed loss `[1]` in at least 32 bits, and the gradient of its logits
/// `[rows, vocabulary]`.
pub(super) struct Chunk<B: Backend> {
    pub loss: FloatTensor<B>,
    pub d_logits: FloatTensor<B>,
}

pub(super) fn chunk<B: Backend>(logits: FloatTensor<B>, targets: IntTensor<B>, count: usize) -> Chunk<B> {
    let logits = widened::<B>(logits);
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

/// The product of two matrices, added to a sum if there is one yet, in at least 32 bits.
pub(super) fn grown<B: Backend>(sum: Option<FloatTensor<B>>, a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    add::<B>(sum, widened::<B>(B::float_matmul(a, b)))
}

/// Calls `visit` with every chunk of `rows_at_once` rows and its hidden states.
fn sweep<B: Backend>(
    hidden: FloatTensor<B>,
    weight: &FloatTensor<B>,
    targets: &IntTensor<B>,
    rows_at_once: usize,
    product: impl Fn(FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>,
    mut visit: impl FnMut(FloatTensor<B>, FloatTensor<B>, IntTensor<B>),
) {
    let rows = hidden.shape()[0];
    for first in (0..rows).step_by(rows_at_once) {
        let range = first..rows.min(first + rows_at_once);
        let all = range.len() == rows;
        let hidden = if all { hidden.clone() } else { narrow::<B>(hidden.clone(), 0, range.clone()) };
        let targets = if all { targets.clone() } else { B::int_slice(targets.clone(), &[Slice::from(range)]) };
        let logits = product(hidden.clone(), weight.clone());
        visit(hidden, logits, targets);
    }
}

pub(super) fn forward<B: Backend>(
    hidden: FloatTensor<B>,
    weight: FloatTensor<B>,
    targets: IntTensor<B>,
    count: usize,
) -> FloatTensor<B> {
    let rows = chunk_rows(CHUNK_ELEMENTS, weight.shape()[1]);
    forward_in_chunks::<B>(hidden, weight, targets, rows, B::float_matmul, |logits, targets| {
        chunk::<B>(logits, targets, count).loss
    })
}

pub(super) fn with_gradients<B: Backend>(
    hidden: FloatTensor<B>,
    weight: FloatTensor<B>,
    targets: IntTensor<B>,
    count: usize,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let rows = chunk_rows(CHUNK_ELEMENTS, weight.shape()[1]);
    gradients_in_chunks::<B>(hidden, weight, targets, rows, B::float_matmul, grown::<B>, |logits, targets| {
        chunk::<B>(logits, targets, count)
    })
}

/// The loss, a chunk's part of it made by `loss`.
pub(super) fn forward_in_chunks<B: Backend>(
    hidden: FloatTensor<B>,
    weight: FloatTensor<B>,
    targets: IntTensor<B>,
    rows_at_once: usize,
    product: impl Fn(FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>,
    loss: impl Fn(FloatTensor<B>, IntTensor<B>) -> FloatTensor<B>,
) -> FloatTensor<B> {
    let mut total: Option<FloatTensor<B>> = None;
    sweep::<B>(hidden, &weight, &targets, rows_at_once, product, |_, logits, targets| {
        total = Some(add::<B>(total.take(), loss(logits, targets)));
    });
    total.expect("at least one row")
}

/// As [`forward_in_chunks`], with the gradients of `hidden` and `weight`; `chunk` makes those of its logits too, and `grow` is
/// [`grown`] or the backend's own.
pub(super) fn gradients_in_chunks<B: Backend>(
    hidden: FloatTensor<B>,
    weight: FloatTensor<B>,
    targets: IntTensor<B>,
    rows_at_once: usize,
    product: impl Fn(FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>,
    grow: impl Fn(Option<FloatTensor<B>>, FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>,
    chunk: impl Fn(FloatTensor<B>, IntTensor<B>) -> Chunk<B>,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (mut loss, mut d_weight, mut d_hidden) = (None, None, Vec::new());
    let several = hidden.shape()[0] > rows_at_once;
    sweep::<B>(hidden, &weight, &targets, rows_at_once, &product, |hidden, logits, targets| {
        let chunk = chunk(logits, targets);
        loss = Some(add::<B>(loss.take(), chunk.loss));
        let d_logits = rounded::<B>(chunk.d_logits, weight.dtype());
        let (left, right) = (B::float_transpose(hidden), d_logits.clone());
        // Sums of parts, but not a single one, want more bits than products.
        d_weight = Some(if several { grow(d_weight.take(), left, right) } else { product(left, right) });
        d_hidden.push(product(d_logits, B::float_transpose(weight.clone())));
    });
    let d_weight = rounded::<B>(d_weight.expect("at least one row"), weight.dtype());
    let d_hidden = if several { B::float_cat(d_hidden, 0) } else { d_hidden.pop().expect("at least one row") };
    (loss.expect("at least one row"), d_hidden, d_weight)
}

fn add<B: Backend>(total: Option<FloatTensor<B>>, part: FloatTensor<B>) -> FloatTensor<B> {
    match total {
        Some(total) => B::float_add(total, part),
        None => part,
    }
}
