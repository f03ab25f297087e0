use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{
    COLUMNS, MatrixTile, PAIR, PLANE, Part, ROWS, add_weighed, copy, fetch, gift, keep, products, store, zeros,
};
use crate::ops::attention::places::{Places, Sizes, from_the_end, head, head_of, key_at, query_at, row_at, value_at};

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
    #[comptime] tile: MatrixTile,
    #[define(F)] _type: ElemType,
) {
    let (group, staying) = comptime!((tile.sizes.group(), tile.staying()));
    let columns = comptime!(tile.passing / COLUMNS);
    let head = head(tile.sizes);
    let lane = UNIT_POS as usize % PLANE;
    let (g, t) = (lane / 4, lane % 4);
    let plane = UNIT_POS as usize / PLANE;
    let (share, plane_row) = (plane / comptime!(tile.planes), plane % comptime!(tile.planes) * ROWS);
    let mine = share * comptime!(tile.passing);
    let end_row = at.seq * group;
    let first_row = from_the_end(CUBE_POS_X, CUBE_COUNT_X) * staying;
    let end_key = at.past + (min(first_row + staying, end_row) - 1) / group + 1;

    let mut k = Shared::<[Vector<F, W>]>::new_aligned_slice(comptime!(tile.room() * tile.stride()), 16usize);
    let mut v = Shared::<[Vector<F, W>]>::new_aligned_slice(comptime!(tile.room() * tile.stride()), 16usize);
    copy::<F, W>(qkv, &mut k, &head, first_row, end_row, &at, Part::Queries, staying, tile);
    copy::<F, W>(gradient, &mut v, &head, first_row, end_row, &at, Part::Results, staying, tile);
    sync_cube();
    let q = keep::<F, W, P>(&k, plane_row, tile);
    let d_out = keep::<F, W, P>(&v, plane_row, tile);
    sync_cube();

    let mut d_q = zeros::<P>(comptime!(tile.sizes.head_dim / COLUMNS));
    let mut newest = Array::<usize>::new(2usize);
    let mut row_sums = Array::<f32>::new(2usize);
    let mut row_delta = Array::<f32>::new(2usize);
    #[unroll]
    for j in 0..2usize {
        // Rows behind the last are computed like it, and not written.
        let row = min(first_row + plane_row + g + 8 * j, end_row - 1);
        let from = row_at(&head, row, &at, tile.sizes);
        newest[j] = at.past + row / group;
        row_sums[j] = sums[from];
        row_delta[j] = delta[from];
    }
    let step = comptime!(tile.step());
    let mut next_keys = Array::<Vector<F, W>>::new(comptime!(tile.each(step)));
    let mut next_values = Array::<Vector<F, W>>::new(comptime!(tile.each(step)));
    fetch::<F, W>(qkv, &mut next_keys, &head, 0, end_key, &at, Part::Keys, step, tile);
    fetch::<F, W>(qkv, &mut next_values, &head, 0, end_key, &at, Part::Values, step, tile);
    for first_key in range_stepped(0, end_key, step) {
        store::<F, W>(&next_keys, &mut k, step, tile);
        store::<F, W>(&next_values, &mut v, step, tile);
        sync_cube();
        fetch::<F, W>(qkv, &mut next_keys, &head, first_key + step, end_key, &at, Part::Keys, step, tile);
        fetch::<F, W>(qkv, &mut next_values, &head, first_key + step, end_key, &at, Part::Values, step, tile);
        let mut slopes = products::<F, W, P>(&q, &k, mine, tile);
        let d_p = products::<F, W, P>(&d_out, &v, mine, tile);
        #[unroll]
        for i in 0..columns {
            #[unroll]
            for j in 0..2usize {
                let p = (slopes[2 * i + j] * Vector::new(scale) - Vector::new(row_sums[j])).exp();
                let mut slope = p * (d_p[2 * i + j] - Vector::new(row_delta[j]));
                #[unroll]
                for e in 0..2usize {
                    if first_key + mine + i * COLUMNS + 2 * t + e > newest[j] {
                        slope.insert(e, 0.0f32);
                    }
                }
                slopes[2 * i + j] = slope;
            }
        }
        add_weighed::<F, W, P>(&slopes, &k, mine, &mut d_q, tile);
        sync_cube();
    }
    if comptime!(tile.shares > 1) {
        let values = comptime!(2 * tile.sizes.head_dim / COLUMNS);
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
    for j in 0..2usize {
        let row = first_row + plane_row + g + 8 * j;
        if row < end_row && share == 0 {
            let to = query_at(&head, row, &at, tile.sizes);
            #[unroll]
            for i in 0..comptime!(tile.sizes.head_dim / COLUMNS) {
                d_qkv[(to + i * COLUMNS) / PAIR + t] = Vector::cast_from(d_q[2 * i + j] * Vector::new(scale));
            }
        }
    }
}

/// Gradients of the keys and values of one tile: all rows that see them pass by, or every so manieth of a cube that shares
/// them with `splits - 1` others, whose parts `key_gradients_combine` adds up.
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
    #[comptime] tile: MatrixTile,
    #[comptime] splits: usize,
    #[define(F)] _type: ElemType,
) {
    let (group, staying) = comptime!((tile.sizes.group(), tile.staying()));
    let columns = comptime!(tile.passing / COLUMNS);
    let head = head(tile.sizes);
    let lane = UNIT_POS as usize % PLANE;
    let (g, t) = (lane / 4, lane % 4);
    let plane_key = UNIT_POS as usize / PLANE * ROWS;
    let end_row = at.seq * group;
    let end_key = at.past + at.seq;
    let first_key = CUBE_POS_X as usize * staying;

    let mut q = Shared::<[Vector<F, W>]>::new_aligned_slice(comptime!(tile.room() * tile.stride()), 16usize);
    let mut d_out = Shared::<[Vector<F, W>]>::new_aligned_slice(comptime!(tile.room() * tile.stride()), 16usize);
    let mut row_sums = Shared::<[f32]>::new_slice(tile.passing);
    let mut row_delta = Shared::<[f32]>::new_slice(tile.passing);
    copy::<F, W>(qkv, &mut q, &head, first_key, end_key, &at, Part::Keys, staying, tile);
    copy::<F, W>(qkv, &mut d_out, &head, first_key, end_key, &at, Part::Values, staying, tile);
    sync_cube();
    let k = keep::<F, W, P>(&q, plane_key, tile);
    let v = keep::<F, W, P>(&d_out, plane_key, tile);
    sync_cube();

    let mut d_k = zeros::<P>(comptime!(tile.sizes.head_dim / COLUMNS));
    let mut d_v = zeros::<P>(comptime!(tile.sizes.head_dim / COLUMNS));
    // Earlier rows see none of these keys.
    let split = CUBE_POS_Z as usize;
    let start = first_key * group / tile.passing * tile.passing + split * tile.passing;
    let (passing, step) = comptime!((tile.passing, splits * tile.passing));
    let mut next_queries = Array::<Vector<F, W>>::new(comptime!(tile.each(passing)));
    let mut next_results = Array::<Vector<F, W>>::new(comptime!(tile.each(passing)));
    fetch::<F, W>(qkv, &mut next_queries, &head, start, end_row, &at, Part::Queries, passing, tile);
    fetch::<F, W>(gradient, &mut next_results, &head, start, end_row, &at, Part::Results, passing, tile);
    for first_row in range_stepped(start, end_row, step) {
        store::<F, W>(&next_queries, &mut q, passing, tile);
        store::<F, W>(&next_results, &mut d_out, passing, tile);
        for i in range_stepped(UNIT_POS as usize, tile.passing, comptime!(tile.units())) {
            let from = row_at(&head, min(first_row + i, end_row - 1), &at, tile.sizes);
            row_sums[i] = sums[from];
            row_delta[i] = delta[from];
        }
        sync_cube();
        fetch::<F, W>(qkv, &mut next_queries, &head, first_row + step, end_row, &at, Part::Queries, passing, tile);
        fetch::<F, W>(gradient, &mut next_results, &head, first_row + step, end_row, &at, Part::Results, passing, tile);
        let mut weights = products::<F, W, P>(&k, &q, 0, tile);
        let mut slopes = products::<F, W, P>(&v, &d_out, 0, tile);
        #[unroll]
        for i in 0..columns {
            #[unroll]
            for j in 0..2usize {
                let key = first_key + plane_key + g + 8 * j;
                let mut weight = weights[2 * i + j];
                let mut slope = slopes[2 * i + j];
                #[unroll]
                for e in 0..2usize {
                    let row = i * COLUMNS + 2 * t + e;
                    let mut p = (weight.extract(e) * scale - row_sums[row]).exp();
                    if first_row + row >= end_row || key > at.past + (first_row + row) / group {
                        p = 0.0f32;
                    }
                    weight.insert(e, p);
                    let difference = slope.extract(e) - row_delta[row];
                    slope.insert(e, p * difference);
                }
                weights[2 * i + j] = weight;
                slopes[2 * i + j] = slope;
            }
        }
        add_weighed::<F, W, P>(&weights, &d_out, 0, &mut d_v, tile);
        add_weighed::<F, W, P>(&slopes, &q, 0, &mut d_k, tile);
        sync_cube();
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
                let pair = CUBE_POS_Y as usize;
                let to = ((split * CUBE_COUNT_Y as usize + pair) * end_key + key) * comptime!(2 * tile.sizes.head_dim);
                #[unroll]
                for i in 0..comptime!(tile.sizes.head_dim / COLUMNS) {
                    parts[(to + i * COLUMNS) / PAIR + t] = d_k[2 * i + j] * Vector::new(scale);
                    parts[(to + comptime!(tile.sizes.head_dim) + i * COLUMNS) / PAIR + t] = d_v[2 * i + j];
                }
            }
        }
    }
}

/// Adds up the parts `[splits, batch * key_value, seq, 2 * head_dim]` of the gradients of keys and values, `work` of each.
#[cube(launch)]
pub fn key_gradients_combine<F: Float, P: Size>(
    parts: &[Vector<f32, P>],
    d_qkv: &mut [Vector<F, P>],
    at: Places,
    work: usize,
    #[comptime] sizes: Sizes,
    #[comptime] splits: usize,
    #[define(F)] _type: ElemType,
) {
    if ABSOLUTE_POS >= work {
        terminate!();
    }
    let width = comptime!(sizes.head_dim / PAIR);
    let (row, feature) = (ABSOLUTE_POS / comptime!(2 * width), ABSOLUTE_POS % comptime!(2 * width));
    let (pair, key) = (row / at.seq, row % at.seq);
    let head = head_of(pair, sizes);
    let mut sum = parts[ABSOLUTE_POS];
    #[unroll]
    for split in 1..splits {
        sum += parts[split * work + ABSOLUTE_POS];
    }
    let mut to = key_at(&head, key, &at);
    if feature >= width {
        to = value_at(&head, key, &at);
    }
    d_qkv[to / PAIR + feature % width] = Vector::cast_from(sum);
}
