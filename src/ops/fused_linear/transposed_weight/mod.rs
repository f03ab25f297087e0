//! Products of few rows with a weight that lies `[out, in]`, as [`kernel`] makes them.

mod form;
mod kernel;

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::ops::cube::{element, multiplies, new_tensor, overlaps, processors, row_major, rows_and_columns};
use crate::ops::primitive::with_last;
use form::{MOST_ROWS, PAIR, STEP, TransposedForm, WIDE};
use kernel::transposed_linear;

/// Whether a weight `[in, out]` is better laid `[out, in]` for the kernel.
pub(super) fn reads(weight: &CubeTensor) -> bool {
    let [input, _] = weight.shape().dims();
    input.is_multiple_of(STEP) && takes(weight) && overlaps(&weight.client)
}

/// Whether the kernel takes such elements: before it is divided by its norm, a row must fit into 16 bits.
fn takes(tensor: &CubeTensor) -> bool {
    tensor.dtype == DType::BF16 && multiplies(&tensor.client, tensor.dtype)
}

/// A product that fits the kernel.
pub(super) struct TransposedProduct {
    form: TransposedForm,
    /// Columns of the result.
    width: usize,
    /// From one row of the weight as it lies to the next, in vectors.
    row: usize,
}

impl TransposedProduct {
    /// `None` if the weight `[in, out]` lies otherwise, there are too many rows or no memory for them, or types differ.
    pub fn of(x: &CubeTensor, weight: &CubeTensor, norm: Option<&CubeTensor>, gates: bool) -> Option<Self> {
        let (client, (rows, _)) = (&x.client, rows_and_columns(x));
        let ([input, columns], strides) = (weight.shape().dims(), weight.meta.strides());
        let (overlaps, norms) = (overlaps(client), norm.is_some());
        let form = TransposedForm { rows, input, norms, gates, adds: false, overlaps, once: true };
        let width = columns / (1 + usize::from(gates));
        let hardware = &client.properties().hardware;
        let fits =
            form.memory() <= hardware.max_shared_memory_size && form.units() <= hardware.max_units_per_cube as usize;
        let lies = strides[0] == 1 && strides[1].is_multiple_of(WIDE) && input.is_multiple_of(STEP);
        let same = x.dtype == weight.dtype && norm.is_none_or(|norm| norm.dtype == x.dtype) && takes(x);
        let some = (1..=MOST_ROWS).contains(&rows) && input > 0 && width > 0;
        (fits && lies && same && some).then_some(Self { form, width, row: strides[1] / WIDE })
    }

    pub fn launch(
        self,
        x: CubeTensor,
        weight: CubeTensor,
        norm: Option<(CubeTensor, f64)>,
        residual: Option<CubeTensor>,
    ) -> CubeTensor {
        let x = row_major(x);
        let y = new_tensor(&x, with_last(x.shape(), self.width), x.dtype);
        let form = TransposedForm { adds: residual.is_some(), ..self.form };
        let groups = self.width.div_ceil(form.columns());
        // More groups than there is room for are made one after the other, if the device tells how many processors it has.
        let memory = x.client.properties().hardware.max_shared_memory_size;
        let cubes = match processors(&x.client) {
            1 => groups,
            many => groups.min(form.at_once(memory) * many),
        };
        let form = TransposedForm { once: cubes == groups, ..form };
        // Where there is no scale and no residual, the kernel reads none.
        let (norm, eps) = norm.map_or_else(|| (weight.clone(), 0.0), |(norm, eps)| (row_major(norm), eps));
        let residual = residual.map_or_else(|| weight.clone(), row_major);
        let dtype = element(x.dtype);
        transposed_linear::launch(
            &x.client.clone(),
            CubeCount::new_1d(cubes as u32),
            CubeDim::new_1d(form.units() as u32),
            WIDE,
            PAIR,
            x.into_buffer_arg(),
            norm.into_buffer_arg(),
            weight.into_buffer_arg(),
            residual.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            eps as f32,
            self.width,
            self.row,
            form,
            dtype,
        );
        y
    }
}
