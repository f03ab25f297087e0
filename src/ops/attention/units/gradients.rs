use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{ROW_UNITS, Tile, each, load_keys, load_results, load_rows, products};
use crate::ops::attention::parts::part_at;
use crate::ops::attention::places::{Head, Places, from_the_end, head, key_at, query_at, row_at, value_at};
use crate::ops::cube::plane_sum_of_neighbours;

/// `sum over features of dO O` of every row and head, `[batch, seq, query]`, by `sharing` units side by side in a plane.
#[cube(launch)]
pub fn attention_delta<F: Float, A: Float, N: Size>(
    out: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    delta: &mut [A],
    rows: usize,
    #[comptime] vectors: usize,
    #[comptime] sharing: usize,
    #[define(F, A)] _types: [ElemType; 2],
) {
    let (row, place) = (ABSOLUTE_POS / sharing, ABSOLUTE_POS % sharing);
    let first = min(row, rows - 1) * vectors + place;
    let mut sum = Vector::<A, N>::new(A::new(0.0));
    #[unroll]
    for i in 0..comptime!(vectors / sharing) {
        let at = first + i * sharing;
        sum += Vector::<A, N>::cast_from(out[at]) * Vector::cast_from(gradient[at]);
    }
    let sum = plane_sum_of_neighbours::<A>(sum.vector_sum(), sharing);
    if place == 0 && row < rows {
        delta[row] = sum;
    }
}

/// Writes this unit's part of `P` and of `dS`, scores of a tile recomputed from saved sums.
#[cube]
fn score_gradients<A: Float>(
    tiles: &Loaded<A>,
    p: &mut Shared<[A]>,
    d_s: &mut Shared<[A]>,
    sums: &[A],
    delta: &[A],
    head: &Head,
    first_row: usize,
    first_key: usize,
    at: &Places,
    #[comptime] tile: Tile,
) {
    let (rows_each, keys_each) = comptime!(each(tile));
    let rows_apart = comptime!(tile.units / ROW_UNITS);
    let (y, x) = (UNIT_POS as usize / ROW_UNITS, UNIT_POS as usize % ROW_UNITS);
    let group = comptime!(tile.sizes.group());
    let score = products::<A>(&tiles.q, &tiles.k, tile);
    let d_p = products::<A>(&tiles.d_out, &tiles.v, tile);
    #[unroll]
    for i in 0..rows_each {
        let row = y + i * rows_apart;
        let newest = at.past + (first_row + row) / group;
        let inside = first_row + row < at.seq * group;
        #[unroll]
        for j in 0..keys_each {
            let key = x + j * ROW_UNITS;
            let mut probability = A::new(0.0);
            let mut slope = A::new(0.0);
            if inside && first_key + key <= newest {
                let from = row_at(head, first_row + row, at, tile.sizes);
                probability = (score[i * keys_each + j] - sums[from]).exp();
                slope = probability * (d_p[i * keys_each + j] - delta[from]);
            }
            p[row * comptime!(tile.keys + 1) + key] = probability;
            d_s[row * comptime!(tile.keys + 1) + key] = slope;
        }
    }
}

/// The tiles a backward sweep holds.
#[derive(CubeType)]
struct Loaded<A: Float> {
    /// Queries, scaled.
    q: Shared<[A]>,
    k: Shared<[A]>,
    v: Shared<[A]>,
    d_out: Shared<[A]>,
}

#[cube]
fn loaded<A: Float>(#[comptime] tile: Tile) -> Loaded<A> {
    let (rows, keys) = comptime!((tile.rows * (tile.sizes.head_dim + 1), tile.keys * (tile.sizes.head_dim + 1)));
    Loaded::<A> {
        q: Shared::<[A]>::new_slice(rows),
        k: Shared::<[A]>::new_slice(keys),
        v: Shared::<[A]>::new_slice(keys),
        d_out: Shared::<[A]>::new_slice(rows),
    }
}

/// Gradients of the queries of one tile: all keys they see pass by.
#[cube(launch)]
pub fn attention_query_gradients<F: Float, A: Float>(
    qkv: &[F],
    gradient: &[F],
    sums: &[A],
    delta: &[A],
    d_qkv: &mut [F],
    at: Places,
    scale: InputScalar,
    #[comptime] tile: Tile,
    #[define(F, A)] _types: [ElemType; 2],
) {
    let rows_each = comptime!(each(tile).0);
    let columns_each = comptime!(tile.sizes.head_dim.div_ceil(ROW_UNITS));
    let (stride, score_stride) = comptime!((tile.sizes.head_dim + 1, tile.keys + 1));
    let rows_apart = comptime!(tile.units / ROW_UNITS);
    let group = comptime!(tile.sizes.group());
    let (y, x) = (UNIT_POS as usize / ROW_UNITS, UNIT_POS as usize % ROW_UNITS);
    let head = head(tile.sizes);
    let scale = scale.get::<A>();
    let end_row = at.seq * group;
    let first_row = from_the_end(CUBE_POS_X, CUBE_COUNT_X) * tile.rows;
    let end_key = at.past + (min(first_row + tile.rows, end_row) - 1) / group + 1;
    let mut tiles = loaded::<A>(tile);
    let mut p = Shared::<[A]>::new_slice(comptime!(tile.rows * (tile.keys + 1)));
    let mut d_s = Shared::<[A]>::new_slice(comptime!(tile.rows * (tile.keys + 1)));
    load_rows::<F, A>(qkv, &mut tiles.q, &head, first_row, end_row, &at, scale, tile);
    load_results::<F, A>(gradient, &mut tiles.d_out, &head, first_row, end_row, &at, tile);
    let mut d_q = Array::<A>::new(comptime!(rows_each * columns_each));
    #[unroll]
    for i in 0..comptime!(rows_each * columns_each) {
        d_q[i] = A::new(0.0);
    }
    for first_key in range_stepped(0, end_key, tile.keys) {
        load_keys::<F, A>(qkv, &mut tiles.k, &head, first_key, end_key, &at, false, tile);
        load_keys::<F, A>(qkv, &mut tiles.v, &head, first_key, end_key, &at, true, tile);
        sync_cube();
        score_gradients::<A>(&tiles, &mut p, &mut d_s, sums, delta, &head, first_row, first_key, &at, tile);
        sync_cube();
        for key in 0..tile.keys {
            #[unroll]
            for i in 0..rows_each {
                let slope = d_s[(y + i * rows_apart) * score_stride + key];
                #[unroll]
                for c in 0..columns_each {
                    let d = x + c * ROW_UNITS;
                    if d < comptime!(tile.sizes.head_dim) {
                        d_q[i * columns_each + c] += slope * tiles.k[key * stride + d];
                    }
                }
            }
        }
        sync_cube();
    }
    #[unroll]
    for i in 0..rows_each {
        let row = first_row + y + i * rows_apart;
        if row < end_row {
            let to = query_at(&head, row, &at, tile.sizes);
            #[unroll]
            for c in 0..columns_each {
                let d = x + c * ROW_UNITS;
                if d < comptime!(tile.sizes.head_dim) {
                    d_qkv[to + d] = F::cast_from(d_q[i * columns_each + c] * scale);
                }
            }
        }
    }
}

/// Gradients of the keys and values of one tile: all rows that see them pass by, or every so manieth tile of a cube that
/// shares them with `splits - 1` others, whose parts `key_gradients_combine` adds up.
#[cube(launch)]
pub fn attention_key_gradients<F: Float, A: Float>(
    qkv: &[F],
    gradient: &[F],
    sums: &[A],
    delta: &[A],
    d_qkv: &mut [F],
    parts: &mut [A],
    at: Places,
    scale: InputScalar,
    #[comptime] tile: Tile,
    #[comptime] splits: usize,
    #[define(F, A)] _types: [ElemType; 2],
) {
    let keys_each = comptime!((tile.keys * ROW_UNITS).div_ceil(tile.units));
    let columns_each = comptime!(tile.sizes.head_dim.div_ceil(ROW_UNITS));
    let (stride, score_stride) = comptime!((tile.sizes.head_dim + 1, tile.keys + 1));
    let keys_apart = comptime!(tile.units / ROW_UNITS);
    let group = comptime!(tile.sizes.group());
    let (y, x) = (UNIT_POS as usize / ROW_UNITS, UNIT_POS as usize % ROW_UNITS);
    let head = head(tile.sizes);
    let scale = scale.get::<A>();
    let end_row = at.seq * group;
    let end_key = at.past + at.seq;
    let first_key = CUBE_POS_X as usize * tile.keys;
    let mut tiles = loaded::<A>(tile);
    let mut p = Shared::<[A]>::new_slice(comptime!(tile.rows * (tile.keys + 1)));
    let mut d_s = Shared::<[A]>::new_slice(comptime!(tile.rows * (tile.keys + 1)));
    load_keys::<F, A>(qkv, &mut tiles.k, &head, first_key, end_key, &at, false, tile);
    load_keys::<F, A>(qkv, &mut tiles.v, &head, first_key, end_key, &at, true, tile);
    let mut d_k = Array::<A>::new(comptime!(keys_each * columns_each));
    let mut d_v = Array::<A>::new(comptime!(keys_each * columns_each));
    #[unroll]
    for i in 0..comptime!(keys_each * columns_each) {
        d_k[i] = A::new(0.0);
        d_v[i] = A::new(0.0);
    }
    // Earlier rows see none of these keys.
    let start = (first_key * group / tile.rows + CUBE_POS_Z as usize) * tile.rows;
    for first_row in range_stepped(start, end_row, comptime!(splits * tile.rows)) {
        load_rows::<F, A>(qkv, &mut tiles.q, &head, first_row, end_row, &at, scale, tile);
        load_results::<F, A>(gradient, &mut tiles.d_out, &head, first_row, end_row, &at, tile);
        sync_cube();
        score_gradients::<A>(&tiles, &mut p, &mut d_s, sums, delta, &head, first_row, first_key, &at, tile);
        sync_cube();
        for row in 0..tile.rows {
            #[unroll]
            for i in 0..keys_each {
                let key = y + i * keys_apart;
                let probability = p[row * score_stride + key];
                let slope = d_s[row * score_stride + key];
                #[unroll]
                for c in 0..columns_each {
                    let d = x + c * ROW_UNITS;
                    if d < comptime!(tile.sizes.head_dim) {
                        d_v[i * columns_each + c] += probability * tiles.d_out[row * stride + d];
                        d_k[i * columns_each + c] += slope * tiles.q[row * stride + d];
                    }
                }
            }
        }
        sync_cube();
    }
    #[unroll]
    for i in 0..keys_each {
        let key = first_key + y + i * keys_apart;
        if key < end_key {
            let (to_key, to_value) = (key_at(&head, key, &at), value_at(&head, key, &at));
            let part = part_at(CUBE_POS_Z as usize, CUBE_POS_Y as usize, key, &at, tile.sizes);
            #[unroll]
            for c in 0..columns_each {
                let d = x + c * ROW_UNITS;
                if d < comptime!(tile.sizes.head_dim) {
                    if comptime!(splits == 1) {
                        d_qkv[to_key + d] = F::cast_from(d_k[i * columns_each + c]);
                        d_qkv[to_value + d] = F::cast_from(d_v[i * columns_each + c]);
                    } else {
                        parts[part + d] = d_k[i * columns_each + c];
                        parts[part + comptime!(tile.sizes.head_dim) + d] = d_v[i * columns_each + c];
                    }
                }
            }
        }
    }
}
