#![expect(clippy::too_many_lines, reason = "a kernel is one sweep: its loops share what is in registers")]

use std::f32::consts::LOG2_E;

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{
    COLUMNS, MatrixTile, PAIR, PLANE, Part, add_weighed, arrived, arrived_but, close_group, copy, exp2, exp2_of, gift,
    hide, keep, kept_products, products, row_max, row_sum, zeros,
};
use crate::ops::attention::places::{NEVER, Places, head_in_turn, late_tile_in_turn, row_at};
use crate::ops::cube::for_one_cube;

/// How far a score may lie above the largest known one, in powers of two: 16 bits still hold that much.
const MARGIN: f32 = 12.0;

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
    first_tiles: usize,
    #[comptime] tile: MatrixTile,
    #[define(F)] _type: ElemType,
) {
    for_one_cube();
    let (group, staying) = comptime!((tile.sizes.group(), tile.staying()));
    let (step, slots) = comptime!((tile.step(), tile.slots));
    let head = head_in_turn(tile.sizes);
    let lane = UNIT_POS_X as usize % PLANE;
    let (g, t) = (lane / 4, lane % 4);
    let plane = UNIT_POS_X as usize / PLANE;
    let (share, plane_row) = (plane / comptime!(tile.planes), plane % comptime!(tile.planes) * comptime!(tile.rows()));
    let end_row = at.seq * group;
    let first_row = late_tile_in_turn(first_tiles) * staying;
    let end_key = at.past + (min(first_row + staying, end_row) - 1) / group + 1;
    let first_newest = at.past + first_row / group;
    // Of a power of two instead of e.
    let scale = scale * LOG2_E;

    let mut q = Shared::<[Vector<F, W>]>::new_aligned_slice(comptime!(staying * tile.vectors()), 128usize);
    let mut k = Shared::<[Vector<F, W>]>::new_aligned_slice(comptime!(slots * step * tile.vectors()), 128usize);
    let mut v = Shared::<[Vector<F, W>]>::new_aligned_slice(comptime!(slots * step * tile.vectors()), 128usize);
    copy::<F, W>(queries, &mut q, 0, &head, first_row, end_row, &at, Part::Queries, staying, tile);
    copy::<F, W>(keys, &mut k, 0, &head, 0, end_key, &at, Part::Keys, step, tile);
    close_group();
    #[unroll]
    for i in 0..comptime!(slots - 1) {
        let (next, here) = (comptime!((i + 1) * step), comptime!(i * step));
        copy::<F, W>(keys, &mut k, next, &head, next.runtime(), end_key, &at, Part::Keys, step, tile);
        copy::<F, W>(values, &mut v, here, &head, here.runtime(), end_key, &at, Part::Values, step, tile);
        close_group();
    }
    arrived_but(comptime!(slots - 1));

    // Of each of a unit's rows, `2 r + j` being row `16 r + 8 j + g` of its plane. No score that does not count comes close
    // to the first largest ones.
    let rows = comptime!(2 * tile.lefts);
    let mut largest = Array::<f32>::new(rows);
    let mut total = Array::<f32>::new(rows);
    let mut newest = Array::<usize>::new(rows);
    #[unroll]
    for j in 0..rows {
        largest[j] = NEVER / 2.0;
        total[j] = 0.0;
        newest[j] = at.past + (first_row + plane_row + g + 8 * j) / group;
    }
    let (columns, features) = comptime!((tile.passing / COLUMNS, tile.sizes.head_dim / COLUMNS));
    let mut result = zeros::<P>(comptime!(tile.lefts * features));
    let share_key = share * comptime!(tile.passing);
    // Scores are one step of keys ahead of the values, so that their products are computed beside exponentials.
    let kept = keep::<F, W, P>(&q, plane_row, tile);
    let mut scores = kept_products::<F, W, P>(&kept, &k, share_key, tile);
    arrived_but(comptime!(slots - 2));
    for first_key in range_stepped(0, end_key, step) {
        let number = first_key / step;
        let (here, next) = (number % slots * step, (number + 1) % slots * step);
        let last = (number + comptime!(slots - 1)) % slots * step;
        let first_mine = first_key + share_key;
        let (values_to_come, keys_to_come) =
            (first_key + comptime!((slots - 1) * step), first_key + comptime!(slots * step));
        copy::<F, W>(keys, &mut k, here, &head, keys_to_come, end_key, &at, Part::Keys, step, tile);
        copy::<F, W>(values, &mut v, last, &head, values_to_come, end_key, &at, Part::Values, step, tile);
        close_group();
        if first_mine + tile.passing > first_newest + 1 {
            hide::<P>(&mut scores, first_mine, &newest, tile);
        }
        let mut found = Array::<f32>::new(rows);
        let mut grown = false;
        #[unroll]
        for j in 0..rows {
            let mut mine = NEVER.runtime();
            #[unroll]
            for i in 0..columns {
                let score = scores[tile.score(j, i)];
                mine = max(mine, max(score.extract(0usize), score.extract(1usize)));
            }
            found[j] = mine;
            grown = grown || (mine - largest[j]) * scale > MARGIN;
        }
        if plane_any(grown) {
            #[unroll]
            for j in 0..rows {
                let new_largest = max(largest[j], row_max(found[j]));
                let factor = exp2_of((largest[j] - new_largest) * scale);
                largest[j] = new_largest;
                total[j] *= factor;
                #[unroll]
                for i in 0..features {
                    result[tile.result(j, i)] *= Vector::new(factor);
                }
            }
        }
        // From here on nothing branches.
        let next_scores = if comptime!(tile.lefts == 1) {
            kept_products::<F, W, P>(&kept, &k, next + share_key, tile)
        } else {
            // More would not stay in registers.
            products::<F, W, P>(&q, plane_row, &k, next + share_key, tile)
        };
        #[unroll]
        for j in 0..rows {
            let least = -(largest[j] * scale);
            let mut sum = Vector::<f32, P>::new(0.0);
            #[unroll]
            for i in 0..columns {
                let p = exp2::<P>(scores[tile.score(j, i)] * Vector::new(scale) + Vector::new(least));
                scores[tile.score(j, i)] = p;
                sum += p;
            }
            total[j] += sum.vector_sum();
        }
        add_weighed::<F, W, P>(&scores, &v, here + share_key, &mut result, tile);
        #[unroll]
        for i in 0..comptime!(2 * tile.lefts * columns) {
            scores[i] = next_scores[i];
        }
        arrived_but(comptime!(slots - 2));
    }
    if comptime!(tile.shares > 1) {
        // What follows may lie where copies that nobody waits for arrive.
        arrived();
        let values = comptime!(2 * tile.lefts * features);
        let givers = comptime!(tile.givers());
        let mut results = Shared::<[Vector<f32, P>]>::new_slice(comptime!(values * givers));
        let mut scores = Shared::<[f32]>::new_slice(comptime!(2 * rows * givers));
        if share > 0 {
            let to = gift(share, tile);
            #[unroll]
            for i in 0..values {
                results[i * givers + to] = result[i];
            }
            #[unroll]
            for j in 0..rows {
                scores[j * givers + to] = largest[j];
                scores[(rows + j) * givers + to] = total[j];
            }
        }
        sync_cube();
        if share == 0 {
            #[unroll]
            for giver in 1..comptime!(tile.shares) {
                let from = gift(giver, tile);
                #[unroll]
                for j in 0..rows {
                    let (theirs, mine) = (scores[j * givers + from], largest[j]);
                    let both = max(mine, theirs);
                    let (keep, add) = (exp2_of((mine - both) * scale), exp2_of((theirs - both) * scale));
                    largest[j] = both;
                    total[j] = total[j] * keep + scores[(rows + j) * givers + from] * add;
                    #[unroll]
                    for i in 0..features {
                        let more = results[tile.result(j, i) * givers + from] * Vector::new(add);
                        let place = tile.result(j, i);
                        result[place] = result[place] * Vector::new(keep) + more;
                    }
                }
            }
        }
    }
    #[unroll]
    for j in 0..rows {
        let sum = row_sum(total[j]);
        let inverse = Vector::<f32, P>::new(1.0 / sum);
        let row = first_row + plane_row + g + 8 * j;
        if row < end_row && share == 0 {
            let to = row_at(&head, row, &at, tile.sizes);
            #[unroll]
            for i in 0..features {
                let value = result[tile.result(j, i)] * inverse;
                out[(to * comptime!(tile.sizes.head_dim) + i * COLUMNS) / PAIR + t] = Vector::cast_from(value);
            }
            if t == 0 {
                sums[to] = largest[j] * scale / LOG2_E + sum.ln();
            }
        }
    }
}
