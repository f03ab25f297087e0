//! Keys and values of all new positions in one launch, into the memory the caches have.

use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{CacheOps, Heads};
use crate::ops::cube::{
    Norm, NormRows, Shares, accumulator, element, integer, item_of, new_tensor, norm_rows, one_each, row_factor,
    row_major, row_of, vector_size,
};
use crate::ops::rope::cube::{
    PAIRS, Rows as TurnedRows, RowsLaunch as TurnedRowsLaunch, Turning, ask, pair_at, vector,
};

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
        turn_and_put(qkv, [cos, sin], [keys, values], first, heads, None)
    }
}

/// [`CacheOps::turn_and_put`], each row divided by the root mean square of that of `norm`, if there is one.
pub(in crate::ops) fn turn_and_put(
    qkv: CubeTensor,
    tables: [CubeTensor; 2],
    caches: [CubeTensor; 2],
    first: usize,
    heads: Heads,
    norm: Option<Norm>,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let (qkv, [cos, sin], [keys, values]) = (row_major(qkv), tables.map(row_major), caches.map(row_major));
    let norm = norm.map(|(rows, eps)| (row_major(rows), eps));
    let ([batch, seq, width], half, capacity) = (qkv.shape().dims(), cos.shape()[1], keys.shape()[2]);
    let Heads { query, key_value } = heads;
    let client = qkv.client.clone();
    let vector = vector(&qkv, &cos, norm.as_ref());
    let (norms, (norm, norm_rows)) = (norm.is_some(), norm_rows(norm, &qkv, vector));
    let queries = new_tensor(&qkv, [batch, seq, query * 2 * half], qkv.dtype);
    let (half, width) = (half / vector, width / vector);
    let pairs = (query + key_value) * half;
    let shares = Shares::new(&client, width - pairs, PAIRS);
    let types = [element(qkv.dtype), element(cos.dtype), element(accumulator(qkv.dtype))];
    let (count, dim) = shares.cubes(&client, batch * seq);
    cache_turn_put::launch(
        &client,
        count,
        dim,
        vector,
        qkv.into_buffer_arg(),
        cos.into_buffer_arg(),
        sin.into_buffer_arg(),
        norm.into_buffer_arg(),
        queries.clone().into_buffer_arg(),
        keys.clone().into_buffer_arg(),
        values.clone().into_buffer_arg(),
        TurnedRowsLaunch::new(batch * seq, seq, width, pairs),
        norm_rows,
        CachesLaunch::new(query, key_value, capacity),
        first,
        half,
        norms,
        shares,
        types,
    );
    (queries, keys, values)
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

/// What the caches have.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Caches {
    /// Query heads.
    query: usize,
    /// Key-value heads.
    key_value: usize,
    /// Positions a head has room for.
    capacity: usize,
}

/// As `rope_rotate`: each unit some pairs of vectors of a query or of a key, or vectors of a value.
#[cube(launch)]
fn cache_turn_put<F: Float, T: Float, A: Float, N: Size>(
    qkv: &[Vector<F, N>],
    cos: &[Vector<T, N>],
    sin: &[Vector<T, N>],
    norm: &[Vector<F, N>],
    queries: &mut [Vector<F, N>],
    keys: &mut [Vector<F, N>],
    values: &mut [Vector<F, N>],
    rows: TurnedRows,
    norm_rows: NormRows,
    caches: Caches,
    first: usize,
    #[comptime] half: usize,
    #[comptime] norms: bool,
    #[comptime] shares: Shares,
    #[define(F, T, A)] _types: [ElemType; 3],
) {
    let (row, first_item) = (row_of(shares), item_of(shares));
    if row >= rows.count {
        terminate!();
    }
    let (items, each, units, head) = comptime!((shares.items, shares.each, shares.units(), 2 * half));
    let (batch, slot) = (row / rows.seq, first + row % rows.seq);
    let mut asked = Sequence::<Turning<F, T, N>>::new();
    #[unroll]
    for i in 0..each {
        let item = min(first_item + i * units, items - 1);
        asked.push(ask::<F, T, N>(qkv, cos, sin, pair_at(item, row, first, &rows, half)));
    }
    let r = row_factor::<F, A, N>(norm, row, &norm_rows, norms, shares);
    #[unroll]
    for i in 0..each {
        let item = first_item + i * units;
        let turning = asked.index(i);
        let (a, b) = (Vector::<A, N>::cast_from(turning.a) * r, Vector::<A, N>::cast_from(turning.b) * r);
        if item < rows.pairs {
            let (c, s) = (Vector::<A, N>::cast_from(turning.cos), Vector::<A, N>::cast_from(turning.sin));
            let (a, b) = (Vector::cast_from(a * c - b * s), Vector::cast_from(b * c + a * s));
            let (which, at) = (item / half, item % half);
            if which < caches.query {
                let to = (row * caches.query + which) * head + at;
                queries[to] = a;
                queries[to + half] = b;
            } else {
                let to = ((batch * caches.key_value + which - caches.query) * caches.capacity + slot) * head + at;
                keys[to] = a;
                keys[to + half] = b;
            }
        } else if item < items {
            let value = item - rows.pairs;
            let to = ((batch * caches.key_value + value / head) * caches.capacity + slot) * head + value % head;
            values[to] = Vector::cast_from(a);
        }
    }
}
