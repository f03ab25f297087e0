use burn::backend::ops::AttentionModuleOptions;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings};
use burn::tensor::Shape;

use super::Heads;
use crate::ops::primitive::{last_dim, narrow};

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

/// Burn's attention; the one key-value head of a group is a broadcast view, not a copy for each query head.
fn attend<B: Backend>(q: FloatTensor<B>, k: FloatTensor<B>, v: FloatTensor<B>) -> FloatTensor<B> {
    let [outer, group, _, head_dim] = q.shape().dims();
    let shape = Shape::new([outer, group, k.shape()[2], head_dim]);
    let (k, v) = (B::float_expand(k, shape.clone()), B::float_expand(v, shape));
    let options = AttentionModuleOptions { is_causal: true, ..AttentionModuleOptions::default() };
    B::attention(q, k, v, None, None, options)
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

pub(super) fn backward<B: Backend>(qkv: FloatTensor<B>, gradient: FloatTensor<B>, heads: Heads) -> FloatTensor<B> {
    let batch = qkv.shape()[0];
    let [q, k, v] = split::<B>(qkv, heads);
    let gradient = grouped::<B>(gradient, heads.query, heads.key_value);
    let [_, _, seq, head_dim] = q.shape().dims();
    let scale = 1.0 / (head_dim as f64).sqrt();

    let scores = B::float_mul_scalar(B::float_matmul(q.clone(), B::float_transpose(k.clone())), scale.into());
    let p = causal_softmax::<B>(scores, seq);
    let d_p = B::float_matmul(gradient.clone(), B::float_transpose(v));
    let weighted = B::float_sum_dim(B::float_mul(p.clone(), d_p.clone()), 3);
    let d_s = B::float_mul_scalar(B::float_mul(p.clone(), B::float_sub(d_p, weighted)), scale.into());
    let d_q = B::float_matmul(d_s.clone(), k);
    let over_group = |x: FloatTensor<B>| B::float_sum_dim(x, 1);
    let d_k = over_group(B::float_matmul(B::float_transpose(d_s), q));
    let d_v = over_group(B::float_matmul(B::float_transpose(p), gradient));
    B::float_cat([d_q, d_k, d_v].map(|x| ungrouped::<B>(x, batch)).to_vec(), 2)
}

/// Softmax over the last dimension of square scores, later positions masked.
fn causal_softmax<B: Backend>(scores: FloatTensor<B>, seq: usize) -> FloatTensor<B> {
    let device = scores.device();
    let settings = get_or_init_device_settings::<B>(&device);
    let positions = B::int_arange(0..seq as i64, &device, settings.int_dtype);
    let rows = B::int_reshape(positions.clone(), Shape::new([seq, 1]));
    let mask = B::int_lower(rows, B::int_reshape(positions, Shape::new([1, seq])), settings.bool_dtype);
    let mask = B::bool_expand(B::bool_reshape(mask, Shape::new([1, 1, seq, seq])), scores.shape());
    let scores = B::float_mask_fill(scores, mask, f32::NEG_INFINITY.into());
    let max = B::float_max_dim(scores.clone(), 3);
    let exp = B::float_exp(B::float_sub(scores, max));
    B::float_div(exp.clone(), B::float_sum_dim(exp, 3))
}
