//! A matrix-vector product whose cubes each make some columns of the result. Every cube first leaves the rows to be
//! multiplied in shared memory, normalised or gated on the way; then its units share the weight's rows out, columns side
//! by side, and add up what they have.

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::FusedLinearOps;
use crate::ops::cube::{Team, accumulator, cube_sum, element, new_tensor, row_major, rows_and_columns, vector_size};
use crate::ops::linear::{LinearOps, Products};
use crate::ops::primitive::with_last;
use crate::ops::rms_norm::RmsNormOps;
use crate::ops::swiglu::SwigluOps;

/// Most rows that a cube keeps.
const MOST_ROWS: usize = 4;

/// Most bytes of shared memory a cube takes; every device has that much.
const SHARED_BYTES: usize = 40 * 1024;

/// Units of a cube.
const UNITS: usize = 256;

/// Cubes wanted, so that every processor of a large device has one; fewer columns each make more of them.
const CUBES: usize = 128;

/// Rows of the weight that a unit asks for before it uses the first of them.
const IN_FLIGHT: usize = 4;

/// Fewest and most units that lie side by side along the columns.
const LANES: [usize; 2] = [2, 32];

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
        let team = Team::new(&client, UNITS);
        let bytes = accumulator(x.dtype).size() * rows * (input + team.units * vector);
        let (strides, same) = (weight.meta.strides(), x.dtype == weight.dtype && team.units.is_power_of_two());
        let row_major = strides[1] == 1 && strides[0].is_multiple_of(vector);
        if !(1..=MOST_ROWS).contains(&rows) || output == 0 || bytes > SHARED_BYTES || !same || !row_major {
            return None;
        }
        let [fewest, most] = LANES;
        let lanes = (vectors / CUBES).next_power_of_two().clamp(fewest, most);
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
    let mut factors = Shared::<[A]>::new_slice(comptime!(rows * input));
    #[unroll]
    for row in 0..rows {
        prepare::<F, W, A>(x, norm, &mut factors, row, eps.get::<A>(), form);
    }
    sync_cube();
    let (lane, share) = (unit % lanes, unit / lanes);
    let shares = comptime!(units / lanes);
    let column = CUBE_POS * lanes + lane;
    let mut sums = Array::<Vector<A, N>>::new(rows);
    #[unroll]
    for row in 0..rows {
        sums[row] = Vector::new(A::new(0.0));
    }
    if column < vectors {
        let whole = comptime!(input / (shares * IN_FLIGHT) * shares * IN_FLIGHT);
        for first in range_stepped(share, whole, comptime!(shares * IN_FLIGHT)) {
            let mut w = Array::<Vector<F, N>>::new(IN_FLIGHT);
            #[unroll]
            for j in 0..IN_FLIGHT {
                w[j] = weight[(first + comptime!(j * shares)) * weight_row + column];
            }
            #[unroll]
            for j in 0..IN_FLIGHT {
                let i = first + comptime!(j * shares);
                #[unroll]
                for row in 0..rows {
                    sums[row] += Vector::<A, N>::cast_from(w[j]) * Vector::new(factors[row * input + i]);
                }
            }
        }
        for i in range_stepped(whole + share, input, shares) {
            let w = Vector::<A, N>::cast_from(weight[i * weight_row + column]);
            #[unroll]
            for row in 0..rows {
                sums[row] += w * Vector::new(factors[row * input + i]);
            }
        }
    }
    let mut parts = Shared::<[Vector<A, N>]>::new_slice(comptime!(rows * units));
    #[unroll]
    for row in 0..rows {
        parts[row * units + unit] = sums[row];
    }
    sync_cube();
    let mut width = comptime!(shares / 2).runtime();
    while width > 0 {
        if share < width {
            #[unroll]
            for row in 0..rows {
                let other = parts[row * units + unit + width * lanes];
                parts[row * units + unit] += other;
            }
        }
        sync_cube();
        width /= 2;
    }
    if share == 0 && column < vectors {
        #[unroll]
        for row in 0..rows {
            let at = row * vectors + column;
            let mut sum = parts[row * units + unit];
            if comptime!(form.adds) {
                sum += Vector::cast_from(residual[at]);
            }
            y[at] = Vector::cast_from(sum);
        }
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
    let unit = UNIT_POS as usize;
    let first = comptime!(row * input);
    match comptime!(form.before) {
        Before::Nothing => {
            for i in range_stepped(unit, input, units) {
                factors[first + i] = A::cast_from(x[first + i]);
            }
        }
        Before::RmsNorm => {
            let mut squares = A::new(0.0);
            for i in range_stepped(unit, input, units) {
                let value = A::cast_from(x[first + i]);
                squares += value * value;
            }
            let squares = cube_sum::<A>(squares, comptime!(form.team));
            let r = (squares / A::cast_from(input as u32) + eps).sqrt().recip();
            for i in range_stepped(unit, input, units) {
                factors[first + i] = A::cast_from(x[first + i]) * r * A::cast_from(norm[i]);
            }
        }
        Before::Swiglu => {
            for i in range_stepped(unit, input, units) {
                let gate = A::cast_from(x[2 * first + i]);
                let up = A::cast_from(x[2 * first + input + i]);
                factors[first + i] = gate * up / (A::new(1.0) + (-gate).exp());
            }
        }
    }
}
