//! A matrix-vector product whose cubes each make some columns of the result. Every cube first leaves the rows to be
//! multiplied in shared memory; then its units share the weight's rows out, columns side by side, and add up what they have:
//! those of a plane among themselves, planes through shared memory. What a row is to be divided by for its norm divides its
//! products instead, which need not wait for it. A cube that gates has the columns of both halves.

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::FusedLinearOps;
use crate::ops::cube::{
    Team, accumulator, cube_sum, element, new_tensor, plane_sum_of_every, row_major, rows_and_columns, vector_size,
};
use crate::ops::linear::{LinearOps, Products};
use crate::ops::primitive::with_last;
use crate::ops::rms_norm::RmsNormOps;
use crate::ops::swiglu::SwigluOps;

/// Most rows that a cube keeps.
const MOST_ROWS: usize = 4;

/// Most bytes of shared memory a cube takes, where the device has that much.
const SHARED_BYTES: usize = 40 * 1024;

/// Cubes wanted, two for each processor of a large device; fewer columns each make more of them.
const CUBES: usize = 256;

/// Units wanted in all cubes together, half of what a large device has room for, and fewest and most of one.
const ALL_UNITS: usize = 128 * 1024;
const UNITS: [usize; 2] = [128, 1024];

/// Vectors of the weight that a unit asks for at once, and again before it uses them.
const IN_FLIGHT: usize = 4;

/// Elements of a row that a unit asks for before it makes them ready.
const AT_ONCE: usize = 8;

/// Fewest and most units that lie side by side along the columns, unless few cubes are to become more.
const LANES: [usize; 2] = [2, 8];

/// What a kernel is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Form {
    team: Team,
    rows: usize,
    /// Elements of a row that is multiplied.
    input: usize,
    /// Units side by side along the columns.
    lanes: usize,
    norms: bool,
    /// Whether the second half of the columns is gated by the first.
    gates: bool,
    adds: bool,
}

impl Form {
    /// Columns of the weight for each of the result.
    fn halves(self) -> usize {
        1 + usize::from(self.gates)
    }

    /// Rows of the weight that a unit asks for at once.
    fn at_once(self) -> usize {
        IN_FLIGHT / self.halves()
    }

    /// Units, lanes side by side, that add up what they have without the cube's memory.
    fn bundle(self) -> usize {
        self.team.plane.max(self.lanes)
    }
}

impl FusedLinearOps for CubeBackend {
    fn rms_norm_linear(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
        by: Products,
    ) -> FloatTensor<Self> {
        match Product::of(&x, &weight, false) {
            Some(product) => product.launch(x, weight, Some((norm, eps)), None),
            None => Self::packed_linear(Self::rms_norm(x, norm, eps), weight, by),
        }
    }

    fn rms_norm_linear_swiglu(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
        by: Products,
    ) -> FloatTensor<Self> {
        match Product::of(&x, &weight, true) {
            Some(product) => product.launch(x, weight, Some((norm, eps)), None),
            None => Self::swiglu(Self::packed_linear(Self::rms_norm(x, norm, eps), weight, by)),
        }
    }

    fn few_rows_linear_add(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        by: Products,
    ) -> FloatTensor<Self> {
        match Product::of(&x, &weight, false).filter(|_| residual.dtype == x.dtype) {
            Some(product) => product.launch(x, weight, None, Some(residual)),
            None => Self::packed_linear_add(x, weight, residual, by),
        }
    }
}

/// A product that fits the kernel.
struct Product {
    client: Client,
    form: Form,
    /// Elements of a vector along the columns.
    vector: usize,
    /// Vectors of a row of the result.
    vectors: usize,
    /// From one row of the weight to the next, in vectors.
    row: usize,
}

impl Product {
    /// `None` if there are too many rows, or no memory for them.
    fn of(x: &CubeTensor, weight: &CubeTensor, gates: bool) -> Option<Self> {
        let (rows, _) = rows_and_columns(x);
        let [input, columns] = weight.shape().dims();
        let form = Form { rows, input, gates, ..Form::default() };
        let output = columns / form.halves();
        let client = x.client.clone();
        let vector = vector_size(&client, output, &[weight.dtype]);
        let vectors = output / vector;
        let [fewest, most] = LANES;
        let lanes = ((columns / vector / CUBES).next_power_of_two() / form.halves()).clamp(fewest, most);
        let busy = input.div_ceil(form.at_once()) * lanes;
        // Few cubes of most units become twice as many of half of them.
        let few = 4 * vectors.div_ceil(lanes) <= CUBES && busy > UNITS[1] / 2;
        let (lanes, busy) = if few { (lanes / 2, busy / 2) } else { (lanes, busy) };
        let team = Team::new(&client, units(busy, vectors.div_ceil(lanes)));
        let form = Form { team, lanes, ..form };
        let parts = form.halves() * team.units / form.bundle() * lanes * vector;
        // The rows, the sums' parts, and those of their squares.
        let bytes = accumulator(x.dtype).size() * rows * (input + parts + team.units / team.plane);
        let most_bytes = SHARED_BYTES.min(client.properties().hardware.max_shared_memory_size);
        let (strides, same) = (weight.meta.strides(), x.dtype == weight.dtype && team.units.is_power_of_two());
        let enough = lanes * vector <= team.units;
        let row_major = strides[1] == 1 && strides[0].is_multiple_of(vector);
        if !(1..=MOST_ROWS).contains(&rows) || output == 0 || bytes > most_bytes || !same || !enough || !row_major {
            return None;
        }
        Some(Self { client, form, vector, vectors, row: strides[0] / vector })
    }

    fn launch(
        self,
        x: CubeTensor,
        weight: CubeTensor,
        norm: Option<(CubeTensor, f64)>,
        residual: Option<CubeTensor>,
    ) -> CubeTensor {
        let x = row_major(x);
        let (dtype, wide) = (x.dtype, accumulator(x.dtype));
        let y = new_tensor(&x, with_last(x.shape(), self.vectors * self.vector), dtype);
        let form = Form { norms: norm.is_some(), adds: residual.is_some(), ..self.form };
        // Where there is no scale and no residual, the kernel reads none.
        let (norm, eps) = norm.map_or_else(|| (x.clone(), 0.0), |(norm, eps)| (row_major(norm), eps));
        let residual = residual.map_or_else(|| weight.clone(), row_major);
        let types = [element(dtype), element(norm.dtype), element(wide)];
        fused_linear::launch(
            &self.client,
            CubeCount::new_1d(self.vectors.div_ceil(form.lanes) as u32),
            CubeDim::new_1d(form.team.units as u32),
            self.vector,
            x.into_buffer_arg(),
            norm.into_buffer_arg(),
            weight.into_buffer_arg(),
            residual.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            InputScalar::new(eps, element(wide)),
            self.vectors,
            self.row,
            form,
            types,
        );
        y
    }
}

/// Units of a cube: no more than `busy`, nor than there is room for beside the other cubes.
fn units(busy: usize, cubes: usize) -> usize {
    let [fewest, most] = UNITS;
    busy.next_power_of_two().min(1 << (ALL_UNITS / cubes.max(1)).max(1).ilog2()).clamp(fewest, most)
}

#[cube(launch)]
fn fused_linear<F: Float, W: Float, A: Float, N: Size>(
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
        (squares / A::cast_from(input as u32) + eps).sqrt().recip()
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
