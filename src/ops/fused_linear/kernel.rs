//! The kernel of [`super::cube`] and what it is made for.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::ops::cube::{Team, cube_sum, inverse_rms, plane_sum_of_every};

/// Vectors of the weight that a unit asks for at once, and again before it uses them.
const IN_FLIGHT: usize = 4;

/// Elements of a row that a unit asks for before it makes them ready.
const AT_ONCE: usize = 8;

/// What a kernel is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Form {
    pub team: Team,
    pub rows: usize,
    /// Elements of a row that is multiplied.
    pub input: usize,
    /// Units side by side along the columns.
    pub lanes: usize,
    pub norms: bool,
    /// Whether the second half of the columns is gated by the first.
    pub gates: bool,
    pub adds: bool,
}

impl Form {
    /// Columns of the weight for each of the result.
    pub fn halves(self) -> usize {
        1 + usize::from(self.gates)
    }

    /// Rows of the weight that a unit asks for at once.
    pub fn at_once(self) -> usize {
        IN_FLIGHT / self.halves()
    }

    /// Units, lanes side by side, that add up what they have without the cube's memory.
    pub fn bundle(self) -> usize {
        self.team.plane.max(self.lanes)
    }
}

#[cube(launch)]
pub(super) fn fused_linear<F: Float, W: Float, A: Float, N: Size>(
    x: &[F],
    norm: &[W],
    weight: &[Vector<F, N>],
    residual: &[F],
    y: &mut [F],
    eps: InputScalar,
    vectors: usize,
    weight_row: usize,
    #[comptime] form: Form,
    #[define(F, W, A)] _types: [ElemType; 3],
) {
    let (rows, input, lanes, units) = comptime!((form.rows, form.input, form.lanes, form.team.units));
    let (halves, at_once) = comptime!((form.halves(), form.at_once()));
    let unit = UNIT_POS as usize;
    let (lane, share) = (unit % lanes, unit / lanes);
    let vector = N::value().comptime();
    let step = comptime!(units / lanes * at_once);
    let column = CUBE_POS * lanes + lane;
    // In the end a unit has a column of the result. What is added to it, and the weight, are on their way while the rows are
    // made ready.
    let (columns, width) = (comptime!(lanes * vector), vectors * vector);
    let result = CUBE_POS * columns + unit;
    let has_result = unit < columns && result < width;
    let mut beside = Array::<F>::new(rows);
    if comptime!(form.adds) {
        #[unroll]
        for row in 0..rows {
            let mut value = F::new(0.0);
            if has_result {
                value = residual[row * width + result];
            }
            beside[row] = value;
        }
    }
    let mut next = Array::<Vector<F, N>>::new(IN_FLIGHT);
    ask::<F, N>(weight, &mut next, share, column, vectors, weight_row, form);
    let mut factors = Shared::<[A]>::new_slice(comptime!(rows * input));
    let mut scales = Array::<A>::new(rows);
    #[unroll]
    for row in 0..rows {
        scales[row] = prepare::<F, W, A>(x, norm, &mut factors, row, eps.get::<A>(), form);
    }
    sync_cube();
    let mut sums = Array::<Vector<A, N>>::new(comptime!(rows * halves));
    #[unroll]
    for i in 0..comptime!(rows * halves) {
        sums[i] = Vector::new(A::new(0.0));
    }
    for first in range_stepped(share, input, step) {
        let mut w = Array::<Vector<F, N>>::new(IN_FLIGHT);
        #[unroll]
        for j in 0..IN_FLIGHT {
            w[j] = next[j];
        }
        ask::<F, N>(weight, &mut next, first + step, column, vectors, weight_row, form);
        #[unroll]
        for j in 0..at_once {
            let i = first + comptime!(j * units / lanes);
            if i < input {
                #[unroll]
                for row in 0..rows {
                    let factor = Vector::new(factors[row * input + i]);
                    #[unroll]
                    for half in 0..halves {
                        sums[row * halves + half] += Vector::<A, N>::cast_from(w[j * halves + half]) * factor;
                    }
                }
            }
        }
    }
    let bundle = comptime!(form.bundle());
    let bundles = comptime!(units / bundle);
    let mut parts = Shared::<[A]>::new_slice(comptime!(rows * halves * bundles * columns));
    #[unroll]
    for i in 0..comptime!(rows * halves) {
        let sum = plane_sum_of_every::<A, N>(sums[i], lanes, bundle);
        if unit % bundle < lanes {
            let to = (i * bundles + unit / bundle) * columns + lane * vector;
            #[unroll]
            for e in 0..vector {
                parts[to + e] = sum.extract(e);
            }
        }
    }
    sync_cube();
    if has_result {
        #[unroll]
        for row in 0..rows {
            let mut sum = whole::<A>(&parts, comptime!(row * halves), columns, bundles) * scales[row];
            if comptime!(form.gates) {
                let up = whole::<A>(&parts, comptime!(row * halves + 1), columns, bundles) * scales[row];
                sum = sum * up / (A::new(1.0) + (-sum).exp());
            }
            if comptime!(form.adds) {
                sum += A::cast_from(beside[row]);
            }
            y[row * width + result] = F::cast_from(sum);
        }
    }
}

/// Sum `which` of a unit's column, all bundles together.
#[cube]
fn whole<A: Float>(
    parts: &Shared<[A]>,
    #[comptime] which: usize,
    #[comptime] columns: usize,
    #[comptime] bundles: usize,
) -> A {
    let mut sum = parts[comptime!(which * bundles * columns) + UNIT_POS as usize];
    for other in 1..bundles {
        sum += parts[(comptime!(which * bundles) + other) * columns + UNIT_POS as usize];
    }
    sum
}

/// Asks for some rows of the weight, from `first` on as far apart as this unit's are, of each the vector at `column`, and
/// that of the other half after it.
#[cube]
fn ask<F: Float, N: Size>(
    weight: &[Vector<F, N>],
    to: &mut Array<Vector<F, N>>,
    first: usize,
    column: usize,
    vectors: usize,
    weight_row: usize,
    #[comptime] form: Form,
) {
    #[unroll]
    for j in 0..comptime!(form.at_once()) {
        let i = first + comptime!(j * form.team.units / form.lanes);
        #[unroll]
        for half in 0..comptime!(form.halves()) {
            let mut w = Vector::<F, N>::new(F::new(0.0));
            if column < vectors && i < form.input {
                w = weight[i * weight_row + half * vectors + column];
            }
            to[comptime!(j * form.halves() + half)] = w;
        }
    }
}

/// Leaves the row to be multiplied in shared memory, norm's weight included; returns what its products are to be multiplied
/// by, one over its root mean square.
#[cube]
fn prepare<F: Float, W: Float, A: Float>(
    x: &[F],
    norm: &[W],
    factors: &mut Shared<[A]>,
    #[comptime] row: usize,
    eps: A,
    #[comptime] form: Form,
) -> A {
    let (input, units) = comptime!((form.input, form.team.units));
    let (unit, first) = (UNIT_POS as usize, comptime!(row * input));
    let mut squares = A::new(0.0);
    for from in range_stepped(unit, input, comptime!(units * AT_ONCE)) {
        let values = some::<F>(x, first, from, form);
        let mut scales = Array::<W>::new(AT_ONCE);
        if comptime!(form.norms) {
            scales = some::<W>(norm, 0, from, form);
        }
        #[unroll]
        for j in 0..AT_ONCE {
            let i = from + comptime!(j * units);
            if i < input {
                let value = A::cast_from(values[j]);
                if comptime!(form.norms) {
                    squares += value * value;
                    factors[first + i] = value * A::cast_from(scales[j]);
                } else {
                    factors[first + i] = value;
                }
            }
        }
    }
    if comptime!(form.norms) {
        let squares = cube_sum::<A>(squares, comptime!(form.team));
        inverse_rms::<A>(squares, A::cast_from(input as u32), eps)
    } else {
        A::new(1.0)
    }
}

/// Asks for the elements of a unit from `from` on of the row that begins at `first`; zeros behind its end.
#[cube]
fn some<T: Float>(x: &[T], first: usize, from: usize, #[comptime] form: Form) -> Array<T> {
    let mut values = Array::<T>::new(AT_ONCE);
    #[unroll]
    for j in 0..AT_ONCE {
        let i = from + comptime!(j * form.team.units);
        let mut value = T::new(0.0);
        if i < form.input {
            value = x[first + i];
        }
        values[j] = value;
    }
    values
}
