use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{ROW_UNITS, Tile, each, load_keys, load_rows, products};
use crate::ops::attention::places::{NEVER, Places, from_the_end, head, row_at};

/// Attention, and the logarithm of each row's sum of exponentials.
#[cube(launch)]
pub fn attention_forward<F: Float, A: Float>(
    queries: &[F],
    keys: &[F],
    values: &[F],
    out: &mut [F],
    sums: &mut [A],
    at: Places,
    scale: InputScalar,
    #[comptime] tile: Tile,
    #[define(F, A)] _types: [ElemType; 2],
) {
    let (rows_each, keys_each) = comptime!(each(tile));
    let columns_each = comptime!(tile.sizes.head_dim.div_ceil(ROW_UNITS));
    let (stride, score_stride) = comptime!((tile.sizes.head_dim + 1, tile.keys + 1));
    let rows_apart = comptime!(tile.units / ROW_UNITS);
    let group = comptime!(tile.sizes.group());
    let (y, x) = (UNIT_POS as usize / ROW_UNITS, UNIT_POS as usize % ROW_UNITS);
    let head = head(tile.sizes);
    let end_row = at.seq * group;
    let first_row = from_the_end(CUBE_POS_X, CUBE_COUNT_X) * tile.rows;
    let end_key = at.past + (min(first_row + tile.rows, end_row) - 1) / group + 1;

    let mut q = Shared::<[A]>::new_slice(comptime!(tile.rows * (tile.sizes.head_dim + 1)));
    let mut kv = Shared::<[A]>::new_slice(comptime!(tile.keys * (tile.sizes.head_dim + 1)));
    let mut scores = Shared::<[A]>::new_slice(comptime!(tile.rows * (tile.keys + 1)));
    load_rows::<F, A>(queries, &mut q, &head, first_row, end_row, &at, scale.get::<A>(), tile);

    let mut result = Array::<A>::new(comptime!(rows_each * columns_each));
    let mut largest = Array::<A>::new(rows_each);
    let mut sum = Array::<A>::new(rows_each);
    #[unroll]
    for i in 0..comptime!(rows_each * columns_each) {
        result[i] = A::new(0.0);
    }
    #[unroll]
    for i in 0..rows_each {
        largest[i] = A::new(NEVER);
        sum[i] = A::new(0.0);
    }
    for first_key in range_stepped(0, end_key, tile.keys) {
        load_keys::<F, A>(keys, &mut kv, &head, first_key, end_key, &at, false, tile);
        sync_cube();
        let score = products::<A>(&q, &kv, tile);
        #[unroll]
        for i in 0..rows_each {
            let row = y + i * rows_apart;
            let newest = at.past + (first_row + row) / group;
            #[unroll]
            for j in 0..keys_each {
                let key = x + j * ROW_UNITS;
                let mut seen = A::new(NEVER);
                if first_key + key <= newest && first_key + key < end_key {
                    seen = score[i * keys_each + j];
                }
                scores[row * score_stride + key] = seen;
            }
        }
        sync_cube();
        load_keys::<F, A>(values, &mut kv, &head, first_key, end_key, &at, true, tile);
        let mut mine = Array::<A>::new(comptime!(rows_each * keys_each));
        #[unroll]
        for i in 0..rows_each {
            let row = y + i * rows_apart;
            let mut new_largest = largest[i];
            for key in 0..tile.keys {
                new_largest = max(new_largest, scores[row * score_stride + key]);
            }
            let factor = (largest[i] - new_largest).exp();
            largest[i] = new_largest;
            sum[i] *= factor;
            #[unroll]
            for c in 0..columns_each {
                result[i * columns_each + c] *= factor;
            }
            #[unroll]
            for j in 0..keys_each {
                mine[i * keys_each + j] = (scores[row * score_stride + x + j * ROW_UNITS] - new_largest).exp();
            }
        }
        sync_cube();
        #[unroll]
        for i in 0..rows_each {
            #[unroll]
            for j in 0..keys_each {
                scores[(y + i * rows_apart) * score_stride + x + j * ROW_UNITS] = mine[i * keys_each + j];
            }
        }
        sync_cube();
        for key in 0..tile.keys {
            #[unroll]
            for i in 0..rows_each {
                let p = scores[(y + i * rows_apart) * score_stride + key];
                sum[i] += p;
                #[unroll]
                for c in 0..columns_each {
                    let d = x + c * ROW_UNITS;
                    if d < comptime!(tile.sizes.head_dim) {
                        result[i * columns_each + c] += p * kv[key * stride + d];
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
            let to = row_at(&head, row, &at, tile.sizes);
            #[unroll]
            for c in 0..columns_each {
                let d = x + c * ROW_UNITS;
                if d < comptime!(tile.sizes.head_dim) {
                    out[to * comptime!(tile.sizes.head_dim) + d] = F::cast_from(result[i * columns_each + c] / sum[i]);
                }
            }
            if x == 0 {
                sums[to] = largest[i] + sum[i].ln();
            }
        }
    }
}
