use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings};
use burn::tensor::Shape;

use super::Heads;
use crate::ops::primitive::{last_dim, narrow, rounded, widened};

/// `[batch, seq, heads * head_dim]` to `[batch * key_value, heads / key_value, seq, head_dim]`.
fn grouped<B: Backend>(x: FloatTensor<B>, heads: usize, key_value: usize) -> FloatTensor<B> {
    let [batch, seq, width] = x.shape().dims();
    let x = B::float_swap_dims(B::float_reshape(x, Shape::new([batch, seq, heads, width / heads])), 1, 2);
    B::float_reshape(x, Shape::new([batch * key_value, heads / key_value, seq, width / heads]))
}

/// Inverse of [`grouped`].
fn ungrouped<B: Backend>(x: FloatTensor<B>, batch: usize) -> FloatTensor<B> {
    let [outer, group, seq, head_dim] = x.shape().dims();
    let heads = outer * group / batch;
    let x = B::float_swap_dims(B::float_reshape(x, Shape::new([batch, heads, seq, head_dim])), 1, 2);
    B::float_reshape(x, Shape::new([batch, seq, heads * head_dim]))
}

fn split<B: Backend>(qkv: FloatTensor<B>, heads: Heads) -> [FloatTensor<B>; 3] {
    let head_dim = qkv.shape()[2] / heads.packed();
    let bounds = [0, heads.query, heads.query + heads.key_value, heads.packed()].map(|head| head * head_dim);
    let part =
        |i: usize, count| grouped::<B>(last_dim::<B>(qkv.clone(), bounds[i]..bounds[i + 1]), count, heads.key_value);
    [part(0, heads.query), part(1, heads.key_value), part(2, heads.key_value)]
}

/// The query heads of a group as further rows of one head, `[outer, 1, group * seq, head_dim]`: products with their one
/// key-value head then broadcast nothing, which CubeCL 0.11's tuned products do not always survive.
fn folded<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let [outer, group, seq, head_dim] = x.shape().dims();
    B::float_reshape(x, Shape::new([outer, 1, group * seq, head_dim]))
}

/// Inverse of [`folded`].
fn unfolded<B: Backend>(x: FloatTensor<B>, group: usize) -> FloatTensor<B> {
    let [outer, _, rows, head_dim] = x.shape().dims();
    B::float_reshape(x, Shape::new([outer, group, rows / group, head_dim]))
}

/// True where a key comes after the query, `[outer, 1, group * seq, keys]`; the queries are the last `seq` positions.
/// A single query sees everything and needs none.
fn later_keys<B: Backend>(q: &FloatTensor<B>, keys: usize) -> Option<BoolTensor<B>> {
    let [outer, group, seq, _] = q.shape().dims();
    if seq == 1 {
        return None;
    }
    let device = q.device();
    let settings = get_or_init_device_settings::<B>(&device);
    let positions = |range: std::ops::Range<usize>, shape: [usize; 3]| {
        let range = range.start as i64..range.end as i64;
        B::int_reshape(B::int_arange(range, &device, settings.int_dtype), Shape::new(shape))
    };
    let rows = positions(keys - seq..keys, [1, seq, 1]);
    let later = B::int_lower(rows, positions(0..keys, [1, 1, keys]), settings.bool_dtype);
    let later = B::bool_expand(later, Shape::new([group, seq, keys]));
    let later = B::bool_reshape(later, Shape::new([1, 1, group * seq, keys]));
    Some(B::bool_expand(later, Shape::new([outer, 1, group * seq, keys])))
}

/// Attention of grouped queries on their key-value heads, its scores materialised: on an H200 CubeCL 0.11's own
/// attention, given a mask, takes a hundred times as long.
fn attend<B: Backend>(q: FloatTensor<B>, k: FloatTensor<B>, v: FloatTensor<B>) -> FloatTensor<B> {
    let (group, later, dtype) = (q.shape()[1], later_keys::<B>(&q, k.shape()[2]), q.dtype());
    let p = weights::<B>(folded::<B>(q), k, later);
    unfolded::<B>(B::float_matmul(rounded::<B>(p, dtype), v), group)
}

/// `softmax(mask(q k^T / sqrt(head_dim)))` in at least 32 bits, `[outer, 1, rows, keys]`.
fn weights<B: Backend>(q: FloatTensor<B>, k: FloatTensor<B>, later: Option<BoolTensor<B>>) -> FloatTensor<B> {
    let scale = scale(q.shape()[3]);
    let scores = B::float_mul_scalar(widened::<B>(B::float_matmul(q, B::float_transpose(k))), scale.into());
    softmax::<B>(match later {
        Some(later) => B::float_mask_fill(scores, later, f32::NEG_INFINITY.into()),
        None => scores,
    })
}

fn scale(head_dim: usize) -> f64 {
    1.0 / (head_dim as f64).sqrt()
}

pub(super) fn forward<B: Backend>(qkv: FloatTensor<B>, heads: Heads) -> FloatTensor<B> {
    let batch = qkv.shape()[0];
    let [q, k, v] = split::<B>(qkv, heads);
    ungrouped::<B>(attend::<B>(q, k, v), batch)
}

pub(super) fn cached<B: Backend>(
    queries: FloatTensor<B>,
    keys: FloatTensor<B>,
    values: FloatTensor<B>,
    length: usize,
    heads: Heads,
) -> FloatTensor<B> {
    let [batch, key_value, _, head_dim] = keys.shape().dims();
    let filled = |cache: FloatTensor<B>| {
        B::float_reshape(narrow::<B>(cache, 2, 0..length), Shape::new([batch * key_value, 1, length, head_dim]))
    };
    let q = grouped::<B>(last_dim::<B>(queries, 0..heads.query * head_dim), heads.query, heads.key_value);
    ungrouped::<B>(attend::<B>(q, filled(keys), filled(values)), batch)
}

/// Attention of one position whose number is in `position [1]`: all slots are scored, those behind it hidden.
pub(super) fn at<B: Backend>(
    queries: FloatTensor<B>,
    keys: FloatTensor<B>,
    values: FloatTensor<B>,
    position: IntTensor<B>,
    heads: Heads,
) -> FloatTensor<B> {
    let [batch, key_value, capacity, head_dim] = keys.shape().dims();
    let (outer, group, dtype, device) = (batch * key_value, heads.group(), keys.dtype(), keys.device());
    let settings = get_or_init_device_settings::<B>(&device);
    let slots = B::int_arange(0..capacity as i64, &device, settings.int_dtype);
    let position = B::int_expand(B::int_cast(position, settings.int_dtype), Shape::new([capacity]));
    let later = B::bool_reshape(B::int_greater(slots, position, settings.bool_dtype), Shape::new([1, 1, 1, capacity]));
    let later = B::bool_expand(later, Shape::new([outer, 1, group, capacity]));
    let q = last_dim::<B>(queries, 0..heads.query * head_dim);
    let q = B::float_reshape(q, Shape::new([outer, 1, group, head_dim]));
    let all = |cache| B::float_reshape(cache, Shape::new([outer, 1, capacity, head_dim]));
    let p = weights::<B>(q, all(keys), Some(later));
    let attended = B::float_matmul(rounded::<B>(p, dtype), all(values));
    B::float_reshape(attended, Shape::new([batch, 1, heads.query * head_dim]))
}

pub(super) fn backward<B: Backend>(qkv: FloatTensor<B>, gradient: FloatTensor<B>, heads: Heads) -> FloatTensor<B> {
    let batch = qkv.shape()[0];
    let [q, k, v] = split::<B>(qkv, heads);
    let [_, group, seq, head_dim] = q.shape().dims();
    let later = later_keys::<B>(&q, seq);
    let (q, gradient) = (folded::<B>(q), folded::<B>(grouped::<B>(gradient, heads.query, heads.key_value)));
    let dtype = q.dtype();

    let p = weights::<B>(q.clone(), k.clone(), later);
    let d_p = widened::<B>(B::float_matmul(gradient.clone(), B::float_transpose(v)));
    let weighted = B::float_sum_dim(B::float_mul(p.clone(), d_p.clone()), 3);
    let d_s = B::float_mul_scalar(B::float_mul(p.clone(), B::float_sub(d_p, weighted)), scale(head_dim).into());
    let (p, d_s) = (rounded::<B>(p, dtype), rounded::<B>(d_s, dtype));
    let d_q = unfolded::<B>(B::float_matmul(d_s.clone(), k), group);
    // The rows of a whole group: these products sum over it.
    let d_k = B::float_matmul(B::float_transpose(d_s), q);
    let d_v = B::float_matmul(B::float_transpose(p), gradient);
    B::float_cat([d_q, d_k, d_v].map(|x| ungrouped::<B>(x, batch)).to_vec(), 2)
}

/// Softmax over the last dimension.
fn softmax<B: Backend>(scores: FloatTensor<B>) -> FloatTensor<B> {
    let max = B::float_max_dim(scores.clone(), 3);
    let exp = B::float_exp(B::float_sub(scores, max));
    B::float_div(exp.clone(), B::float_sum_dim(exp, 3))
}
