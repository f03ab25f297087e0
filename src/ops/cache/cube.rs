//! One unit a vector, or the two of a pair that turns: keys and values of all new positions in one launch, into the memory the
//! caches have.

use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{CacheOps, Heads};
use crate::ops::cube::{accumulator, element, integer, new_tensor, one_each, row_major, vector_size};

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

    fn turn_and_put(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        first: usize,
        heads: Heads,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [qkv, cos, sin, keys, values] = [qkv, cos, sin, keys, values].map(row_major);
        let ([batch, seq, _], half, capacity) = (qkv.shape().dims(), cos.shape()[1], keys.shape()[2]);
        let Heads { query, key_value } = heads;
        let client = qkv.client.clone();
        // Vectors end where halves of heads do.
        let vector = vector_size(&client, half, &[qkv.dtype, cos.dtype]);
        let queries = new_tensor(&qkv, [batch, seq, query * 2 * half], qkv.dtype);
        let units = (query + key_value) * half / vector + key_value * 2 * half / vector;
        let (count, dim) = one_each(&client, batch * seq * units);
        let types = [element(qkv.dtype), element(cos.dtype), element(accumulator(qkv.dtype))];
        cache_turn_put::launch(
            &client,
            count,
            dim,
            vector,
            qkv.into_buffer_arg(),
            cos.into_buffer_arg(),
            sin.into_buffer_arg(),
            queries.clone().into_buffer_arg(),
            keys.clone().into_buffer_arg(),
            values.clone().into_buffer_arg(),
            TurnedRowsLaunch::new(batch * seq, seq, query, key_value, capacity, half / vector),
            first,
            types,
        );
        (queries, keys, values)
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

/// Sizes, in vectors where they are not counts.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct TurnedRows {
    /// New positions of all sequences.
    count: usize,
    /// New positions of a sequence.
    seq: usize,
    /// Query heads.
    query: usize,
    /// Key-value heads.
    key_value: usize,
    /// Positions a head has room for.
    capacity: usize,
    /// Of half a head.
    half: usize,
}

/// A pair of vectors that turns, of a query or of a key, or one vector of a value.
#[cube(launch)]
fn cache_turn_put<F: Float, T: Float, A: Float, N: Size>(
    qkv: &[Vector<F, N>],
    cos: &[Vector<T, N>],
    sin: &[Vector<T, N>],
    queries: &mut [Vector<F, N>],
    keys: &mut [Vector<F, N>],
    values: &mut [Vector<F, N>],
    rows: TurnedRows,
    first: usize,
    #[define(F, T, A)] _types: [ElemType; 3],
) {
    let head = 2 * rows.half;
    let pairs = (rows.query + rows.key_value) * rows.half;
    let units = pairs + rows.key_value * head;
    let (position, unit) = (ABSOLUTE_POS / units, ABSOLUTE_POS % units);
    if position >= rows.count {
        terminate!();
    }
    let (batch, in_sequence) = (position / rows.seq, position % rows.seq);
    let from = position * (rows.query + 2 * rows.key_value) * head;
    let slot = first + in_sequence;
    if unit < pairs {
        let (which, at) = (unit / rows.half, unit % rows.half);
        let angle = slot * rows.half + at;
        let low = from + which * head + at;
        let (a, b) = (Vector::<A, N>::cast_from(qkv[low]), Vector::<A, N>::cast_from(qkv[low + rows.half]));
        let (c, s) = (Vector::<A, N>::cast_from(cos[angle]), Vector::<A, N>::cast_from(sin[angle]));
        let (a, b) = (Vector::<F, N>::cast_from(a * c - b * s), Vector::<F, N>::cast_from(b * c + a * s));
        if which < rows.query {
            let to = (position * rows.query + which) * head + at;
            queries[to] = a;
            queries[to + rows.half] = b;
        } else {
            let to = ((batch * rows.key_value + which - rows.query) * rows.capacity + slot) * head + at;
            keys[to] = a;
            keys[to + rows.half] = b;
        }
    } else {
        let value = unit - pairs;
        let to = ((batch * rows.key_value + value / head) * rows.capacity + slot) * head + value % head;
        values[to] = qkv[from + 2 * pairs + value];
    }
}
