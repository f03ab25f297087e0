//! The kernels of [`super::cube`] for one query: its keys shared out among cubes, whose parts are put together afterwards.

#![expect(clippy::too_many_lines, reason = "a kernel is one sweep: its loops share what is in registers")]
#![expect(
    clippy::collapsible_if,
    reason = "what only some kernels have is left out of the others by an `if` of its own"
)]

mod end;
mod matrices;
mod new;
mod tile;

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use end::leave;
use new::{New, as_they_are, turned};

use super::places::NEVER;
use crate::ops::cube::{next_may_begin, plane_sum_of_every, plane_sum_of_neighbours, wait_for};

pub(super) use end::attention_combine;
pub(super) use matrices::fits_matrices;
pub(super) use tile::{DecodeTile, sharing};

/// Attention of one query for each head, its position known.
#[cube(launch)]
pub(super) fn attention_decode<F: Float, A: Float, N: Size>(
    queries: &[Vector<F, N>],
    keys: &[Vector<F, N>],
    values: &[Vector<F, N>],
    partial: &mut [A],
    out: &mut [F],
    newest: usize,
    query_row: usize,
    capacity: usize,
    scale: InputScalar,
    #[comptime] tile: DecodeTile,
    #[define(F, A)] _types: [ElemType; 2],
) {
    decode_cached::<F, A, N>(
        queries,
        keys,
        values,
        partial,
        out,
        newest + 1,
        query_row,
        capacity,
        scale.get::<A>(),
        tile,
    );
}

/// Attention of one query for each head, its position in a tensor.
#[cube(launch)]
pub(super) fn attention_decode_at<F: Float, A: Float, I: Int, N: Size>(
    queries: &[Vector<F, N>],
    keys: &[Vector<F, N>],
    values: &[Vector<F, N>],
    position: &[I],
    partial: &mut [A],
    out: &mut [F],
    query_row: usize,
    capacity: usize,
    scale: InputScalar,
    #[comptime] tile: DecodeTile,
    #[define(F, A, I)] _types: [ElemType; 3],
) {
    let stored = u32::cast_from(position[0]) as usize + 1;
    decode_cached::<F, A, N>(queries, keys, values, partial, out, stored, query_row, capacity, scale.get::<A>(), tile);
}

/// The launch before may have put the newest key and value into the cache: this one does not overlap with it.
#[cube]
fn decode_cached<F: Float, A: Float, N: Size>(
    queries: &[Vector<F, N>],
    keys: &[Vector<F, N>],
    values: &[Vector<F, N>],
    partial: &mut [A],
    out: &mut [F],
    stored: usize,
    query_row: usize,
    capacity: usize,
    scale: A,
    #[comptime] tile: DecodeTile,
) {
    if comptime!(tile.on_matrices) {
        let mut passing = matrices::first_passing::<F, N>(keys, values, stored, capacity, tile);
        let query = matrices::query_as_it_is::<F, N>(queries, query_row, tile);
        let nothing = Shared::<[Vector<F, N>]>::new_aligned_slice(1usize, 16usize);
        matrices::decode_on_matrices::<F, A, N>(
            &query,
            &nothing,
            &mut passing,
            keys,
            values,
            partial,
            out,
            stored,
            capacity,
            scale,
            tile,
        );
    } else {
        let new = as_they_are::<F, A, N>(queries, query_row, scale, tile);
        decode::<F, A, N>(&new, keys, values, partial, out, stored, capacity, tile);
    }
}

/// As [`attention_decode_at`], queries and key turned to their position on the way by the tables' row of it, and key and value put into the
/// cache: all that stands between a step's projection and its attention, in one launch.
#[cube(launch)]
pub(super) fn attention_decode_turned_at<F: Float, T: Float, A: Float, I: Int, N: Size, M: Size>(
    qkv: &mut [Vector<F, N>],
    cos: &[Vector<T, M>],
    sin: &[Vector<T, M>],
    keys: &mut [Vector<F, N>],
    values: &mut [Vector<F, N>],
    position: &[I],
    partial: &mut [A],
    out: &mut [F],
    row: usize,
    capacity: usize,
    scale: InputScalar,
    #[comptime] tile: DecodeTile,
    #[define(F, T, A, I)] _types: [ElemType; 4],
) {
    let newest = u32::cast_from(position[0]) as usize;
    if comptime!(tile.on_matrices) {
        let mut passing = matrices::first_passing::<F, N>(&*keys, &*values, newest, capacity, tile);
        begin::<F, N>(qkv, tile);
        let query = matrices::query_turned::<F, T, N, M>(&*qkv, cos, sin, newest, row, tile);
        let new = matrices::put_new::<F, T, N, M>(&*qkv, cos, sin, keys, values, newest, row, capacity, tile);
        matrices::decode_on_matrices::<F, A, N>(
            &query,
            &new,
            &mut passing,
            &*keys,
            &*values,
            partial,
            out,
            newest,
            capacity,
            scale.get::<A>(),
            tile,
        );
    } else {
        begin::<F, N>(qkv, tile);
        let new = turned::<F, T, A, N, M>(&*qkv, cos, sin, newest, row, scale.get::<A>(), tile);
        decode::<F, A, N>(&new, &*keys, &*values, partial, out, newest, capacity, tile);
        put::<F, A, N>(&new, keys, values, newest, capacity, tile);
    }
}

/// Puts the new key and value into the cache, by one of the cubes that have them, and of its units one for each part.
#[cube]
fn put<F: Float, A: Float, N: Size>(
    new: &New<F, A, N>,
    keys: &mut [Vector<F, N>],
    values: &mut [Vector<F, N>],
    newest: usize,
    capacity: usize,
    #[comptime] tile: DecodeTile,
) {
    let pair = CUBE_POS_Y as usize;
    let (sharing, unit) = (comptime!(tile.sharing()), UNIT_POS as usize);
    let (head, in_head) = (pair / comptime!(tile.groups_of_head), pair % comptime!(tile.groups_of_head));
    if CUBE_POS_X == 0 && in_head == 0 && unit < sharing {
        let slot = head * capacity + newest;
        #[unroll]
        for i in 0..comptime!(tile.each()) {
            let to = slot * comptime!(tile.vectors()) + unit + i * sharing;
            keys[to] = new.key[i];
            values[to] = new.value[i];
        }
    }
}

/// Lets the next launch ask for its weights, and waits for the last one's queries.
#[cube]
fn begin<F: Float, N: Size>(queries: &mut [Vector<F, N>], #[comptime] tile: DecodeTile) {
    if comptime!(tile.overlaps) {
        next_may_begin();
        wait_for::<Vector<F, N>>(queries);
    }
}

/// Attention of a group to `stored` keys of the cache, and to what is new if that [`DecodeTile::appends`]; of some keys alone
/// `head_dim` sums of weighted values, the sum of weights and the largest score of each query head, which
/// [`attention_combine`] puts together.
///
/// Each unit sees its own keys, or its part of them, with a softmax of its own; what units have is put together at the end,
/// and nothing waits for anything before.
#[cube]
fn decode<F: Float, A: Float, N: Size>(
    new: &New<F, A, N>,
    keys: &[Vector<F, N>],
    values: &[Vector<F, N>],
    partial: &mut [A],
    out: &mut [F],
    stored: usize,
    capacity: usize,
    #[comptime] tile: DecodeTile,
) {
    let (group, vectors, vector) = comptime!((tile.group, tile.vectors(), tile.vector));
    let (sharing, each) = comptime!((tile.sharing(), tile.each()));
    let (slots, ahead) = comptime!((tile.at_once()[0], tile.at_once()[1]));
    let pair = CUBE_POS_Y as usize;
    let unit = UNIT_POS as usize;
    let (slot, place) = (unit / sharing, unit % sharing);
    let first_slot = pair / comptime!(tile.groups_of_head) * capacity;
    let start = CUBE_POS_X as usize * comptime!(tile.split_keys);
    let end = min(start + comptime!(tile.split_keys), stored + comptime!(usize::from(tile.appends)));

    let zero = Vector::<A, N>::new(A::new(0.0));
    let mut sums = Array::<Vector<A, N>>::new(comptime!(group * each));
    let mut largest = Array::<A>::new(group);
    let mut total = Array::<A>::new(group);
    #[unroll]
    for g in 0..group {
        largest[g] = A::new(NEVER);
        total[g] = A::new(0.0);
        #[unroll]
        for i in 0..each {
            sums[g * each + i] = zero;
        }
    }
    for first in range_stepped(start, end, comptime!(slots * ahead)) {
        let mut k = Array::<Vector<F, N>>::new(comptime!(ahead * each));
        let mut v = Array::<Vector<F, N>>::new(comptime!(ahead * each));
        #[unroll]
        for a in 0..ahead {
            let key = first + slot + a * slots;
            #[unroll]
            for i in 0..each {
                let mut of_key = Vector::<F, N>::new(F::new(0.0));
                let mut of_value = Vector::<F, N>::new(F::new(0.0));
                if key < min(end, stored) {
                    let at = (first_slot + key) * vectors + place + i * sharing;
                    of_key = keys[at];
                    of_value = values[at];
                } else if comptime!(tile.appends) {
                    if key < end {
                        of_key = new.key[i];
                        of_value = new.value[i];
                    }
                }
                k[a * each + i] = of_key;
                v[a * each + i] = of_value;
            }
        }
        #[unroll]
        for g in 0..group {
            let mut scores = Array::<A>::new(ahead);
            let mut new_largest = largest[g];
            #[unroll]
            for a in 0..ahead {
                let mut product = zero;
                #[unroll]
                for i in 0..each {
                    product += Vector::cast_from(k[a * each + i]) * new.queries[g * each + i];
                }
                let mut score = plane_sum_of_neighbours::<A>(product.vector_sum(), sharing);
                // Such a key weighs nothing beside any other; its value is zero.
                if first + slot + a * slots >= end {
                    score = A::new(NEVER);
                }
                scores[a] = score;
                new_largest = max(new_largest, score);
            }
            let factor = (largest[g] - new_largest).exp();
            largest[g] = new_largest;
            let mut weight_sum = total[g] * factor;
            #[unroll]
            for i in 0..each {
                sums[g * each + i] *= Vector::new(factor);
            }
            #[unroll]
            for a in 0..ahead {
                let weight = (scores[a] - new_largest).exp();
                weight_sum += weight;
                #[unroll]
                for i in 0..each {
                    sums[g * each + i] += Vector::cast_from(v[a * each + i]) * Vector::new(weight);
                }
            }
            total[g] = weight_sum;
        }
    }

    // All units take the cube's largest score for theirs, so that what they have can be added up.
    let parts = comptime!(tile.parts());
    let part = unit / comptime!(tile.team.plane);
    let in_part = unit % comptime!(tile.team.plane);
    let mut in_parts = Shared::<[A]>::new_slice(comptime!(group * parts));
    #[unroll]
    for g in 0..group {
        let most = if comptime!(tile.team.plane > 1) { plane_max(largest[g]) } else { largest[g] };
        if in_part == 0 {
            in_parts[g * parts + part] = most;
        }
    }
    sync_cube();
    let mut gathered = Shared::<[A]>::new_slice(comptime!(parts * group * vectors * vector));
    let mut totals = Shared::<[A]>::new_slice(comptime!(group * parts));
    #[unroll]
    for g in 0..group {
        let mut most = in_parts[g * parts];
        for other in 1..parts {
            most = max(most, in_parts[g * parts + other]);
        }
        let factor = (largest[g] - most).exp();
        largest[g] = most;
        // Units that share a key count it once.
        let mine = if place == 0 { total[g] * factor } else { A::new(0.0) };
        let sum = if comptime!(tile.team.plane > 1) { plane_sum(mine) } else { mine };
        if in_part == 0 {
            totals[g * parts + part] = sum;
        }
        #[unroll]
        for i in 0..each {
            let sum = sums[g * each + i] * Vector::new(factor);
            let sum = plane_sum_of_every::<A, N>(sum, sharing, comptime!(tile.team.plane));
            if in_part < sharing {
                let to = ((part * group + g) * vectors + place + i * sharing) * vector;
                #[unroll]
                for e in 0..vector {
                    gathered[to + e] = sum.extract(e);
                }
            }
        }
    }
    sync_cube();
    leave::<F, A>(&gathered, &totals, &in_parts, partial, out, tile);
}
