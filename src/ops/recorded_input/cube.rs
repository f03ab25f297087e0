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
        let client = ids.client.clone();
        let types = [&held.ids, &held.position, &ids].map(|tensor| integer(tensor.dtype));
        let elements = ids.shape().num_elements();
        let (count, dim) = one_each(&client, elements);
        recorded_input_place::launch(
            &client,
            count,
            dim,
            held.ids.clone().into_buffer_arg(),
            held.position.clone().into_buffer_arg(),
            ids.into_buffer_arg(),
            elements,
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
    at: usize,
    #[define(H, P, I)] _types: [ElemType; 3],
) {
    if ABSOLUTE_POS < elements {
        held[ABSOLUTE_POS] = H::cast_from(ids[ABSOLUTE_POS]);
    }
    if ABSOLUTE_POS == 0 {
        position[0] = P::cast_from(at as u32);
    }
}
