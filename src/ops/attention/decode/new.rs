//! What a step adds: its queries, and its key and value where they are not in the cache yet.

use cubecl::prelude::*;

use super::DecodeTile;

/// A unit's part of what is new in a step.
#[derive(CubeType)]
pub(super) struct New<F: Float, A: Float, N: Size> {
    /// Of each query head, scaled.
    pub queries: Array<Vector<A, N>>,
    /// Empty if they are in the cache.
    pub key: Array<Vector<F, N>>,
    pub value: Array<Vector<F, N>>,
}

/// Queries that are turned, behind keys and values that are in the cache.
#[cube]
pub(super) fn as_they_are<F: Float, A: Float, N: Size>(
    queries: &[Vector<F, N>],
    row: usize,
    scale: A,
    #[comptime] tile: DecodeTile,
) -> New<F, A, N> {
    let (group, vectors, sharing, each) = comptime!((tile.group, tile.vectors(), tile.sharing(), tile.each()));
    let pair = CUBE_POS_Y as usize;
    let (batch, in_batch) = (pair / comptime!(tile.groups), pair % comptime!(tile.groups));
    let first = batch * row / comptime!(tile.vector) + in_batch * comptime!(group * vectors);
    let place = UNIT_POS as usize % sharing;
    let mut q = Array::<Vector<A, N>>::new(comptime!(group * each));
    #[unroll]
    for g in 0..group {
        #[unroll]
        for i in 0..each {
            let d = place + i * sharing;
            q[g * each + i] = Vector::cast_from(queries[first + g * vectors + d]) * Vector::new(scale);
        }
    }
    New::<F, A, N> { queries: q, key: Array::new(0usize), value: Array::new(0usize) }
}

/// Queries, key and value of a packed row, queries and key turned.
#[cube]
pub(super) fn turned<F: Float, T: Float, A: Float, N: Size, M: Size>(
    qkv: &[Vector<F, N>],
    cos: &[Vector<T, M>],
    sin: &[Vector<T, M>],
    position: usize,
    row: usize,
    scale: A,
    #[comptime] tile: DecodeTile,
) -> New<F, A, N> {
    let (group, vectors, sharing, each) = comptime!((tile.group, tile.vectors(), tile.sharing(), tile.each()));
    let (groups, groups_of_head) = comptime!((tile.groups, tile.groups_of_head));
    let pair = CUBE_POS_Y as usize;
    let (batch, in_batch) = (pair / groups, pair % groups);
    let first = batch * row / comptime!(tile.vector);
    let first_query = first + in_batch * comptime!(group * vectors);
    let key_at = first + comptime!(groups * group * vectors) + in_batch / groups_of_head * vectors;
    let value_at = key_at + comptime!(groups / groups_of_head * vectors);
    let place = UNIT_POS as usize % sharing;
    let mut queries = Array::<Vector<A, N>>::new(comptime!(group * each));
    let mut key = Array::<Vector<F, N>>::new(each);
    let mut value = Array::<Vector<F, N>>::new(each);
    #[unroll]
    for i in 0..each {
        let d = place + i * sharing;
        let half = comptime!(vectors / 2);
        let angle = position * half + d % half;
        let c = of_table::<T, A, N, M>(cos, angle);
        let s = of_table::<T, A, N, M>(sin, angle);
        // The first half of a head turns by the second, which turns the other way.
        let s = if d < half { -s } else { s };
        #[unroll]
        for g in 0..group {
            let query = turn::<F, A, N>(qkv, first_query + g * vectors, d, c, s, vectors);
            queries[g * each + i] = Vector::cast_from(query) * Vector::new(scale);
        }
        key[i] = turn::<F, A, N>(qkv, key_at, d, c, s, vectors);
        value[i] = qkv[value_at + d];
    }
    New::<F, A, N> { queries, key, value }
}

/// Vector `d` of the head that begins at `first`, turned.
#[cube]
pub(super) fn turn<F: Float, A: Float, N: Size>(
    qkv: &[Vector<F, N>],
    first: usize,
    d: usize,
    c: Vector<A, N>,
    s: Vector<A, N>,
    #[comptime] vectors: usize,
) -> Vector<F, N> {
    let partner = (d + comptime!(vectors / 2)) % vectors;
    let (a, b) = (Vector::<A, N>::cast_from(qkv[first + d]), Vector::<A, N>::cast_from(qkv[first + partner]));
    Vector::cast_from(a * c + b * s)
}

/// Vector `at` of a table whose own vectors may be shorter.
#[cube]
pub(super) fn of_table<T: Float, A: Float, N: Size, M: Size>(table: &[Vector<T, M>], at: usize) -> Vector<A, N> {
    let mut whole = Vector::<A, N>::new(A::new(0.0));
    let width = M::value().comptime();
    let parts = N::value().comptime() / width;
    #[unroll]
    for part in 0..parts {
        let some = table[at * parts + part];
        #[unroll]
        for e in 0..width {
            whole.insert(comptime!(part * width + e), A::cast_from(some.extract(e)));
        }
    }
    whole
}
