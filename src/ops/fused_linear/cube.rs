//! Products of few rows: by [`super::transposed_weight`] where the weight lies `[out, in]`, else a matrix-vector product whose
//! cubes each make some columns of the result. Every cube first leaves the rows to be multiplied in shared memory; then its units share the weight's rows out, columns side by side, and add up what they have:
//! those of a plane among themselves, planes through shared memory. What a row is to be divided by for its norm divides its
//! products instead, which need not wait for it. A cube that gates has the columns of both halves.

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::prelude::*;

use super::kernel::{Form, fused_linear};
use super::transposed_weight::{TransposedProduct, reads};
use super::{FusedLinearOps, WeightLayoutOps};
use crate::ops::cube::{
    Team, accumulator, asks_at_once, element, new_tensor, row_major, rows_and_columns, vector_size,
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

/// Fewest and most units that lie side by side along the columns, unless few cubes are to become more.
const LANES: [usize; 2] = [2, 8];

impl WeightLayoutOps for CubeBackend {
    fn reads_transposed(like: FloatTensor<Self>) -> bool {
        reads(&like)
    }

    fn folds_norms(like: FloatTensor<Self>) -> bool {
        asks_at_once(&like)
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
        match Product::of(&x, &weight, Some(&norm), false) {
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
        match Product::of(&x, &weight, Some(&norm), true) {
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
        match Product::of(&x, &weight, None, false).filter(|_| residual.dtype == x.dtype) {
            Some(product) => product.launch(x, weight, None, Some(residual)),
            None => Self::packed_linear_add(x, weight, residual, by),
        }
    }
}

/// The kernel that a product fits.
enum Product {
    Transposed(TransposedProduct),
    RowMajor(RowMajorProduct),
}

impl Product {
    fn of(x: &CubeTensor, weight: &CubeTensor, norm: Option<&CubeTensor>, gates: bool) -> Option<Self> {
        let transposed = TransposedProduct::of(x, weight, norm, gates).map(Self::Transposed);
        transposed.or_else(|| RowMajorProduct::of(x, weight, gates).map(Self::RowMajor))
    }

    fn launch(
        self,
        x: CubeTensor,
        weight: CubeTensor,
        norm: Option<(CubeTensor, f64)>,
        residual: Option<CubeTensor>,
    ) -> CubeTensor {
        match self {
            Self::Transposed(product) => product.launch(x, weight, norm, residual),
            Self::RowMajor(product) => product.launch(x, weight, norm, residual),
        }
    }
}

/// A product whose weight lies `[in, out]` and that fits the kernel for such.
struct RowMajorProduct {
    client: Client,
    form: Form,
    /// Elements of a vector along the columns.
    vector: usize,
    /// Vectors of a row of the result.
    vectors: usize,
    /// From one row of the weight to the next, in vectors.
    row: usize,
}

impl RowMajorProduct {
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
