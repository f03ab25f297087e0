//! A matrix-vector product whose cubes each make some columns of the result. Every cube first leaves the rows to be
//! multiplied in shared memory, normalised or gated on the way; then its units share the weight's rows out, columns side
//! by side, and add up what they have: those of a plane among themselves, planes through shared memory.

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

/// Most bytes of shared memory a cube takes; every device has that much.
const SHARED_BYTES: usize = 40 * 1024;

/// Cubes wanted, two for each processor of a large device; fewer columns each make more of them.
const CUBES: usize = 256;

/// Units wanted in all cubes together, half of what a large device has room for, and fewest and most of one.
const ALL_UNITS: usize = 128 * 1024;
const UNITS: [usize; 2] = [128, 1024];

/// Rows of the weight that a unit asks for at once, and again before it uses them.
const IN_FLIGHT: usize = 4;

/// Elements of a row that a unit asks for before it makes them ready.
const AT_ONCE: usize = 8;

/// Fewest and most units that lie side by side along the columns.
const LANES: [usize; 2] = [2, 8];

/// What becomes of the input before it is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Before {
    Nothing,
    RmsNorm,
    Swiglu,
}

/// What a kernel is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Form {
    team: Team,
    rows: usize,
    /// Elements of a row that is multiplied.
    input: usize,
    /// Units side by side along the columns.
    lanes: usize,
    before: Before,
    adds: bool,
}

impl FusedLinearOps for CubeBackend {
    fn rms_norm_linear(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
        by: Products,
    ) -> FloatTensor<Self> {
        match Product::of(&x, &weight, Before::RmsNorm) {
            Some(product) => product.launch(x, weight, Some((norm, eps)), None),
            None => Self::packed_linear(Self::rms_norm(x, norm, eps), weight, by),
        }
    }

    fn swiglu_linear_add(
        gate_up: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        by: Products,
    ) -> FloatTensor<Self> {
        match Product::of(&gate_up, &weight, Before::Swiglu) {
            Some(product) => product.launch(gate_up, weight, None, Some(residual)),
            None => Self::packed_linear_add(Self::swiglu(gate_up), weight, residual, by),
        }
    }

    fn few_rows_linear_add(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        by: Products,
    ) -> FloatTensor<Self> {
        match Product::of(&x, &weight, Before::Nothing) {
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
    fn of(x: &CubeTensor, weight: &CubeTensor, before: Before) -> Option<Self> {
        let (rows, _) = rows_and_columns(x);
        let [input, output] = weight.shape().dims();
        let client = x.client.clone();
        let vector = vector_size(&client, output, &[weight.dtype]);
        let vectors = output / vector;
        let [fewest, most] = LANES;
        let lanes = (vectors / CUBES).max(1).next_power_of_two().clamp(fewest, most);
        let team = Team::new(&client, units(input, lanes, vectors.div_ceil(lanes)));
        let bytes = accumulator(x.dtype).size() * rows * (input + team.units / bundle(team, lanes) * lanes * vector);
        let (strides, same) = (weight.meta.strides(), x.dtype == weight.dtype && team.units.is_power_of_two());
        let row_major = strides[1] == 1 && strides[0].is_multiple_of(vector);
        if !(1..=MOST_ROWS).contains(&rows) || output == 0 || bytes > SHARED_BYTES || !same || !row_major {
            return None;
        }
        let form = Form { team, rows, input, lanes, before, adds: false };
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
        let form = Form { adds: residual.is_some(), ..self.form };
        // Where there is no scale and no residual, the kernel reads none.
        let (norm, eps) = norm.map_or_else(|| (x.clone(), 0.0), |(norm, eps)| (row_major(norm), eps));
        let residual = residual.map_or_else(|| weight.clone(), row_major);
        let types = [element(dtype), element(norm.dtype), element(wide)];
        let columns = form.lanes * self.vector;
        fused_linear::launch(
            &self.client,
            CubeCount::new_1d((self.vectors * self.vector).div_ceil(columns) as u32),
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

/// Units of a cube: no more than have rows to ask for, nor than there is room for beside the other cubes.
fn units(input: usize, lanes: usize, cubes: usize) -> usize {
    let [fewest, most] = UNITS;
    let busy = (lanes * input.div_ceil(IN_FLIGHT)).next_power_of_two();
    busy.min(1 << (ALL_UNITS / cubes.max(1)).max(1).ilog2()).clamp(fewest, most)
}

/// Units, `lanes` side by side, that add up what they have without the cube's memory.
fn bundle(team: Team, lanes: usize) -> usize {
    team.plane.max(lanes)
}

#[cube(launch)]
fn fused_linear<F: Float, W: Float, A: Float, N: Size>(
    x: &[F],
    norm: &[W],
    weight: &[Vector<F, N>],
    residual: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    eps: InputScalar,
    vectors: usize,
    weight_row: usize,
    #[comptime] form: Form,
    #[define(F, W, A)] _types: [ElemType; 3],
) {
    let (rows, input, lanes, units) = comptime!((form.rows, form.input, form.lanes, form.team.units));
    let unit = UNIT_POS as usize;
    let (lane, share) = (unit % lanes, unit / lanes);
    let step = comptime!(units / lanes * IN_FLIGHT);
    let column = CUBE_POS * lanes + lane;
    let has_column = column < vectors;
    // The weight is on its way while the rows are made ready.
    let mut next = Array::<Vector<F, N>>::new(IN_FLIGHT);
    ask::<F, N>(weight, &mut next, share, column, has_column, weight_row, form);
    let mut factors = Shared::<[A]>::new_slice(comptime!(rows * input));
    #[unroll]
    for row in 0..rows {
        prepare::<F, W, A>(x, norm, &mut factors, row, eps.get::<A>(), form);
    }
    sync_cube();
    let mut sums = Array::<Vector<A, N>>::new(rows);
    #[unroll]
    for row in 0..rows {
        sums[row] = Vector::new(A::new(0.0));
    }
    for first in range_stepped(share, input, step) {
        let mut w = Array::<Vector<F, N>>::new(IN_FLIGHT);
        #[unroll]
        for j in 0..IN_FLIGHT {
            w[j] = next[j];
        }
        ask::<F, N>(weight, &mut next, first + step, column, has_column, weight_row, form);
        #[unroll]
        for j in 0..IN_FLIGHT {
            let i = first + comptime!(j * units / lanes);
            if i < input {
                #[unroll]
                for row in 0..rows {
                    sums[row] += Vector::<A, N>::cast_from(w[j]) * Vector::new(factors[row * input + i]);
                }
            }
        }
    }
    let bundle = comptime!(bundle(form.team, lanes));
    let bundles = comptime!(units / bundle);
    let mut parts = Shared::<[Vector<A, N>]>::new_slice(comptime!(rows * bundles * lanes));
    #[unroll]
    for row in 0..rows {
        let sum = plane_sum_of_every::<A, N>(sums[row], lanes, bundle);
        if unit % bundle < lanes {
            parts[(row * bundles + unit / bundle) * lanes + lane] = sum;
        }
    }
    sync_cube();
    if unit < lanes && has_column {
        #[unroll]
        for row in 0..rows {
            let at = row * vectors + column;
            let mut sum = parts[row * bundles * lanes + lane];
            for other in 1..bundles {
                sum += parts[(row * bundles + other) * lanes + lane];
            }
            if comptime!(form.adds) {
                sum += Vector::cast_from(residual[at]);
            }
            y[at] = Vector::cast_from(sum);
        }
    }
}

/// Asks for some rows of the weight, from `first` on as far apart as this unit's are.
#[cube]
fn ask<F: Float, N: Size>(
    weight: &[Vector<F, N>],
    to: &mut Array<Vector<F, N>>,
    first: usize,
    column: usize,
    has_column: bool,
    weight_row: usize,
    #[comptime] form: Form,
) {
    #[unroll]
    for j in 0..IN_FLIGHT {
        let i = first + comptime!(j * form.team.units / form.lanes);
        let mut w = Vector::<F, N>::new(F::new(0.0));
        if has_column && i < form.input {
            w = weight[i * weight_row + column];
        }
        to[j] = w;
    }
}

/// Leaves the row to be multiplied in shared memory.
#[cube]
fn prepare<F: Float, W: Float, A: Float>(
    x: &[F],
    norm: &[W],
    factors: &mut Shared<[A]>,
    #[comptime] row: usize,
    eps: A,
    #[comptime] form: Form,
) {
    let (input, units) = comptime!((form.input, form.team.units));
    let (unit, step) = (UNIT_POS as usize, comptime!(units * AT_ONCE));
    let first = comptime!(row * input);
    match comptime!(form.before) {
        Before::Nothing => {
            for from in range_stepped(unit, input, step) {
                let values = some::<F>(x, first, from, form);
                #[unroll]
                for j in 0..AT_ONCE {
                    let i = from + comptime!(j * units);
                    if i < input {
                        factors[first + i] = A::cast_from(values[j]);
                    }
                }
            }
        }
        Before::RmsNorm => {
            let mut squares = A::new(0.0);
            for from in range_stepped(unit, input, step) {
                let values = some::<F>(x, first, from, form);
                #[unroll]
                for j in 0..AT_ONCE {
                    let value = A::cast_from(values[j]);
                    squares += value * value;
                }
            }
            let squares = cube_sum::<A>(squares, comptime!(form.team));
            let r = (squares / A::cast_from(input as u32) + eps).sqrt().recip();
            for from in range_stepped(unit, input, step) {
                let values = some::<F>(x, first, from, form);
                let scales = some::<W>(norm, 0, from, form);
                #[unroll]
                for j in 0..AT_ONCE {
                    let i = from + comptime!(j * units);
                    if i < input {
                        factors[first + i] = A::cast_from(values[j]) * r * A::cast_from(scales[j]);
                    }
                }
            }
        }
        Before::Swiglu => {
            for from in range_stepped(unit, input, step) {
                let gates = some::<F>(x, 2 * first, from, form);
                let ups = some::<F>(x, 2 * first + input, from, form);
                #[unroll]
                for j in 0..AT_ONCE {
                    let i = from + comptime!(j * units);
                    if i < input {
                        let gate = A::cast_from(gates[j]);
                        factors[first + i] = gate * A::cast_from(ups[j]) / (A::new(1.0) + (-gate).exp());
                    }
                }
            }
        }
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
