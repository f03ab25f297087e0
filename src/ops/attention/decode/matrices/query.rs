//! What a step adds, as matrix units' kernel has it: each unit's part of its head's query, and a new key and value.

use cubecl::prelude::*;

use super::super::DecodeTile;
use super::super::new::{of_table, turn};
use super::{WIDE, places};

/// A unit's vectors of its head's query, as they are.
#[cube]
pub(in super::super) fn query_as_it_is<F: Float, N: Size>(
    queries: &[Vector<F, N>],
    row: usize,
    #[comptime] tile: DecodeTile,
) -> Array<Vector<F, N>> {
    let (_, t) = places();
    let at = query_at(row, tile) + t;
    let mut query = Array::<Vector<F, N>>::new(comptime!(tile.of_key()));
    #[unroll]
    for s in 0..comptime!(tile.of_key()) {
        query[s] = queries[at + 4 * s];
    }
    query
}

/// The same, turned.
#[cube]
pub(in super::super) fn query_turned<F: Float, T: Float, N: Size, M: Size>(
    qkv: &[Vector<F, N>],
    cos: &[Vector<T, M>],
    sin: &[Vector<T, M>],
    position: usize,
    row: usize,
    #[comptime] tile: DecodeTile,
) -> Array<Vector<F, N>> {
    let (_, t) = places();
    let at = query_at(row, tile);
    let mut query = Array::<Vector<F, N>>::new(comptime!(tile.of_key()));
    #[unroll]
    for s in 0..comptime!(tile.of_key()) {
        query[s] = turned_vector::<F, T, N, M>(qkv, at, 4 * s + t, cos, sin, position, tile);
    }
    query
}

/// Where a unit's query begins. Columns of the right factor beyond the last head are the last, too; nobody reads their sums.
#[cube]
fn query_at(row: usize, #[comptime] tile: DecodeTile) -> usize {
    let (g, _) = places();
    let pair = CUBE_POS_Y as usize;
    let (batch, in_batch) = (pair / comptime!(tile.groups), pair % comptime!(tile.groups));
    let head = in_batch * comptime!(tile.group) + min(g, comptime!(tile.group - 1));
    batch * row / WIDE + head * comptime!(tile.vectors())
}

#[cube]
fn turned_vector<F: Float, T: Float, N: Size, M: Size>(
    qkv: &[Vector<F, N>],
    first: usize,
    d: usize,
    cos: &[Vector<T, M>],
    sin: &[Vector<T, M>],
    position: usize,
    #[comptime] tile: DecodeTile,
) -> Vector<F, N> {
    let half = comptime!(tile.vectors() / 2);
    let angle = position * half + d % half;
    let c = of_table::<T, f32, N, M>(cos, angle);
    let s = of_table::<T, f32, N, M>(sin, angle);
    // The first half of a head turns by the second, which turns the other way.
    let s = if d < half { -s } else { s };
    turn::<F, f32, N>(qkv, first, d, c, s, comptime!(tile.vectors()))
}

/// Leaves the new key, turned, and behind it the new value in the cube's memory, and has one cube put them into the cache, where
/// nobody reads them yet.
#[cube]
pub(in super::super) fn put_new<F: Float, T: Float, N: Size, M: Size>(
    qkv: &[Vector<F, N>],
    cos: &[Vector<T, M>],
    sin: &[Vector<T, M>],
    keys: &mut [Vector<F, N>],
    values: &mut [Vector<F, N>],
    position: usize,
    row: usize,
    capacity: usize,
    #[comptime] tile: DecodeTile,
) -> Shared<[Vector<F, N>]> {
    let (vectors, groups) = comptime!((tile.vectors(), tile.groups));
    let mut new = Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(2 * vectors), 16usize);
    let (pair, unit) = (CUBE_POS_Y as usize, UNIT_POS as usize);
    let key_from = pair / groups * row / WIDE + comptime!(groups * tile.group * vectors) + pair % groups * vectors;
    let to = (pair * capacity + position) * vectors + unit % vectors;
    if unit < vectors {
        let key = turned_vector::<F, T, N, M>(qkv, key_from, unit, cos, sin, position, tile);
        new[unit] = key;
        if CUBE_POS_X == 0 {
            keys[to] = key;
        }
    } else if unit < comptime!(2 * vectors) {
        let value = qkv[key_from + comptime!(groups * vectors) + unit - vectors];
        new[unit] = value;
        if CUBE_POS_X == 0 {
            values[to] = value;
        }
    }
    sync_cube();
    new
}
