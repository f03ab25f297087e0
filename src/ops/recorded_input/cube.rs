use burn::backend::TensorMetadata;
use burn::backend::tensor::IntTensor;
use burn_cubecl::CubeBackend;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{Inputs, RecordedInputOps};
use crate::ops::cube::{integer, one_each, row_major};

impl RecordedInputOps for CubeBackend {
    fn place(held: Inputs<Self>, ids: IntTensor<Self>, at: usize) -> Inputs<Self> {
        let ids = row_major(ids);
        #[cfg(feature = "cuda")]
        match burnmark_backend_cuda::inputs::place(&ids, &held.ids, &held.position, at) {
            Ok(()) => return held,
            Err(why) => tracing::debug!("CUDA's own launch is passed over: {why}"),
        }
        let client = ids.client.clone();
        let types = [&held.ids, &held.position, &ids].map(|tensor| integer(tensor.dtype));
        let (elements, columns) = (ids.shape().num_elements(), ids.shape()[1]);
        // What is held need not lie in one piece: CubeCL pads rows.
        let apart = held.ids.meta.strides();
        let (rows_apart, columns_apart) = (apart[0], apart[1]);
        let (count, dim) = one_each(&client, elements);
        recorded_input_place::launch(
            &client,
            count,
            dim,
            held.ids.clone().into_buffer_arg(),
            held.position.clone().into_buffer_arg(),
            ids.into_buffer_arg(),
            elements,
            columns,
            rows_apart,
            columns_apart,
            at,
            types,
        );
        held
    }
}

#[cube(launch)]
fn recorded_input_place<H: Int, P: Int, I: Int>(
    held: &mut [H],
    position: &mut [P],
    ids: &[I],
    elements: usize,
    columns: usize,
    rows_apart: usize,
    columns_apart: usize,
    at: usize,
    #[define(H, P, I)] _types: [ElemType; 3],
) {
    if ABSOLUTE_POS < elements {
        let (row, column) = (ABSOLUTE_POS / columns, ABSOLUTE_POS % columns);
        held[row * rows_apart + column * columns_apart] = H::cast_from(ids[ABSOLUTE_POS]);
    }
    if ABSOLUTE_POS == 0 {
        position[0] = P::cast_from(at as u32);
    }
}
