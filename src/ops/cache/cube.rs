//! One unit a vector: keys and values of all new positions in one launch, into the memory the caches have.

use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{CacheOps, Heads};
use crate::ops::cube::{element, integer, one_each, row_major, vector_size};

impl CacheOps for CubeBackend {
    fn put(
        qkv: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        first: usize,
        heads: Heads,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (qkv, keys, values) = (row_major(qkv), row_major(keys), row_major(values));
        let (rows, vector, work) = rows(&qkv, &keys, heads);
        let (client, float) = (qkv.client.clone(), element(qkv.dtype));
        let (count, dim) = one_each(&client, work);
        cache_put::launch(
            &client,
            count,
            dim,
            vector,
            qkv.into_buffer_arg(),
            keys.clone().into_buffer_arg(),
            values.clone().into_buffer_arg(),
            rows,
            first,
            float,
        );
        (keys, values)
    }

    fn put_at(
        qkv: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        position: IntTensor<Self>,
        heads: Heads,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (qkv, position) = (row_major(qkv), row_major(position));
        let (keys, values) = (row_major(keys), row_major(values));
        let (rows, vector, work) = rows(&qkv, &keys, heads);
        let client = qkv.client.clone();
        let types = [element(qkv.dtype), integer(position.dtype)];
        let (count, dim) = one_each(&client, work);
        cache_put_at::launch(
            &client,
            count,
            dim,
            vector,
            qkv.into_buffer_arg(),
            keys.clone().into_buffer_arg(),
            values.clone().into_buffer_arg(),
            position.into_buffer_arg(),
            rows,
            types,
        );
        (keys, values)
    }
}

/// Where keys and values come from and go to, the vector's elements, and the vectors of all new keys.
fn rows(qkv: &CubeTensor, keys: &CubeTensor, heads: Heads) -> (RowsLaunch, usize, usize) {
    let [batch, seq, width] = qkv.shape().dims();
    let [_, key_value, capacity, head_dim] = keys.shape().dims();
    let vector = vector_size(&qkv.client, head_dim, &[qkv.dtype]);
    let head = head_dim / vector;
    let rows = RowsLaunch::new(batch * seq, seq, width / vector, heads.query * head, key_value, capacity, head);
    (rows, vector, batch * seq * key_value * head)
}

/// Sizes, in vectors where they are not counts.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Rows {
    /// New positions of all sequences.
    count: usize,
    /// New positions of a sequence.
    seq: usize,
    /// Of a packed row.
    width: usize,
    /// Of the queries before the keys.
    first_key: usize,
    /// Key-value heads.
    key_value: usize,
    /// Positions a head has room for.
    capacity: usize,
    /// Of a head.
    head: usize,
}

#[cube(launch)]
fn cache_put<F: Float, N: Size>(
    qkv: &[Vector<F, N>],
    keys: &mut [Vector<F, N>],
    values: &mut [Vector<F, N>],
    rows: Rows,
    first: usize,
    #[define(F)] _type: ElemType,
) {
    write::<F, N>(qkv, keys, values, rows, first);
}

#[cube(launch)]
fn cache_put_at<F: Float, I: Int, N: Size>(
    qkv: &[Vector<F, N>],
    keys: &mut [Vector<F, N>],
    values: &mut [Vector<F, N>],
    position: &[I],
    rows: Rows,
    #[define(F, I)] _types: [ElemType; 2],
) {
    write::<F, N>(qkv, keys, values, rows, u32::cast_from(position[0]) as usize);
}

/// One vector of a key and of a value.
#[cube]
fn write<F: Float, N: Size>(
    qkv: &[Vector<F, N>],
    keys: &mut [Vector<F, N>],
    values: &mut [Vector<F, N>],
    rows: Rows,
    first: usize,
) {
    let at = ABSOLUTE_POS % rows.head;
    let head = ABSOLUTE_POS / rows.head % rows.key_value;
    let row = ABSOLUTE_POS / (rows.head * rows.key_value);
    if row >= rows.count {
        terminate!();
    }
    let (batch, position) = (row / rows.seq, first + row % rows.seq);
    let key = row * rows.width + rows.first_key + head * rows.head + at;
    let to = ((batch * rows.key_value + head) * rows.capacity + position) * rows.head + at;
    keys[to] = qkv[key];
    values[to] = qkv[key + rows.key_value * rows.head];
}
