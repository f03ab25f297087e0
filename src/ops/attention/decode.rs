//! The kernels of [`super::cube`] for one query: its keys shared out among cubes, whose parts are put together afterwards.

#![expect(clippy::too_many_lines, reason = "a kernel is one sweep: its loops share what is in registers")]

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::places::NEVER;
use crate::ops::cube::{Team, cube_max, cube_sum};

/// What one cube of a decode step works on: query heads that share a key-value head, and some of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct DecodeTile {
    pub team: Team,
    /// Query heads.
    pub group: usize,
    /// Groups of a sequence, and of a key-value head.
    pub groups: usize,
    pub groups_of_head: usize,
    pub head_dim: usize,
    /// Cubes that share the keys of a head.
    pub splits: usize,
    /// Keys of each.
    pub split_keys: usize,
}

/// Attention of one query for each head, its position known.
#[cube(launch)]
pub(super) fn attention_decode<F: Float, A: Float, N: Size>(
    queries: &[Vector<F, N>],
    keys: &[Vector<F, N>],
    values: &[Vector<F, N>],
    partial: &mut [A],
    out: &mut [Vector<F, N>],
    newest: usize,
    query_row: usize,
    capacity: usize,
    scale: InputScalar,
    #[comptime] tile: DecodeTile,
    #[define(F, A)] _types: [ElemType; 2],
) {
    decode::<F, A, N>(queries, keys, values, partial, out, newest, query_row, capacity, scale.get::<A>(), tile);
}

/// Attention of one query for each head, its position in a tensor.
#[cube(launch)]
pub(super) fn attention_decode_at<F: Float, A: Float, I: Int, N: Size>(
    queries: &[Vector<F, N>],
    keys: &[Vector<F, N>],
    values: &[Vector<F, N>],
    position: &[I],
    partial: &mut [A],
    out: &mut [Vector<F, N>],
    query_row: usize,
    capacity: usize,
    scale: InputScalar,
    #[comptime] tile: DecodeTile,
    #[define(F, A, I)] _types: [ElemType; 3],
) {
    let newest = u32::cast_from(position[0]) as usize;
    decode::<F, A, N>(queries, keys, values, partial, out, newest, query_row, capacity, scale.get::<A>(), tile);
}

/// Attention of a group; of some keys alone `head_dim` sums of weighted values, the sum of weights and the largest score of
/// each query head, which [`attention_combine`] puts together.
#[cube]
fn decode<F: Float, A: Float, N: Size>(
    queries: &[Vector<F, N>],
    keys: &[Vector<F, N>],
    values: &[Vector<F, N>],
    partial: &mut [A],
    out: &mut [Vector<F, N>],
    newest: usize,
    query_row: usize,
    capacity: usize,
    scale: A,
    #[comptime] tile: DecodeTile,
) {
    let (group, units) = comptime!((tile.group, tile.team.units));
    let vector = queries.vector_size();
    let vectors = comptime!(tile.head_dim / vector);
    let pair = CUBE_POS_Y as usize;
    let (batch, in_batch) = (pair / comptime!(tile.groups), pair % comptime!(tile.groups));
    let unit = UNIT_POS as usize;
    let first_query = batch * query_row / vector + in_batch * comptime!(group * vectors);
    let first_slot = pair / comptime!(tile.groups_of_head) * capacity;
    let start = CUBE_POS_X as usize * comptime!(tile.split_keys);
    let end = min(start + comptime!(tile.split_keys), newest + 1);

    let mut q = Shared::<[Vector<A, N>]>::new_slice(comptime!(group * vectors));
    let mut weights = Shared::<[A]>::new_slice(comptime!(group * units));
    for i in range_stepped(unit, comptime!(group * vectors), units) {
        q[i] = Vector::cast_from(queries[first_query + i]) * Vector::new(scale);
    }
    // Units that sum values: one for each vector of each query head, as often as there are units for.
    let sets = comptime!((units / (group * vectors)).max(1));
    let mine = comptime!((group * vectors).div_ceil(units));
    let mut sums = Array::<Vector<A, N>>::new(mine);
    #[unroll]
    for i in 0..mine {
        sums[i] = Vector::new(A::new(0.0));
    }
    let mut largest = Array::<A>::new(group);
    let mut total = Array::<A>::new(group);
    #[unroll]
    for g in 0..group {
        largest[g] = A::new(NEVER);
        total[g] = A::new(0.0);
    }
    sync_cube();
    for first in range_stepped(start, end, units) {
        let key = first + unit;
        let mut score = Array::<A>::new(group);
        #[unroll]
        for g in 0..group {
            score[g] = A::new(NEVER);
        }
        if key < end {
            let mut product = Array::<Vector<A, N>>::new(group);
            #[unroll]
            for g in 0..group {
                product[g] = Vector::new(A::new(0.0));
            }
            for d in 0..vectors {
                let k = Vector::<A, N>::cast_from(keys[(first_slot + key) * vectors + d]);
                #[unroll]
                for g in 0..group {
                    product[g] += k * q[g * vectors + d];
                }
            }
            #[unroll]
            for g in 0..group {
                score[g] = product[g].vector_sum();
            }
        }
        let count = min(units, end - first);
        let mut factors = Array::<A>::new(group);
        #[unroll]
        for g in 0..group {
            let new_largest = max(largest[g], cube_max::<A>(score[g], comptime!(tile.team)));
            let weight = (score[g] - new_largest).exp();
            factors[g] = (largest[g] - new_largest).exp();
            largest[g] = new_largest;
            total[g] = total[g] * factors[g] + cube_sum::<A>(weight, comptime!(tile.team));
            weights[g * units + unit] = weight;
        }
        sync_cube();
        #[unroll]
        for i in 0..mine {
            let place = unit % comptime!(group * vectors) + i * units;
            let set = unit / comptime!(group * vectors);
            if place < comptime!(group * vectors) && set < sets {
                let g = place / vectors;
                let d = place % vectors;
                let mut sum = sums[i];
                #[unroll]
                for other in 0..group {
                    if g == other {
                        sum *= Vector::new(factors[other]);
                    }
                }
                for key in range_stepped(set, count, sets) {
                    let v = Vector::<A, N>::cast_from(values[(first_slot + first + key) * vectors + d]);
                    sum += v * Vector::new(weights[g * units + key]);
                }
                sums[i] = sum;
            }
        }
        sync_cube();
    }
    // Sets are put together.
    let mut gathered = Shared::<[Vector<A, N>]>::new_slice(comptime!(sets * group * vectors));
    #[unroll]
    for i in 0..mine {
        let place = unit % comptime!(group * vectors) + i * units;
        let set = unit / comptime!(group * vectors);
        if place < comptime!(group * vectors) && set < sets {
            gathered[set * comptime!(group * vectors) + place] = sums[i];
        }
    }
    sync_cube();
    let width = comptime!(tile.head_dim + 2);
    #[unroll]
    for i in 0..mine {
        let place = unit + i * units;
        if place < comptime!(group * vectors) {
            let mut sum = gathered[place];
            #[unroll]
            for set in 1..sets {
                sum += gathered[set * comptime!(group * vectors) + place];
            }
            let g = place / vectors;
            if comptime!(tile.splits == 1) {
                let mut weight = total[0];
                #[unroll]
                for other in 1..group {
                    if g == other {
                        weight = total[other];
                    }
                }
                out[pair * comptime!(group * vectors) + place] = Vector::cast_from(sum / Vector::new(weight));
            } else {
                let to = ((pair * group + g) * comptime!(tile.splits) + CUBE_POS_X as usize) * width;
                #[unroll]
                for j in 0..vector {
                    partial[to + place % vectors * vector + j] = sum.extract(j);
                }
            }
        }
    }
    if comptime!(tile.splits > 1) && unit == 0 {
        #[unroll]
        for g in 0..group {
            let to = ((pair * group + g) * comptime!(tile.splits) + CUBE_POS_X as usize) * width;
            partial[to + comptime!(tile.head_dim)] = total[g];
            partial[to + comptime!(tile.head_dim + 1)] = largest[g];
        }
    }
}

/// Puts the parts of all splits together, `[batch, query * head_dim]`.
#[cube(launch)]
pub(super) fn attention_combine<F: Float, A: Float>(
    partial: &[A],
    out: &mut [F],
    head_dim: usize,
    splits: usize,
    #[define(F, A)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let (head, d) = (ABSOLUTE_POS / head_dim, ABSOLUTE_POS % head_dim);
    let width = head_dim + 2;
    let first = head * splits * width;
    let mut largest = A::new(NEVER);
    for split in 0..splits {
        largest = max(largest, partial[first + split * width + head_dim + 1]);
    }
    let mut sum = A::new(0.0);
    let mut total = A::new(0.0);
    for split in 0..splits {
        let from = first + split * width;
        let factor = (partial[from + head_dim + 1] - largest).exp();
        sum += partial[from + d] * factor;
        total += partial[from + head_dim] * factor;
    }
    out[ABSOLUTE_POS] = F::cast_from(sum / total);
}
