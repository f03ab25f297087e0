#![expect(clippy::too_many_lines, reason = "a kernel is one sweep: its loops share what is in registers")]

use std::f32::consts::LOG2_E;

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{
    COLUMNS, MatrixTile, PAIR, PLANE, Part, ROWS, add_weighed, arrived, copy, exp2, gift, hide, keep, kept_products,
    products, zeros,
};
use crate::ops::attention::parts::part_at;
use crate::ops::attention::places::{
    NEVER, Places, head_in_turn, key_at, late_tile_in_turn, query_at, row_at, split_in_turn, tile_in_turn, value_at,
};
use crate::ops::cube::for_one_cube;

/// Gradients of the queries of one tile: all keys they see pass by.
#[cube(launch)]
pub fn matrix_query_gradients<F: Float, W: Size, P: Size>(
    qkv: &[Vector<F, W>],
    gradient: &[Vector<F, W>],
    sums: &[f32],
    delta: &[f32],
    d_qkv: &mut [Vector<F, P>],
    at: Places,
    scale: f32,
    first_tiles: usize,
    #[comptime] tile: MatrixTile,
    #[define(F)] _type: ElemType,
) {
    for_one_cube();
    let (group, staying, step) = comptime!((tile.sizes.group(), tile.staying(), tile.step()));
    let head = head_in_turn(tile.sizes);
    let lane = UNIT_POS_X as usize % PLANE;
    let (g, t) = (lane / 4, lane % 4);
    let plane = UNIT_POS_X as usize / PLANE;
    let (share, plane_row) = (plane / comptime!(tile.planes), plane % comptime!(tile.planes) * comptime!(tile.rows()));
    let end_row = at.seq * group;
    let first_row = late_tile_in_turn(first_tiles) * staying;
    let end_key = at.past + (min(first_row + staying, end_row) - 1) / group + 1;
    let first_newest = at.past + first_row / group;

    let mut q = Shared::<[Vector<F, W>]>::new_aligned_slice(comptime!(staying * tile.vectors()), 128usize);
    let mut d_out = Shared::<[Vector<F, W>]>::new_aligned_slice(comptime!(staying * tile.vectors()), 128usize);
    let mut k = Shared::<[Vector<F, W>]>::new_aligned_slice(comptime!(2 * step * tile.vectors()), 128usize);
    let mut v = Shared::<[Vector<F, W>]>::new_aligned_slice(comptime!(2 * step * tile.vectors()), 128usize);
    copy::<F, W>(qkv, &mut q, 0, &head, first_row, end_row, &at, Part::Queries, staying, tile);
    copy::<F, W>(gradient, &mut d_out, 0, &head, first_row, end_row, &at, Part::Results, staying, tile);
    copy::<F, W>(qkv, &mut k, 0, &head, 0, end_key, &at, Part::Keys, step, tile);
    copy::<F, W>(qkv, &mut v, 0, &head, 0, end_key, &at, Part::Values, step, tile);
    arrived();

    let rows = comptime!(2 * tile.lefts);
    let mut newest = Array::<usize>::new(rows);
    let mut row_sums = Array::<f32>::new(rows);
    let mut row_delta = Array::<f32>::new(rows);
    #[unroll]
    for j in 0..rows {
        // Rows behind the last are computed like it, and not written.
        let row = min(first_row + plane_row + g + 8 * j, end_row - 1);
        let from = row_at(&head, row, &at, tile.sizes);
        newest[j] = at.past + row / group;
        row_sums[j] = sums[from] * LOG2_E;
        row_delta[j] = delta[from];
    }
    let (columns, features) = comptime!((tile.passing / COLUMNS, tile.sizes.head_dim / COLUMNS));
    let mut d_q = zeros::<P>(comptime!(tile.lefts * features));
    for first_key in range_stepped(0, end_key, step) {
        let (here, there) = (first_key / step % 2 * step, (first_key / step + 1) % 2 * step);
        let mine = here + share * comptime!(tile.passing);
        let first_mine = first_key + share * comptime!(tile.passing);
        copy::<F, W>(qkv, &mut k, there, &head, first_key + step, end_key, &at, Part::Keys, step, tile);
        copy::<F, W>(qkv, &mut v, there, &head, first_key + step, end_key, &at, Part::Values, step, tile);
        let mut slopes = products::<F, W, P>(&q, plane_row, &k, mine, tile);
        if first_mine + tile.passing > first_newest + 1 {
            hide::<P>(&mut slopes, first_mine, &newest, tile);
        }
        // From here on nothing branches, so that exponentials are computed beside products.
        let d_p = products::<F, W, P>(&d_out, plane_row, &v, mine, tile);
        #[unroll]
        for j in 0..rows {
            #[unroll]
            for i in 0..columns {
                let place = tile.score(j, i);
                let p = exp2::<P>(slopes[place] * Vector::new(scale * LOG2_E) - Vector::new(row_sums[j]));
                slopes[place] = p * (d_p[place] - Vector::new(row_delta[j]));
            }
        }
        add_weighed::<F, W, P>(&slopes, &k, mine, &mut d_q, tile);
        arrived();
    }
    if comptime!(tile.shares > 1) {
        let values = comptime!(2 * tile.lefts * features);
        let givers = comptime!(tile.givers());
        let mut parts = Shared::<[Vector<f32, P>]>::new_slice(comptime!(values * givers));
        if share > 0 {
            let to = gift(share, tile);
            #[unroll]
            for i in 0..values {
                parts[i * givers + to] = d_q[i];
            }
        }
        sync_cube();
        if share == 0 {
            #[unroll]
            for giver in 1..comptime!(tile.shares) {
                let from = gift(giver, tile);
                #[unroll]
                for i in 0..values {
                    d_q[i] += parts[i * givers + from];
                }
            }
        }
    }
    #[unroll]
    for j in 0..rows {
        let row = first_row + plane_row + g + 8 * j;
        if row < end_row && share == 0 {
            let to = query_at(&head, row, &at, tile.sizes);
            #[unroll]
            for i in 0..features {
                let value = d_q[tile.result(j, i)] * Vector::new(scale);
                d_qkv[(to + i * COLUMNS) / PAIR + t] = Vector::cast_from(value);
            }
        }
    }
}

/// Gradients of the keys and values of one tile, with one left factor to a plane: all rows that see them pass by, or every
/// so manieth of a cube that shares them with `splits - 1` others, whose parts `key_gradients_combine` adds up.
#[cube(launch)]
pub fn matrix_key_gradients<F: Float, W: Size, P: Size>(
    qkv: &[Vector<F, W>],
    gradient: &[Vector<F, W>],
    sums: &[f32],
    delta: &[f32],
    d_qkv: &mut [Vector<F, P>],
    parts: &mut [Vector<f32, P>],
    at: Places,
    scale: f32,
    first_tiles: usize,
    #[comptime] tile: MatrixTile,
    #[comptime] splits: usize,
    #[define(F)] _type: ElemType,
) {
    for_one_cube();
    let (group, staying, passing) = comptime!((tile.sizes.group(), tile.staying(), tile.passing));
    let columns = comptime!(passing / COLUMNS);
    let head = head_in_turn(tile.sizes);
    let unit = UNIT_POS_X as usize;
    let (g, t) = (unit % PLANE / 4, unit % 4);
    let plane_key = unit / PLANE * ROWS;
    let end_row = at.seq * group;
    let end_key = at.past + at.seq;
    let first_key = tile_in_turn(first_tiles) * staying;

    let room = comptime!(staying.max(2 * passing) * tile.vectors());
    let mut q = Shared::<[Vector<F, W>]>::new_aligned_slice(room, 128usize);
    let mut d_out = Shared::<[Vector<F, W>]>::new_aligned_slice(room, 128usize);
    let mut row_sums = Shared::<[f32]>::new_slice(comptime!(2 * passing));
    let mut row_delta = Shared::<[f32]>::new_slice(comptime!(2 * passing));
    copy::<F, W>(qkv, &mut q, 0, &head, first_key, end_key, &at, Part::Keys, staying, tile);
    copy::<F, W>(qkv, &mut d_out, 0, &head, first_key, end_key, &at, Part::Values, staying, tile);
    arrived();
    let k = keep::<F, W, P>(&q, plane_key, tile);
    let v = keep::<F, W, P>(&d_out, plane_key, tile);
    sync_cube();

    let mut d_k = zeros::<P>(comptime!(tile.sizes.head_dim / COLUMNS));
    let mut d_v = zeros::<P>(comptime!(tile.sizes.head_dim / COLUMNS));
    // Earlier rows see none of these keys.
    let start = (first_key * group / passing + split_in_turn()) * passing;
    let step = comptime!(splits * passing);
    let begin = start / step % 2 * passing;
    copy::<F, W>(qkv, &mut q, begin, &head, start, end_row, &at, Part::Queries, passing, tile);
    copy::<F, W>(gradient, &mut d_out, begin, &head, start, end_row, &at, Part::Results, passing, tile);
    let first = row_at(&head, min(start + unit, end_row - 1), &at, tile.sizes);
    if unit < passing {
        row_sums[begin + unit] = sums[first] * LOG2_E;
        row_delta[begin + unit] = delta[first];
    }
    arrived();
    for first_row in range_stepped(start, end_row, step) {
        let (here, there) = (first_row / step % 2 * passing, (first_row / step + 1) % 2 * passing);
        copy::<F, W>(qkv, &mut q, there, &head, first_row + step, end_row, &at, Part::Queries, passing, tile);
        copy::<F, W>(gradient, &mut d_out, there, &head, first_row + step, end_row, &at, Part::Results, passing, tile);
        let from = row_at(&head, min(first_row + step + unit, end_row - 1), &at, tile.sizes);
        let (next_sum, next_delta) = (sums[from] * LOG2_E, delta[from]);
        let mut weights = kept_products::<F, W, P>(&k, &q, here, tile);
        if at.past + first_row / group < first_key + staying || first_row + passing > end_row {
            #[unroll]
            for i in 0..columns {
                #[unroll]
                for j in 0..2usize {
                    let key = first_key + plane_key + g + 8 * j;
                    let mut weight = weights[2 * i + j];
                    #[unroll]
                    for e in 0..2usize {
                        let row = first_row + i * COLUMNS + 2 * t + e;
                        if row >= end_row || key > at.past + row / group {
                            weight.insert(e, NEVER);
                        }
                    }
                    weights[2 * i + j] = weight;
                }
            }
        }
        // From here on nothing branches, so that exponentials are computed beside products.
        let mut slopes = kept_products::<F, W, P>(&v, &d_out, here, tile);
        #[unroll]
        for i in 0..columns {
            let mut sum = Vector::<f32, P>::new(0.0);
            let mut mean = Vector::<f32, P>::new(0.0);
            #[unroll]
            for e in 0..2usize {
                sum.insert(e, row_sums[here + i * COLUMNS + 2 * t + e]);
                mean.insert(e, row_delta[here + i * COLUMNS + 2 * t + e]);
            }
            #[unroll]
            for j in 0..2usize {
                let p = exp2::<P>(weights[2 * i + j] * Vector::new(scale * LOG2_E) - sum);
                weights[2 * i + j] = p;
                slopes[2 * i + j] = p * (slopes[2 * i + j] - mean);
            }
        }
        add_weighed::<F, W, P>(&weights, &d_out, here, &mut d_v, tile);
        add_weighed::<F, W, P>(&slopes, &q, here, &mut d_k, tile);
        if unit < passing {
            row_sums[there + unit] = next_sum;
            row_delta[there + unit] = next_delta;
        }
        arrived();
    }
    #[unroll]
    for j in 0..2usize {
        let key = first_key + plane_key + g + 8 * j;
        if key < end_key {
            if comptime!(splits == 1) {
                let (to_key, to_value) = (key_at(&head, key, &at), value_at(&head, key, &at));
                #[unroll]
                for i in 0..comptime!(tile.sizes.head_dim / COLUMNS) {
                    let d_key = Vector::cast_from(d_k[2 * i + j] * Vector::new(scale));
                    d_qkv[(to_key + i * COLUMNS) / PAIR + t] = d_key;
                    d_qkv[(to_value + i * COLUMNS) / PAIR + t] = Vector::cast_from(d_v[2 * i + j]);
                }
            } else {
                let pair = CUBE_POS % CUBE_COUNT_Y as usize;
                let to = part_at(split_in_turn(), pair, key, &at, tile.sizes);
                #[unroll]
                for i in 0..comptime!(tile.sizes.head_dim / COLUMNS) {
                    parts[(to + i * COLUMNS) / PAIR + t] = d_k[2 * i + j] * Vector::new(scale);
                    parts[(to + comptime!(tile.sizes.head_dim) + i * COLUMNS) / PAIR + t] = d_v[2 * i + j];
                }
            }
        }
    }
}
