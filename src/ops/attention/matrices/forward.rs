#![expect(clippy::too_many_lines, reason = "a kernel is one sweep: its loops share what is in registers")]

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{
    COLUMNS, MatrixTile, PAIR, PLANE, Part, ROWS, add_weighed, copy, fetch, gift, keep, products, row_max, row_sum,
    store, zeros,
};
use crate::ops::attention::places::{NEVER, Places, from_the_end, head, row_at};

/// Attention, and the logarithm of each row's sum of exponentials.
#[cube(launch)]
pub fn matrix_forward<F: Float, W: Size, P: Size>(
    queries: &[Vector<F, W>],
    keys: &[Vector<F, W>],
    values: &[Vector<F, W>],
    out: &mut [Vector<F, P>],
    sums: &mut [f32],
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
    let first_newest = at.past + first_row / group;

    let mut k = Shared::<[Vector<F, W>]>::new_aligned_slice(comptime!(tile.room() * tile.stride()), 16usize);
    let mut v = Shared::<[Vector<F, W>]>::new_aligned_slice(comptime!(tile.room() * tile.stride()), 16usize);
    copy::<F, W>(queries, &mut k, &head, first_row, end_row, &at, Part::Queries, staying, tile);
    sync_cube();
    let q = keep::<F, W, P>(&k, plane_row, tile);
    sync_cube();

    let mut result = zeros::<P>(comptime!(tile.sizes.head_dim / COLUMNS));
    let mut largest = Array::<f32>::new(2usize);
    let mut total = Array::<f32>::new(2usize);
    let mut newest = Array::<usize>::new(2usize);
    #[unroll]
    for j in 0..2usize {
        largest[j] = NEVER;
        total[j] = 0.0;
        newest[j] = at.past + (first_row + plane_row + g + 8 * j) / group;
    }
    let step = comptime!(tile.step());
    let mut next_keys = Array::<Vector<F, W>>::new(comptime!(tile.each(step)));
    let mut next_values = Array::<Vector<F, W>>::new(comptime!(tile.each(step)));
    fetch::<F, W>(keys, &mut next_keys, &head, 0, end_key, &at, Part::Keys, step, tile);
    fetch::<F, W>(values, &mut next_values, &head, 0, end_key, &at, Part::Values, step, tile);
    for first_key in range_stepped(0, end_key, step) {
        store::<F, W>(&next_keys, &mut k, step, tile);
        store::<F, W>(&next_values, &mut v, step, tile);
        sync_cube();
        fetch::<F, W>(keys, &mut next_keys, &head, first_key + step, end_key, &at, Part::Keys, step, tile);
        fetch::<F, W>(values, &mut next_values, &head, first_key + step, end_key, &at, Part::Values, step, tile);
        let mut scores = products::<F, W, P>(&q, &k, mine, tile);
        #[unroll]
        for i in 0..comptime!(2 * columns) {
            scores[i] *= Vector::new(scale);
        }
        if first_key + mine + tile.passing > first_newest + 1 {
            #[unroll]
            for i in 0..columns {
                #[unroll]
                for j in 0..2usize {
                    let mut seen = scores[2 * i + j];
                    #[unroll]
                    for e in 0..2usize {
                        if first_key + mine + i * COLUMNS + 2 * t + e > newest[j] {
                            seen.insert(e, NEVER);
                        }
                    }
                    scores[2 * i + j] = seen;
                }
            }
        }
        #[unroll]
        for j in 0..2usize {
            let mut mine = largest[j];
            #[unroll]
            for i in 0..columns {
                mine = max(mine, max(scores[2 * i + j].extract(0usize), scores[2 * i + j].extract(1usize)));
            }
            let new_largest = row_max(mine);
            let factor = (largest[j] - new_largest).exp();
            largest[j] = new_largest;
            let mut sum = Vector::<f32, P>::new(0.0);
            #[unroll]
            for i in 0..columns {
                let p = (scores[2 * i + j] - Vector::new(new_largest)).exp();
                scores[2 * i + j] = p;
                sum += p;
            }
            total[j] = total[j] * factor + sum.vector_sum();
            #[unroll]
            for i in 0..comptime!(tile.sizes.head_dim / COLUMNS) {
                result[2 * i + j] *= Vector::new(factor);
            }
        }
        add_weighed::<F, W, P>(&scores, &v, mine, &mut result, tile);
        sync_cube();
    }
    if comptime!(tile.shares > 1) {
        // Of a row that sees none of its keys a share has sums of nothing, whose largest score is as good as none.
        let values = comptime!(2 * tile.sizes.head_dim / COLUMNS);
        let givers = comptime!(tile.givers());
        let mut results = Shared::<[Vector<f32, P>]>::new_slice(comptime!(values * givers));
        let mut scores = Shared::<[f32]>::new_slice(comptime!(4 * givers));
        if share > 0 {
            let to = gift(share, tile);
            #[unroll]
            for i in 0..values {
                results[i * givers + to] = result[i];
            }
            #[unroll]
            for j in 0..2usize {
                scores[j * givers + to] = largest[j];
                scores[(2 + j) * givers + to] = total[j];
            }
        }
        sync_cube();
        if share == 0 {
            #[unroll]
            for giver in 1..comptime!(tile.shares) {
                let from = gift(giver, tile);
                #[unroll]
                for j in 0..2usize {
                    let (theirs, mine) = (scores[j * givers + from], largest[j]);
                    let both = max(mine, theirs);
                    let (keep, add) = ((mine - both).exp(), (theirs - both).exp());
                    largest[j] = both;
                    total[j] = total[j] * keep + scores[(2 + j) * givers + from] * add;
                    #[unroll]
                    for i in 0..comptime!(tile.sizes.head_dim / COLUMNS) {
                        let more = results[(2 * i + j) * givers + from] * Vector::new(add);
                        result[2 * i + j] = result[2 * i + j] * Vector::new(keep) + more;
                    }
                }
            }
        }
    }
    #[unroll]
    for j in 0..2usize {
        let sum = row_sum(total[j]);
        let row = first_row + plane_row + g + 8 * j;
        if row < end_row && share == 0 {
            let to = row_at(&head, row, &at, tile.sizes);
            #[unroll]
            for i in 0..comptime!(tile.sizes.head_dim / COLUMNS) {
                let value = result[2 * i + j] / Vector::new(sum);
                out[(to * comptime!(tile.sizes.head_dim) + i * COLUMNS) / PAIR + t] = Vector::cast_from(value);
            }
            if t == 0 {
                sums[to] = largest[j] + sum.ln();
            }
        }
    }
}
