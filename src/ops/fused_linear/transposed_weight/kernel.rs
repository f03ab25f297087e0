//! The kernel for weights that lie `[out, in]`, on matrix units: a cube makes some columns of the result at a time, its planes share
//! the rows of the weight out. What a plane reads of the weight it asks for at once, in the order in which matrix units take it:
//! which elements come first does not matter to a sum, so that a unit's 16 bytes of a row are its elements of two products. A
//! row that is to be multiplied is a column of the right factor. A plane brings its part of the rows once, for all columns of its cube.
//!
//! Where launches overlap, a cube asks for its weights before it waits for the rows, while the launch before it still runs.
//!
//! How fast it is hangs on how many cubes a processor has room for, and that on registers (`docs/results/decode_registers_h200.json`). Indices
//! have 64 bits, so that a unit reads at fixed distances from few addresses: sums of 32 bits could overflow, and each would be an
//! address with registers of its own.

#![expect(clippy::too_many_lines, reason = "a kernel is one sweep: its loops share what is in registers")]
#![expect(
    clippy::collapsible_if,
    reason = "what only some kernels have is left out of the others by an `if` of its own"
)]
#![expect(clippy::range_plus_one, reason = "slices of memory take half-open ranges")]

use cubecl::cmma::MmaDefinition;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::form::{DEPTH, MOST_ROWS, PAIR, PLANE, ROWS, SUMS, TransposedForm, WIDE};
use crate::ops::cube::{
    add_products, bring, inverse_rms, next_may_begin, own_arrived, plane_sum_of_neighbours, wait_for, zero_sums,
};

#[cube(launch, address_type = "u64")]
pub(super) fn transposed_linear<F: Float, N: Size, P: Size>(
    x: &mut [Vector<F, N>],
    norm: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    residual: &mut [F],
    y: &mut [F],
    eps: f32,
    width: usize,
    weight_row: usize,
    #[comptime] form: TransposedForm,
    #[define(F)] _type: ElemType,
) {
    let (rows, columns, planes) = comptime!((form.rows, form.columns(), form.planes()));
    let (steps, passes, vectors) = comptime!((form.steps(), form.passes(), form.input / WIDE));
    let unit = UNIT_POS as usize;
    let (plane, lane) = (unit / PLANE, unit % PLANE);
    let (g, t) = (lane / 4, lane % 4);
    let groups = width.div_ceil(columns);
    let mut group = CUBE_POS;
    let (mut low, mut high) = rows_of_weight(group, width, weight_row, form);
    // A plane brings the scales and the elements of rows that it multiplies, and waits for no other: of a step each row's vectors, one
    // row behind the other. They begin at a multiple of 128 bytes: copies to 16 behind one are
    // slow (`docs/results/copies_h200.json`).
    let mut factors = Shared::<[Vector<F, N>]>::new_aligned_slice(comptime!(rows * vectors), 128usize);
    let scale_vectors = comptime!(if form.norms { vectors } else { 1 });
    let mut scales = Shared::<[Vector<F, N>]>::new_aligned_slice(scale_vectors, 16usize);
    if comptime!(form.norms) {
        for pass in 0..passes {
            let first = (pass * planes + plane) * comptime!(steps * 4);
            for at in range_stepped(first + lane, min(first + comptime!(steps * 4), vectors), PLANE) {
                fetch::<F, N>(norm, at, &mut scales, at, form);
            }
        }
    }
    let mut lows = Array::<Vector<F, N>>::new(steps);
    let mut highs = Array::<Vector<F, N>>::new(steps);
    #[unroll]
    for s in 0..steps {
        lows[s] = ask::<F, N>(weight, low, plane * steps, s, form);
        highs[s] = ask::<F, N>(weight, high, plane * steps, s, form);
    }
    if comptime!(form.overlaps) {
        next_may_begin();
        wait_for::<Vector<F, N>>(x);
        if comptime!(form.adds) {
            wait_for::<F>(residual);
        }
    }
    let mut beside = ask_beside::<F>(&*residual, group, width, form);
    for pass in 0..passes {
        let first = (pass * planes + plane) * steps;
        #[unroll]
        for i in 0..comptime!((rows * steps * 4).div_ceil(PLANE)) {
            let at = i * PLANE + lane;
            let (step, in_step) = (first + at / comptime!(rows * 4), at % comptime!(rows * 4));
            if at < comptime!(rows * steps * 4) && step < comptime!(form.all_steps()) {
                let source = in_step / 4 * vectors + step * 4 + in_step % 4;
                fetch::<F, N>(&*x, source, &mut factors, step * comptime!(rows * 4) + in_step, form);
            }
        }
    }
    if comptime!(form.overlaps) {
        own_arrived();
    }
    sync_plane();

    let product = MmaDefinition::<F, F, f32>::new(ROWS, MOST_ROWS, DEPTH);
    let mut squares = Shared::<[f32]>::new_slice(comptime!(if form.norms { rows * planes } else { 1 }));
    if comptime!(form.norms && !form.sums_squares_along()) {
        let mut own = zero_sums::<P>();
        for pass in 0..passes {
            let first = (pass * planes + plane) * steps;
            let mine = (first * rows + g) * 4 + t;
            #[unroll]
            for s in 0..steps {
                if comptime!(form.is_even()) || first + s < comptime!(form.all_steps()) {
                    let mut factor = Vector::<F, N>::new(F::new(0.0));
                    if g < rows {
                        let at = mine + comptime!(s * rows * 4);
                        factor = factors[at];
                        factors[at] = factor * scales[first * 4 + t + comptime!(s * 4)];
                    }
                    add_products::<F, N, P>(product, factor, factor, factor, &mut own);
                }
            }
        }
        keep_squares::<P>(own, &mut squares, form);
    }

    // In the end of a group of columns some units share an element of the result.
    let shares = comptime!(form.shares());
    let (result, share) = (unit / shares, unit % shares);
    let (row, of_cube) = (result / columns, result % columns);
    let mut parts = Shared::<[f32]>::new_slice(comptime!(planes * form.sums_of_plane()));
    while group < groups {
        let next_group = group + CUBE_COUNT;
        let (next_low, next_high) = rows_of_weight(next_group, width, weight_row, form);
        let mut sums = zero_sums::<P>();
        let mut own = zero_sums::<P>();
        for pass in 0..passes {
            let first = (pass * planes + plane) * steps;
            // What is asked for next, of this group of columns or the next one.
            let mut next = first + comptime!(planes * steps);
            low += comptime!(planes * steps * 4);
            high += comptime!(planes * steps * 4);
            if pass + 1 == passes {
                next = plane * steps;
                low = next_low;
                high = next_high;
            }
            let mine = (first * rows + g) * 4 + t;
            #[unroll]
            for s in 0..steps {
                if comptime!(form.is_even()) || first + s < comptime!(form.all_steps()) {
                    // Columns of the right factor beyond the last row's are zeros.
                    let mut right = Vector::<F, N>::new(F::new(0.0));
                    if g < rows {
                        right = factors[mine + comptime!(s * rows * 4)];
                    }
                    if comptime!(form.sums_squares_along()) {
                        add_products::<F, N, P>(product, right, right, right, &mut own);
                        right *= scales[first * 4 + t + comptime!(s * 4)];
                    }
                    add_products::<F, N, P>(product, lows[s], highs[s], right, &mut sums);
                }
                if comptime!(passes > 1 || !form.once) {
                    if pass + 1 < passes || next_group < groups {
                        lows[s] = ask::<F, N>(weight, low, next, s, form);
                        highs[s] = ask::<F, N>(weight, high, next, s, form);
                    }
                }
            }
        }

        if comptime!(form.sums_squares_along()) {
            keep_squares::<P>(own, &mut squares, form);
        }
        // Sum `(plane, row of x, row of the left factor)`.
        #[unroll]
        for half in 0..2usize {
            #[unroll]
            for e in 0..PAIR {
                let of_row = 2 * t + e;
                if of_row < rows {
                    parts[plane * comptime!(form.sums_of_plane()) + of_row * SUMS + 8 * half + g] =
                        sums[half].extract(e) + sums[2 + half].extract(e);
                }
            }
        }
        sync_cube();
        if row < rows && group * columns + of_cube < width {
            let mut scale = f32::new(1.0);
            if comptime!(form.norms) {
                let square = whole(&squares, row * planes + share, 1usize, form);
                scale = inverse_rms::<f32>(square, comptime!(form.input as f32).runtime(), eps);
            }
            let first = share * comptime!(form.sums_of_plane()) + row * SUMS + of_cube;
            let mut sum = whole(&parts, first, comptime!(form.sums_of_plane()), form) * scale;
            if comptime!(form.gates) {
                let up = whole(&parts, first + 8, comptime!(form.sums_of_plane()), form) * scale;
                sum = sum * up / (f32::new(1.0) + (-sum).exp());
            }
            if comptime!(form.adds) {
                sum += f32::cast_from(beside);
            }
            if share == 0 {
                y[row * width + group * columns + of_cube] = F::cast_from(sum);
            }
        }
        group = next_group;
        if comptime!(form.once) {
            group = groups;
        } else if group < groups {
            beside = ask_beside::<F>(&*residual, group, width, form);
            sync_cube();
        }
    }
}

/// Copies a vector into the cube's memory, where launches overlap without waiting for it.
#[cube]
fn fetch<F: Float, N: Size>(
    from: &[Vector<F, N>],
    source: usize,
    to: &mut Shared<[Vector<F, N>]>,
    target: usize,
    #[comptime] form: TransposedForm,
) {
    if comptime!(form.overlaps) {
        bring::<F, N>(&from[source..source + 1], &mut to[target..target + 1], 16u32);
    } else {
        to[target] = from[source];
    }
}

/// Leaves a plane's part of each row's squares for the others: a row's product with itself is one of those of all rows with all.
#[cube]
fn keep_squares<P: Size>(own: Array<Vector<f32, P>>, squares: &mut Shared<[f32]>, #[comptime] form: TransposedForm) {
    let unit = UNIT_POS as usize;
    let (plane, lane) = (unit / PLANE, unit % PLANE);
    let (g, t) = (lane / 4, lane % 4);
    #[unroll]
    for e in 0..PAIR {
        if g < form.rows && g == 2 * t + e {
            squares[g * comptime!(form.planes()) + plane] = own[0].extract(e) + own[2].extract(e);
        }
    }
}

/// Asks for what is added to this unit's element of the result, zero where there is none.
#[cube]
fn ask_beside<F: Float>(residual: &[F], group: usize, width: usize, #[comptime] form: TransposedForm) -> F {
    let mut beside = F::new(0.0);
    if comptime!(form.adds) {
        let (columns, result) = (comptime!(form.columns()), UNIT_POS as usize / comptime!(form.shares()));
        let (row, column) = (result / columns, group * columns + result % columns);
        if row < form.rows && column < width {
            beside = residual[row * width + column];
        }
    }
    beside
}

/// Where the rows of the weight that this unit reads for a group of columns begin. A last group's beyond the end are the last.
#[cube]
fn rows_of_weight(group: usize, width: usize, weight_row: usize, #[comptime] form: TransposedForm) -> (usize, usize) {
    let lane = UNIT_POS as usize % PLANE;
    let (g, t) = (lane / 4, lane % 4);
    let column = group * comptime!(form.columns()) + g;
    let low = min(column, width - 1);
    let high = if comptime!(form.gates) { width + low } else { min(column + 8, width - 1) };
    let first = UNIT_POS as usize / PLANE * comptime!(form.steps() * 4) + t;
    (low * weight_row + first, high * weight_row + first)
}

/// Asks for a unit's vector of a row of the weight in the step that is `s` behind `first`, at which the row is given; zeros behind
/// the last step.
#[cube]
fn ask<F: Float, N: Size>(
    weight: &[Vector<F, N>],
    row: usize,
    first: usize,
    #[comptime] s: usize,
    #[comptime] form: TransposedForm,
) -> Vector<F, N> {
    let mut vector = Vector::<F, N>::new(F::new(0.0));
    if comptime!(form.is_even()) || first + s < comptime!(form.all_steps()) {
        vector = weight[row + comptime!(s * 4)];
    }
    vector
}

/// What all planes have of a sum, of which `first` is this unit's first share, the next plane's `stride` behind. All units that share it
/// must call this.
#[cube]
fn whole(parts: &Shared<[f32]>, first: usize, #[comptime] stride: usize, #[comptime] form: TransposedForm) -> f32 {
    let mut sum = parts[first];
    #[unroll]
    for round in 1..comptime!(form.planes() / form.shares()) {
        sum += parts[first + comptime!(round * form.shares() * stride)];
    }
    plane_sum_of_neighbours::<f32>(sum, comptime!(form.shares()))
}
