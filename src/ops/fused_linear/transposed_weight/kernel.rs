//! The kernel for weights that lie `[out, in]`, on matrix units: a cube makes some columns of the result,
//! its planes share the rows of the weight out. What a plane reads of the weight it asks for at once, in the order in which
//! matrix units take it: which elements come first does not matter to a sum, so that a unit's 16 bytes of a row are its
//! elements of two products. A row that is to be multiplied is a column of the right factor.
//!
//! Where launches overlap, a cube asks for its weights before it waits for the rows, while the launch before it still runs.

#![expect(clippy::too_many_lines, reason = "a kernel is one sweep: its loops share what is in registers")]
#![expect(
    clippy::collapsible_if,
    reason = "what only some kernels have is left out of the others by an `if` of its own"
)]

use cubecl::cmma::MmaDefinition;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::ops::cube::{inverse_rms, next_may_begin, pair_of, wait_for};
// Columns of a right factor and of a sum.
pub(super) use crate::ops::fused_linear::MOST_ROWS;

/// Rows of a left factor and of a sum.
const ROWS: usize = 16;

/// Columns of a left factor, rows of a right one.
const DEPTH: usize = 16;

const PLANE: usize = 32;

/// Elements of a vector, 16 bytes.
pub(super) const WIDE: usize = 8;

/// Elements of a register.
pub(super) const PAIR: usize = 2;

/// Elements of a row in one step, two products: a vector of each of four units.
pub(super) const STEP: usize = 2 * DEPTH;

/// Steps that a plane asks for at once if there are planes enough, and most planes of a cube: of a product whose rows have a norm,
/// which every cube finds anew, and of others (`docs/results/decode_planes_h200.json`).
const NORMED: [usize; 2] = [8, 8];
const PLAIN: [usize; 2] = [6, 16];

/// Most steps at once, and fewest planes.
const MOST_STEPS: usize = 11;
const FEWEST_PLANES: usize = 4;

/// What a kernel is made for.
#[expect(clippy::struct_excessive_bools, reason = "each is a part that a kernel has or has not")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TransposedForm {
    /// Rows that are multiplied, and elements of each.
    pub rows: usize,
    pub input: usize,
    pub norms: bool,
    /// Whether the second half of the columns is gated by the first.
    pub gates: bool,
    pub adds: bool,
    /// Whether launches overlap.
    pub overlaps: bool,
}

impl TransposedForm {
    /// Columns of the result that a cube makes.
    pub fn columns(self) -> usize {
        ROWS / (1 + usize::from(self.gates))
    }

    pub fn units(self) -> usize {
        self.planes() * PLANE
    }

    fn planes(self) -> usize {
        let [steps, most] = if self.norms { NORMED } else { PLAIN };
        self.all_steps().div_ceil(steps).next_power_of_two().clamp(FEWEST_PLANES, most)
    }

    fn all_steps(self) -> usize {
        self.input / STEP
    }

    /// How often a plane asks.
    fn passes(self) -> usize {
        self.all_steps().div_ceil(self.planes() * MOST_STEPS)
    }

    /// Steps that it asks for each time.
    fn steps(self) -> usize {
        self.all_steps().div_ceil(self.planes() * self.passes())
    }

    /// Whether every plane asks once, and all for as many steps.
    fn is_even(self) -> bool {
        self.all_steps() == self.planes() * self.steps()
    }

    /// From one row to the next in the cube's memory, in vectors: one more than it has, so that rows begin in different banks.
    fn stride(self) -> usize {
        self.input / WIDE + 1
    }

    /// Bytes of the cube's memory: the rows, each plane's sums, and those of the rows' squares.
    pub fn memory(self) -> usize {
        self.rows * (16 * self.stride() + 4 * self.planes() * (ROWS + 1))
    }
}

#[cube(launch)]
pub(super) fn transposed_linear<F: Float, W: Float, N: Size, P: Size>(
    x: &mut [Vector<F, N>],
    norm: &[Vector<W, N>],
    weight: &[Vector<F, N>],
    residual: &mut [F],
    y: &mut [F],
    eps: f32,
    width: usize,
    weight_row: usize,
    #[comptime] form: TransposedForm,
    #[define(F, W)] _types: [ElemType; 2],
) {
    let (rows, columns, planes) = comptime!((form.rows, form.columns(), form.planes()));
    let (steps, passes, vectors) = comptime!((form.steps(), form.passes(), form.input / WIDE));
    let unit = UNIT_POS as usize;
    let (plane, lane) = (unit / PLANE, unit % PLANE);
    let (g, t) = (lane / 4, lane % 4);
    // Rows of the weight that this unit reads. A last cube's beyond the end are the last.
    let column = CUBE_POS * columns + g;
    let low = min(column, width - 1);
    let high = if comptime!(form.gates) { width + low } else { min(column + 8, width - 1) };
    let (low, high) = (low * weight_row + t, high * weight_row + t);
    let mut lows = Array::<Vector<F, N>>::new(steps);
    let mut highs = Array::<Vector<F, N>>::new(steps);
    #[unroll]
    for s in 0..steps {
        lows[s] = ask::<F, N>(weight, low, plane * steps + s, form);
        highs[s] = ask::<F, N>(weight, high, plane * steps + s, form);
    }
    if comptime!(form.overlaps) {
        next_may_begin();
        wait_for::<Vector<F, N>>(x);
        if comptime!(form.adds) {
            wait_for::<F>(residual);
        }
    }

    // In the end a unit has an element of the result.
    let (row, of_cube) = (unit / columns, unit % columns);
    let to = row * width + CUBE_POS * columns + of_cube;
    let has_result = row < rows && CUBE_POS * columns + of_cube < width;
    let mut beside = F::new(0.0);
    if comptime!(form.adds) {
        if has_result {
            beside = residual[to];
        }
    }
    let mut factors = Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(rows * form.stride()), 16usize);
    let mut squares = Shared::<[f32]>::new_slice(comptime!(rows * planes));
    #[unroll]
    for row in 0..rows {
        let mut square = f32::new(0.0);
        for at in range_stepped(unit, vectors, comptime!(form.units())) {
            let mut factor = x[row * vectors + at];
            if comptime!(form.norms) {
                let value = Vector::<f32, N>::cast_from(factor);
                square += (value * value).vector_sum();
                factor = Vector::cast_from(value * Vector::<f32, N>::cast_from(norm[at]));
            }
            factors[row * form.stride() + at] = factor;
        }
        if comptime!(form.norms) {
            let square = plane_sum(square);
            if lane == 0 {
                squares[row * planes + plane] = square;
            }
        }
    }
    sync_cube();

    let product = MmaDefinition::<F, F, f32>::new(ROWS, MOST_ROWS, DEPTH);
    // Of the two products of a step each has its own, so that they need not wait for each other.
    let mut sums = Array::<Vector<f32, P>>::new(4usize);
    #[unroll]
    for i in 0..4usize {
        sums[i] = Vector::new(0.0);
    }
    // Columns of the right factor beyond the last are the last, too; nobody reads their sums.
    let factor = min(g, rows - 1) * form.stride() + t;
    for pass in 0..passes {
        let first = (pass * planes + plane) * steps;
        #[unroll]
        for s in 0..steps {
            if comptime!(form.is_even()) || first + s < comptime!(form.all_steps()) {
                let right = factors[factor + (first + s) * 4];
                #[unroll]
                for half in 0..2usize {
                    let mut a = Array::<Vector<F, P>>::new(4usize);
                    let mut b = Array::<Vector<F, P>>::new(2usize);
                    #[unroll]
                    for pair in 0..2usize {
                        let from = comptime!(2 * half + pair);
                        a[2 * pair] = pair_of::<F, N, P>(lows[s], from);
                        a[2 * pair + 1] = pair_of::<F, N, P>(highs[s], from);
                        b[pair] = pair_of::<F, N, P>(right, from);
                    }
                    let mut before = Array::<Vector<f32, P>>::new(2usize);
                    before[0] = sums[2 * half];
                    before[1] = sums[2 * half + 1];
                    let after = product.execute(&a, &b, &before);
                    sums[2 * half] = after[0];
                    sums[2 * half + 1] = after[1];
                }
            }
            if comptime!(passes > 1) {
                let next = first + comptime!(planes * steps) + s;
                lows[s] = ask::<F, N>(weight, low, next, form);
                highs[s] = ask::<F, N>(weight, high, next, form);
            }
        }
    }

    // Sum `(plane, row of the left factor, row of x)`.
    let mut parts = Shared::<[f32]>::new_slice(comptime!(planes * ROWS * rows));
    #[unroll]
    for half in 0..2usize {
        #[unroll]
        for e in 0..PAIR {
            let of_row = 2 * t + e;
            if of_row < rows {
                parts[(plane * ROWS + 8 * half + g) * rows + of_row] =
                    sums[half].extract(e) + sums[2 + half].extract(e);
            }
        }
    }
    sync_cube();
    if has_result {
        let mut scale = f32::new(1.0);
        if comptime!(form.norms) {
            let mut square = f32::new(0.0);
            #[unroll]
            for plane in 0..planes {
                square += squares[row * planes + plane];
            }
            scale = inverse_rms::<f32>(square, comptime!(form.input as f32).runtime(), eps);
        }
        let mut sum = whole(&parts, of_cube * rows + row, form) * scale;
        if comptime!(form.gates) {
            let up = whole(&parts, (of_cube + 8) * rows + row, form) * scale;
            sum = sum * up / (f32::new(1.0) + (-sum).exp());
        }
        if comptime!(form.adds) {
            sum += f32::cast_from(beside);
        }
        y[to] = F::cast_from(sum);
    }
}

/// Asks for a unit's vector of a row of the weight in one step, zeros behind the last.
#[cube]
fn ask<F: Float, N: Size>(
    weight: &[Vector<F, N>],
    row: usize,
    step: usize,
    #[comptime] form: TransposedForm,
) -> Vector<F, N> {
    let mut vector = Vector::<F, N>::new(F::new(0.0));
    if comptime!(form.is_even()) || step < comptime!(form.all_steps()) {
        vector = weight[row + step * 4];
    }
    vector
}

/// What all planes have of the sum that is `at` in each one's.
#[cube]
fn whole(parts: &Shared<[f32]>, at: usize, #[comptime] form: TransposedForm) -> f32 {
    let mut sum = parts[at];
    #[unroll]
    for plane in 1..comptime!(form.planes()) {
        sum += parts[comptime!(plane * ROWS * form.rows) + at];
    }
    sum
}
