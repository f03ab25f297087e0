//! The kernels of [`super::cube`] for matrix units: products of 16 x 8 x 16 elements whose registers each unit of a plane
//! fills and reads itself, so that softmax and its gradient stay in registers (Dao 2023, arXiv:2307.08691).
//!
//! A plane of 32 units works on 16 rows (or keys). Unit `l` holds, with `g = l / 4` and `t = l % 4`, two elements side by
//! side in each register: of a left factor those of rows `g` and `g + 8` from columns `2 t` and `2 t + 8`; of a right
//! factor those of column `g` from rows `2 t` and `2 t + 8`; of a sum those of rows `g` and `g + 8` from column `2 t`. Two
//! sums side by side therefore become a left factor by rounding alone.

#![expect(
    clippy::range_plus_one,
    clippy::trivially_copy_pass_by_ref,
    reason = "slices of a cube's memory take half-open ranges, and registers are passed as the kernel has them"
)]

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::kernels::{Head, NEVER, Places, Sizes, from_the_end, head, head_of, key_at, query_at, row_at, value_at};

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

/// Elements in a register.
pub(super) const PAIR: usize = 2;

/// What one cube works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct MatrixTile {
    /// Planes of the cube with rows (or keys) of their own, which stay.
    pub planes: usize,
    /// Keys (or rows) that pass by a plane at a time.
    pub passing: usize,
    /// Planes that have the same rows, other keys passing by each; what they have is put together at the end. Keys that stay
    /// have one plane alone.
    pub shares: usize,
    pub sizes: Sizes,
}

impl MatrixTile {
    /// Rows (or keys) that stay.
    pub fn staying(self) -> usize {
        self.planes * ROWS
    }

    pub fn units(self) -> usize {
        self.planes * self.shares * PLANE
    }

    /// Keys that pass by all planes at a time.
    fn step(self) -> usize {
        self.passing * self.shares
    }

    /// Rows that a cube's memory has room for, of what stays or passes by.
    fn room(self) -> usize {
        self.staying().max(self.step())
    }

    /// Vectors of `count` rows that each unit copies.
    fn each(self, count: usize) -> usize {
        (count * self.sizes.head_dim / WIDE).div_ceil(self.units())
    }

    /// Units that leave what they have to those of the first share.
    fn givers(self) -> usize {
        (self.shares - 1) * self.planes * PLANE
    }

    /// From one row to the next in a cube's memory, in vectors: one more than a row has, so that rows begin in different
    /// banks.
    fn stride(self) -> usize {
        self.sizes.head_dim / WIDE + 1
    }

    /// Left factors in a row's features.
    fn steps(self) -> usize {
        self.sizes.head_dim / DEPTH
    }
}

/// Rows of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Queries,
    Results,
    Keys,
    Values,
}

/// A unit's share of `count` rows from `first` on; zeros from `end` on. What is read here may be on its way while other things
/// are computed, until [`store`] wants it.
#[cube]
fn fetch<F: Float, W: Size>(
    from: &[Vector<F, W>],
    to: &mut Array<Vector<F, W>>,
    head: &Head,
    first: usize,
    end: usize,
    at: &Places,
    #[comptime] part: Part,
    #[comptime] count: usize,
    #[comptime] tile: MatrixTile,
) {
    let vectors = comptime!(tile.sizes.head_dim / WIDE);
    #[unroll]
    for i in 0..comptime!(tile.each(count)) {
        let place = UNIT_POS as usize + comptime!(i * tile.units());
        let (row, d) = (place / vectors, place % vectors);
        let mut value = Vector::<F, W>::new(F::new(0.0));
        if row < count && first + row < end {
            let start = if comptime!(part == Part::Queries) {
                query_at(head, first + row, at, tile.sizes)
            } else if comptime!(part == Part::Results) {
                row_at(head, first + row, at, tile.sizes) * comptime!(tile.sizes.head_dim)
            } else if comptime!(part == Part::Keys) {
                key_at(head, first + row, at)
            } else {
                value_at(head, first + row, at)
            };
            value = from[start / WIDE + d];
        }
        to[i] = value;
    }
}

/// Leaves a unit's share of `count` rows in the cube's memory.
#[cube]
fn store<F: Float, W: Size>(
    from: &Array<Vector<F, W>>,
    to: &mut Shared<[Vector<F, W>]>,
    #[comptime] count: usize,
    #[comptime] tile: MatrixTile,
) {
    let vectors = comptime!(tile.sizes.head_dim / WIDE);
    #[unroll]
    for i in 0..comptime!(tile.each(count)) {
        let place = UNIT_POS as usize + comptime!(i * tile.units());
        let (row, d) = (place / vectors, place % vectors);
        if row < count {
            to[row * comptime!(tile.stride()) + d] = from[i];
        }
    }
}

/// Copies `count` rows from `first` on; zeros from `end` on.
#[cube]
fn copy<F: Float, W: Size>(
    from: &[Vector<F, W>],
    to: &mut Shared<[Vector<F, W>]>,
    head: &Head,
    first: usize,
    end: usize,
    at: &Places,
    #[comptime] part: Part,
    #[comptime] count: usize,
    #[comptime] tile: MatrixTile,
) {
    let mut rows = Array::<Vector<F, W>>::new(comptime!(tile.each(count)));
    fetch::<F, W>(from, &mut rows, head, first, end, at, part, count, tile);
    store::<F, W>(&rows, to, count, tile);
}

/// The left factor of 16 rows from `row` and 16 features from `16 step`.
#[cube]
fn left<F: Float, W: Size, P: Size>(
    from: &Shared<[Vector<F, W>]>,
    row: usize,
    step: usize,
    #[comptime] tile: MatrixTile,
) -> Array<Vector<F, P>> {
    let product = MmaDefinition::<F, F, f32>::new(ROWS, COLUMNS, DEPTH);
    let lane = UNIT_POS_PLANE as usize;
    let start = (row + lane % 16) * comptime!(tile.stride()) + 2 * step + lane / 16;
    product.load_matrix::<Vector<F, W>, P>(&from[start..start + 1], MatrixIdent::A, 4usize, false)
}

/// Two right factors side by side, whose columns are 16 rows from `row` and whose rows are 16 features from `16 step`.
#[cube]
fn right_across<F: Float, W: Size, P: Size>(
    from: &Shared<[Vector<F, W>]>,
    row: usize,
    step: usize,
    #[comptime] tile: MatrixTile,
) -> Array<Vector<F, P>> {
    let product = MmaDefinition::<F, F, f32>::new(ROWS, COLUMNS, DEPTH);
    let lane = UNIT_POS_PLANE as usize;
    let start = (row + lane / 16 * 8 + lane % 8) * comptime!(tile.stride()) + 2 * step + lane / 8 % 2;
    product.load_matrix::<Vector<F, W>, P>(&from[start..start + 1], MatrixIdent::B, 4usize, false)
}

/// Two right factors side by side, whose rows are 16 rows from `row` and whose columns are 16 features from `16 step`.
#[cube]
fn right_along<F: Float, W: Size, P: Size>(
    from: &Shared<[Vector<F, W>]>,
    row: usize,
    step: usize,
    #[comptime] tile: MatrixTile,
) -> Array<Vector<F, P>> {
    let product = MmaDefinition::<F, F, f32>::new(ROWS, COLUMNS, DEPTH);
    let lane = UNIT_POS_PLANE as usize;
    let start = (row + lane % 16) * comptime!(tile.stride()) + 2 * step + lane / 16;
    product.load_matrix::<Vector<F, W>, P>(&from[start..start + 1], MatrixIdent::B, 4usize, true)
}

/// Adds the products of a left factor with two right ones to the sums from `first` on.
#[cube]
fn add_products<F: Float, P: Size>(
    a: &Array<Vector<F, P>>,
    b: &Array<Vector<F, P>>,
    sums: &mut Array<Vector<f32, P>>,
    #[comptime] first: usize,
) {
    let product = MmaDefinition::<F, F, f32>::new(ROWS, COLUMNS, DEPTH);
    #[unroll]
    for half in 0..2usize {
        let mut right = Array::<Vector<F, P>>::new(2usize);
        right[0] = b[2 * half];
        right[1] = b[2 * half + 1];
        let at = comptime!(2 * (first + half));
        let mut before = Array::<Vector<f32, P>>::new(2usize);
        before[0] = sums[at];
        before[1] = sums[at + 1];
        let after = product.execute(a, &right, &before);
        sums[at] = after[0];
        sums[at + 1] = after[1];
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

/// Two sums side by side, from `2 step` on, as a left factor.
#[cube]
fn as_left<F: Float, P: Size>(sums: &Array<Vector<f32, P>>, #[comptime] step: usize) -> Array<Vector<F, P>> {
    let mut a = Array::<Vector<F, P>>::new(4usize);
    #[unroll]
    for i in 0..4usize {
        a[i] = Vector::cast_from(sums[comptime!(4 * step) + i]);
    }
    a
}

/// Keeps the left factors of this plane's rows.
#[cube]
fn keep<F: Float, W: Size, P: Size>(
    from: &Shared<[Vector<F, W>]>,
    row: usize,
    #[comptime] tile: MatrixTile,
) -> Array<Vector<F, P>> {
    let mut kept = Array::<Vector<F, P>>::new(comptime!(4 * tile.steps()));
    #[unroll]
    for step in 0..comptime!(tile.steps()) {
        let a = left::<F, W, P>(from, row, step, tile);
        #[unroll]
        for i in 0..4usize {
            kept[4 * step + i] = a[i];
        }
    }
    kept
}

/// Products of kept rows with the rows that pass by, from `first` of the cube's memory on.
#[cube]
fn products<F: Float, W: Size, P: Size>(
    kept: &Array<Vector<F, P>>,
    passing: &Shared<[Vector<F, W>]>,
    first: usize,
    #[comptime] tile: MatrixTile,
) -> Array<Vector<f32, P>> {
    let mut sums = zeros::<P>(comptime!(tile.passing / COLUMNS));
    #[unroll]
    for step in 0..comptime!(tile.steps()) {
        let mut a = Array::<Vector<F, P>>::new(4usize);
        #[unroll]
        for i in 0..4usize {
            a[i] = kept[4 * step + i];
        }
        #[unroll]
        for two in 0..comptime!(tile.passing / DEPTH) {
            let b = right_across::<F, W, P>(passing, first + two * DEPTH, step, tile);
            add_products::<F, P>(&a, &b, &mut sums, 2 * two);
        }
    }
    sums
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
        let a = as_left::<F, P>(weights, step);
        #[unroll]
        for two in 0..comptime!(tile.steps()) {
            let b = right_along::<F, W, P>(passing, first + step * DEPTH, two, tile);
            add_products::<F, P>(&a, &b, sums, 2 * two);
        }
    }
}

/// Where a unit of a further share leaves what it has, or a unit of the first finds what the next has; `share` is of the giver.
#[cube]
fn gift(share: usize, #[comptime] tile: MatrixTile) -> usize {
    let unit = UNIT_POS as usize % comptime!(tile.planes * PLANE);
    (share - 1) * comptime!(tile.planes * PLANE) + unit
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

/// Attention, and the logarithm of each row's sum of exponentials.
#[cube(launch)]
pub(super) fn matrix_forward<F: Float, W: Size, P: Size>(
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

/// Gradients of the queries of one tile: all keys they see pass by.
#[cube(launch)]
pub(super) fn matrix_query_gradients<F: Float, W: Size, P: Size>(
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
pub(super) fn matrix_key_gradients<F: Float, W: Size, P: Size>(
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
pub(super) fn key_gradients_combine<F: Float, P: Size>(
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
