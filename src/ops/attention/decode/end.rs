//! What a cube of decode leaves in the end, and how the parts of several are put together.

use std::f32::consts::LN_2;

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::super::places::NEVER;
use super::{DecodeTile, matrices};
use crate::ops::cube::{next_may_begin, wait_for};

/// Where a part has what [`leave`] calls `gathered` of feature `i` of all heads.
#[cube]
fn gathered_at(part: usize, i: usize, #[comptime] tile: DecodeTile) -> usize {
    let head_dim = comptime!(tile.head_dim);
    if comptime!(tile.on_matrices) {
        matrices::feature_at(part, i / head_dim, i % head_dim, tile)
    } else {
        part * comptime!(tile.group * tile.head_dim) + i
    }
}

/// What a cube has in the end: of each of its parts the weighted values of every query head, `gathered`, and its sum of weights,
/// for the largest score of all, and the largest of each part.
#[cube]
pub(super) fn leave<F: Float, A: Float>(
    gathered: &Shared<[A]>,
    totals: &Shared<[A]>,
    in_parts: &Shared<[A]>,
    partial: &mut [A],
    out: &mut [F],
    #[comptime] tile: DecodeTile,
) {
    let (group, parts) = comptime!((tile.group, tile.parts()));
    let (pair, unit) = (CUBE_POS_Y as usize, UNIT_POS as usize);
    let (head_dim, width) = comptime!((tile.head_dim, tile.head_dim + 2));
    for i in range_stepped(unit, comptime!(group * head_dim), comptime!(tile.team.units)) {
        let g = i / head_dim;
        let mut sum = gathered[gathered_at(0, i, tile)];
        for other in 1..parts {
            sum += gathered[gathered_at(other, i, tile)];
        }
        if comptime!(tile.splits == 1) {
            let mut weight = totals[g * parts];
            for other in 1..parts {
                weight += totals[g * parts + other];
            }
            out[pair * comptime!(group * head_dim) + i] = F::cast_from(sum / weight);
        } else {
            let to = ((pair * group + g) * comptime!(tile.splits) + CUBE_POS_X as usize) * width;
            partial[to + i % head_dim] = sum;
        }
    }
    if comptime!(tile.splits > 1) && unit == 0 {
        #[unroll]
        for g in 0..group {
            let mut weight = totals[g * parts];
            for other in 1..parts {
                weight += totals[g * parts + other];
            }
            let to = ((pair * group + g) * comptime!(tile.splits) + CUBE_POS_X as usize) * width;
            partial[to + comptime!(tile.head_dim)] = weight;
            let mut most = in_parts[g * parts];
            for other in 1..parts {
                most = max(most, in_parts[g * parts + other]);
            }
            // Matrix units' kernel counts in powers of two.
            let unit_of_scores = comptime!(if tile.on_matrices { LN_2 } else { 1.0 });
            partial[to + comptime!(tile.head_dim + 1)] = most * A::new(unit_of_scores);
        }
    }
}

/// Puts the parts of all splits together, `[batch, query * head_dim]`.
#[cube(launch)]
pub(in super::super) fn attention_combine<F: Float, A: Float>(
    partial: &mut [A],
    out: &mut [F],
    head_dim: usize,
    #[comptime] splits: usize,
    #[comptime] overlaps: bool,
    #[define(F, A)] _types: [ElemType; 2],
) {
    if comptime!(overlaps) {
        next_may_begin();
        wait_for::<A>(partial);
    }
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let (head, d) = (ABSOLUTE_POS / head_dim, ABSOLUTE_POS % head_dim);
    let width = head_dim + 2;
    let first = head * splits * width;
    // All are asked for before any is used.
    let mut scores = Array::<A>::new(splits);
    let mut weights = Array::<A>::new(splits);
    let mut values = Array::<A>::new(splits);
    #[unroll]
    for split in 0..splits {
        let from = first + split * width;
        scores[split] = partial[from + head_dim + 1];
        weights[split] = partial[from + head_dim];
        values[split] = partial[from + d];
    }
    let mut largest = A::new(NEVER);
    #[unroll]
    for split in 0..splits {
        largest = max(largest, scores[split]);
    }
    let mut sum = A::new(0.0);
    let mut total = A::new(0.0);
    #[unroll]
    for split in 0..splits {
        let factor = (scores[split] - largest).exp();
        sum += values[split] * factor;
        total += weights[split] * factor;
    }
    out[ABSOLUTE_POS] = F::cast_from(sum / total);
}
