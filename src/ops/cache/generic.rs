use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{IndexingUpdateOp, Shape, Slice};

use super::Heads;
use crate::ops::primitive::last_dim;
use crate::ops::rope::{RopeOps, Turn};

pub(super) fn put<B: Backend>(
    qkv: FloatTensor<B>,
    keys: FloatTensor<B>,
    values: FloatTensor<B>,
    first: usize,
    heads: Heads,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [batch, key_value, _, head_dim] = keys.shape().dims();
    let seq = qkv.shape()[1];
    let places = [0..batch, 0..key_value, first..first + seq, 0..head_dim].map(Slice::from);
    let [new_keys, new_values] = by_head::<B>(qkv, head_dim, heads);
    (B::float_slice_assign(keys, &places, new_keys), B::float_slice_assign(values, &places, new_values))
}

pub(super) fn put_at<B: Backend>(
    qkv: FloatTensor<B>,
    keys: FloatTensor<B>,
    values: FloatTensor<B>,
    position: IntTensor<B>,
    heads: Heads,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [new_keys, new_values] = by_head::<B>(qkv, keys.shape()[3], heads);
    let written = |all, new| B::float_select_assign(all, 2, position.clone(), new, IndexingUpdateOp::Assign);
    (written(keys, new_keys), written(values, new_values))
}

/// New keys and values, `[batch, key_value, seq, head_dim]` each.
fn by_head<B: Backend>(qkv: FloatTensor<B>, head_dim: usize, heads: Heads) -> [FloatTensor<B>; 2] {
    let [batch, seq, _] = qkv.shape().dims();
    [heads.query, heads.query + heads.key_value].map(|first| {
        let part = last_dim::<B>(qkv.clone(), first * head_dim..(first + heads.key_value) * head_dim);
        B::float_swap_dims(B::float_reshape(part, Shape::new([batch, seq, heads.key_value, head_dim])), 1, 2)
    })
}

/// The queries of `qkv`, and all of it, turned.
pub(super) fn turned<B: RopeOps>(
    qkv: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    row: usize,
    heads: Heads,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let head_dim = qkv.shape()[2] / heads.packed();
    let qkv = B::rope(qkv, cos, sin, heads.query + heads.key_value, row, Turn::Forward);
    (last_dim::<B>(qkv.clone(), 0..heads.query * head_dim), qkv)
}
