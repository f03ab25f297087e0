//! The kernels of [`super::cube`] for matrix units: products of 16 x 8 x 16 elements whose registers each unit of a plane
//! fills and reads itself, so that softmax and its gradient stay in registers (Dao 2023, arXiv:2307.08691).
//!
//! A plane of 32 units works on left factors of 16 rows (or keys). Unit `l` holds, with `g = l / 4` and `t = l % 4`, two elements side by
//! side in each register: of a left factor those of rows `g` and `g + 8` from columns `2 t` and `2 t + 8`; of a right
//! factor those of column `g` from rows `2 t` and `2 t + 8`; of a sum those of rows `g` and `g + 8` from column `2 t`. Two
//! sums side by side therefore become a left factor by rounding alone.

#![expect(
    clippy::range_plus_one,
    clippy::trivially_copy_pass_by_ref,
    reason = "slices of a cube's memory take half-open ranges, and registers are passed as the kernel has them"
)]

mod copies;
mod forward;
mod gradients;
mod tile;

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

use crate::ops::cube::add_product;
pub(super) use crate::ops::cube::exp2_of;

use super::places::NEVER;

use copies::{Part, arrived, arrived_but, close_group, copy};
pub(super) use forward::matrix_forward;
pub(super) use gradients::{matrix_key_gradients, matrix_query_gradients};
pub(super) use tile::MatrixTile;

/// Rows of a plane, which are those of a left factor and of a sum.
const ROWS: usize = 16;

/// Columns of a left factor, rows of a right one.
const DEPTH: usize = 16;

/// Columns of a right factor and of a sum.
const COLUMNS: usize = 8;

/// Units of a plane.
pub(super) const PLANE: usize = 32;

/// Elements copied at once, 16 bytes.
pub(super) const WIDE: usize = 8;

/// Vectors in a line of a cube's memory, which is 128 bytes that are read or written at once.
const LINE: usize = 8;

/// Elements in a register.
pub(super) const PAIR: usize = 2;

/// Where vector `vector` of row `row` lies in a cube's memory. Rows are not padded, whose copies would take up to twice the time
/// (`docs/results/copies_h200.json`): vectors of a line change places by their row.
#[cube]
fn place(row: usize, vector: usize, #[comptime] tile: MatrixTile) -> usize {
    let swapped = comptime!(tile.swapped());
    let turn = row / comptime!(LINE / swapped) % swapped;
    row * comptime!(tile.vectors()) + (vector ^ turn)
}

/// Where the vector lies that is `further` ones and `first + row` rows behind that at `place`, one of the first two of its row;
/// `further` is even, `first` and `row` are multiples of eight. `place` is all that differs between units, and need be computed once.
#[cube]
fn place_behind(
    place: usize,
    first: usize,
    #[comptime] row: usize,
    #[comptime] further: usize,
    #[comptime] tile: MatrixTile,
) -> usize {
    let (vectors, swapped) = comptime!((tile.vectors(), tile.swapped()));
    let place = place ^ comptime!(further % swapped);
    place + first * vectors + comptime!(row * vectors + further / swapped * swapped)
}

/// The left factor of 16 rows `row` behind `first` and 16 features from `16 step`.
#[cube]
fn left_factor<F: Float, W: Size, P: Size>(
    from: &Shared<[Vector<F, W>]>,
    first: usize,
    #[comptime] row: usize,
    #[comptime] step: usize,
    #[comptime] tile: MatrixTile,
) -> Array<Vector<F, P>> {
    let product = MmaDefinition::<F, F, f32>::new(ROWS, COLUMNS, DEPTH);
    let lane = UNIT_POS_PLANE as usize;
    let start = place_behind(place(lane % 16, lane / 16, tile), first, row, 2 * step, tile);
    product.load_matrix::<Vector<F, W>, P>(&from[start..start + 1], MatrixIdent::A, 4usize, false)
}

/// Two right factors side by side, whose columns are 16 rows `row` behind `first` and whose rows are 16 features from `16 step`.
#[cube]
fn right_across<F: Float, W: Size, P: Size>(
    from: &Shared<[Vector<F, W>]>,
    first: usize,
    #[comptime] row: usize,
    #[comptime] step: usize,
    #[comptime] tile: MatrixTile,
) -> Array<Vector<F, P>> {
    let product = MmaDefinition::<F, F, f32>::new(ROWS, COLUMNS, DEPTH);
    let lane = UNIT_POS_PLANE as usize;
    let start = place_behind(place(lane / 16 * 8 + lane % 8, lane / 8 % 2, tile), first, row, 2 * step, tile);
    product.load_matrix::<Vector<F, W>, P>(&from[start..start + 1], MatrixIdent::B, 4usize, false)
}

/// Two right factors side by side, whose rows are 16 rows `row` behind `first` and whose columns are 16 features from `16 step`.
#[cube]
fn right_along<F: Float, W: Size, P: Size>(
    from: &Shared<[Vector<F, W>]>,
    first: usize,
    #[comptime] row: usize,
    #[comptime] step: usize,
    #[comptime] tile: MatrixTile,
) -> Array<Vector<F, P>> {
    let product = MmaDefinition::<F, F, f32>::new(ROWS, COLUMNS, DEPTH);
    let lane = UNIT_POS_PLANE as usize;
    let start = place_behind(place(lane % 16, lane / 16, tile), first, row, 2 * step, tile);
    product.load_matrix::<Vector<F, W>, P>(&from[start..start + 1], MatrixIdent::B, 4usize, true)
}

/// Adds the products of left factors with two right ones to the sums from column block `first` of `columns` on.
#[cube]
fn add_products<F: Float, P: Size>(
    lefts: &Array<Vector<F, P>>,
    b: &Array<Vector<F, P>>,
    sums: &mut Array<Vector<f32, P>>,
    #[comptime] first: usize,
    #[comptime] columns: usize,
    #[comptime] tile: MatrixTile,
) {
    let product = MmaDefinition::<F, F, f32>::new(ROWS, COLUMNS, DEPTH);
    #[unroll]
    for left in 0..comptime!(tile.lefts) {
        let mut a = Array::<Vector<F, P>>::new(4usize);
        #[unroll]
        for i in 0..4usize {
            a[i] = lefts[4 * left + i];
        }
        #[unroll]
        for half in 0..2usize {
            let mut right = Array::<Vector<F, P>>::new(2usize);
            right[0] = b[2 * half];
            right[1] = b[2 * half + 1];
            let at = comptime!(2 * (left * columns + first + half));
            add_product::<F, P>(product, &a, &right, sums, at);
        }
    }
}

/// `count` sums of zero.
#[cube]
fn zeros<P: Size>(#[comptime] count: usize) -> Array<Vector<f32, P>> {
    let mut sums = Array::<Vector<f32, P>>::new(comptime!(2 * count));
    #[unroll]
    for i in 0..comptime!(2 * count) {
        sums[i] = Vector::new(0.0);
    }
    sums
}

/// Two sums side by side of each row, from column block `2 step` on, as left factors.
#[cube]
fn as_lefts<F: Float, P: Size>(
    sums: &Array<Vector<f32, P>>,
    #[comptime] step: usize,
    #[comptime] tile: MatrixTile,
) -> Array<Vector<F, P>> {
    let mut factors = Array::<Vector<F, P>>::new(comptime!(4 * tile.lefts));
    #[unroll]
    for left in 0..comptime!(tile.lefts) {
        #[unroll]
        for i in 0..4usize {
            let at = comptime!(tile.score(2 * left, 2 * step) + i);
            factors[4 * left + i] = Vector::cast_from(sums[at]);
        }
    }
    factors
}

/// The left factors of a plane's rows, from `row` of the cube's memory on, and 16 features from `16 step`.
#[cube]
fn lefts<F: Float, W: Size, P: Size>(
    from: &Shared<[Vector<F, W>]>,
    row: usize,
    #[comptime] step: usize,
    #[comptime] tile: MatrixTile,
) -> Array<Vector<F, P>> {
    let mut factors = Array::<Vector<F, P>>::new(comptime!(4 * tile.lefts));
    #[unroll]
    for left in 0..comptime!(tile.lefts) {
        let a = left_factor::<F, W, P>(from, row, left * ROWS, step, tile);
        #[unroll]
        for i in 0..4usize {
            factors[4 * left + i] = a[i];
        }
    }
    factors
}

/// Products of a plane's rows, from `row` of the cube's memory on, with the rows that pass by, from `first` on.
#[cube]
fn products<F: Float, W: Size, P: Size>(
    staying: &Shared<[Vector<F, W>]>,
    row: usize,
    passing: &Shared<[Vector<F, W>]>,
    first: usize,
    #[comptime] tile: MatrixTile,
) -> Array<Vector<f32, P>> {
    let mut sums = zeros::<P>(comptime!(tile.lefts * tile.passing / COLUMNS));
    #[unroll]
    for step in 0..comptime!(tile.steps()) {
        let a = lefts::<F, W, P>(staying, row, step, tile);
        add_across::<F, W, P>(&a, passing, first, step, &mut sums, tile);
    }
    sums
}

/// Left factors of a plane's rows, to stay in registers.
#[cube]
fn keep<F: Float, W: Size, P: Size>(
    from: &Shared<[Vector<F, W>]>,
    row: usize,
    #[comptime] tile: MatrixTile,
) -> Array<Vector<F, P>> {
    let each = comptime!(4 * tile.lefts);
    let mut kept = Array::<Vector<F, P>>::new(comptime!(each * tile.steps()));
    #[unroll]
    for step in 0..comptime!(tile.steps()) {
        let a = lefts::<F, W, P>(from, row, step, tile);
        #[unroll]
        for i in 0..each {
            kept[each * step + i] = a[i];
        }
    }
    kept
}

/// [`products`] of rows in registers.
#[cube]
fn kept_products<F: Float, W: Size, P: Size>(
    kept: &Array<Vector<F, P>>,
    passing: &Shared<[Vector<F, W>]>,
    first: usize,
    #[comptime] tile: MatrixTile,
) -> Array<Vector<f32, P>> {
    let each = comptime!(4 * tile.lefts);
    let mut sums = zeros::<P>(comptime!(tile.lefts * tile.passing / COLUMNS));
    #[unroll]
    for step in 0..comptime!(tile.steps()) {
        let mut a = Array::<Vector<F, P>>::new(each);
        #[unroll]
        for i in 0..each {
            a[i] = kept[each * step + i];
        }
        add_across::<F, W, P>(&a, passing, first, step, &mut sums, tile);
    }
    sums
}

/// Adds to `sums` the products of left factors with the rows that pass by, along 16 features from `16 step`.
#[cube]
fn add_across<F: Float, W: Size, P: Size>(
    a: &Array<Vector<F, P>>,
    passing: &Shared<[Vector<F, W>]>,
    first: usize,
    #[comptime] step: usize,
    sums: &mut Array<Vector<f32, P>>,
    #[comptime] tile: MatrixTile,
) {
    #[unroll]
    for two in 0..comptime!(tile.passing / DEPTH) {
        let b = right_across::<F, W, P>(passing, first, two * DEPTH, step, tile);
        add_products::<F, P>(a, &b, sums, 2 * two, comptime!(tile.passing / COLUMNS), tile);
    }
}

/// Adds `weights`, one for each row that passes by, times these rows to `sums`; they begin at `first` of the cube's memory.
#[cube]
fn add_weighed<F: Float, W: Size, P: Size>(
    weights: &Array<Vector<f32, P>>,
    passing: &Shared<[Vector<F, W>]>,
    first: usize,
    sums: &mut Array<Vector<f32, P>>,
    #[comptime] tile: MatrixTile,
) {
    #[unroll]
    for step in 0..comptime!(tile.passing / DEPTH) {
        let a = as_lefts::<F, P>(weights, step, tile);
        #[unroll]
        for two in 0..comptime!(tile.steps()) {
            let b = right_along::<F, W, P>(passing, first, step * DEPTH, two, tile);
            add_products::<F, P>(&a, &b, sums, 2 * two, comptime!(tile.sizes.head_dim / COLUMNS), tile);
        }
    }
}

/// Scores that do not count: of keys, the first of which is `first`, behind the `newest` that a row sees.
#[cube]
fn hide<P: Size>(
    scores: &mut Array<Vector<f32, P>>,
    first: usize,
    newest: &Array<usize>,
    #[comptime] tile: MatrixTile,
) {
    let columns = comptime!(tile.passing / COLUMNS);
    let t = UNIT_POS_X as usize % 4;
    #[unroll]
    for j in 0..comptime!(2 * tile.lefts) {
        #[unroll]
        for i in 0..columns {
            let mut seen = scores[tile.score(j, i)];
            #[unroll]
            for e in 0..2usize {
                if first + i * COLUMNS + 2 * t + e > newest[j] {
                    seen.insert(e, NEVER);
                }
            }
            scores[tile.score(j, i)] = seen;
        }
    }
}

/// Where a unit of a further share leaves what it has, or a unit of the first finds what the next has; `share` is of the giver.
#[cube]
fn gift(share: usize, #[comptime] tile: MatrixTile) -> usize {
    let unit = UNIT_POS_X as usize % comptime!(tile.planes * PLANE);
    (share - 1) * comptime!(tile.planes * PLANE) + unit
}

/// Two to the power of each, see [`exp2_of`]. Whatever multiplies these matrices takes PTX.
#[cube]
pub(super) fn exp2<P: Size>(exponents: Vector<f32, P>) -> Vector<f32, P> {
    let mut powers = exponents;
    #[unroll]
    for e in 0..exponents.vector_size() {
        powers.insert(e, exp2_of(exponents.extract(e)));
    }
    powers
}

/// Over the four units that share a row.
#[cube]
fn row_max(value: f32) -> f32 {
    let value = max(value, plane_shuffle_xor(value, 1));
    max(value, plane_shuffle_xor(value, 2))
}

/// Over the four units that share a row.
#[cube]
fn row_sum(value: f32) -> f32 {
    let value = value + plane_shuffle_xor(value, 1);
    value + plane_shuffle_xor(value, 2)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::ops::attention::places::Sizes;

    #[test]
    fn vectors_have_places_of_their_own_and_those_of_eight_rows_share_no_banks() {
        for head_dim in (16..=128).step_by(16) {
            let sizes = Sizes { query: 1, key_value: 1, head_dim };
            let tile = MatrixTile { planes: 4, lefts: 1, passing: 32, shares: 1, slots: 2, sizes };
            let vectors = tile.vectors();
            let all: HashSet<_> = (0..16 * vectors).map(|i| place(i / vectors, i % vectors, tile)).collect();
            assert_eq!(all, (0..16 * vectors).collect(), "{head_dim}");
            for vector in 0..vectors {
                let banks: HashSet<_> = (0..8).map(|row| place(row, vector, tile) % LINE).collect();
                assert_eq!(banks.len(), 8, "{head_dim}, vector {vector}");
                for (first, row) in [(0, 0), (32, 16)] {
                    let behind = place_behind(place(3, vector % 2, tile), first, row, vector / 2 * 2, tile);
                    assert_eq!(behind, place(first + row + 3, vector, tile), "{head_dim}, vector {vector}");
                }
            }
        }
    }
}
