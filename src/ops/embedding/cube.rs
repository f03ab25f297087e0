//! One cube a row of the table. Its units look through the ids together, a stretch at a time, and add up the rows that
//! are meant; no atomics, so that sums come out the same every time.

use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::EmbeddingOps;
use crate::ops::cube::{Team, accumulator, cube_sum, cubes, element, integer, new_tensor, row_major, vector_size};

impl EmbeddingOps for CubeBackend {
    fn embedding_gradient(
        gradient: FloatTensor<Self>,
        ids: IntTensor<Self>,
        vocabulary: usize,
        dtype: DType,
    ) -> FloatTensor<Self> {
        let (gradient, ids) = (row_major(gradient), row_major(ids));
        let (client, wide) = (gradient.client.clone(), accumulator(gradient.dtype));
        let [positions, width] = gradient.shape().dims();
        let table = new_tensor(&gradient, [vocabulary, width], dtype);
        let vector = vector_size(&client, width, &[gradient.dtype, dtype, wide]);
        let vectors = width / vector;
        let team = Team::of(&client, vectors);
        let (count, dim) = cubes(&client, vocabulary, team.units);
        let types = [element(gradient.dtype), element(dtype), element(wide), integer(ids.dtype)];
        embedding_gradient::launch(
            &client,
            count,
            dim,
            vector,
            gradient.into_buffer_arg(),
            ids.into_buffer_arg(),
            table.clone().into_buffer_arg(),
            positions,
            vocabulary,
            vectors,
            vectors.div_ceil(team.units),
            team,
            types,
        );
        table
    }
}

#[cube(launch)]
fn embedding_gradient<F: Float, T: Float, A: Float, I: Int, N: Size>(
    gradient: &[Vector<F, N>],
    ids: &[I],
    table: &mut [Vector<T, N>],
    positions: usize,
    vocabulary: usize,
    vectors: usize,
    #[comptime] vectors_each: usize,
    #[comptime] team: Team,
    #[define(F, T, A, I)] _types: [ElemType; 4],
) {
    let row = CUBE_POS;
    if row >= vocabulary {
        terminate!();
    }
    let (unit, units) = (UNIT_POS as usize, comptime!(team.units));
    let mut sums = Array::<Vector<A, N>>::new(vectors_each);
    #[unroll]
    for i in 0..vectors_each {
        sums[i] = Vector::new(A::new(0.0));
    }
    let mut meant = Shared::<[u32]>::new_slice(units);
    for first in range_stepped(0, positions, units) {
        let mut id = vocabulary;
        if first + unit < positions {
            id = u32::cast_from(ids[first + unit]) as usize;
        }
        let mut is_meant = 0u32;
        if id == row {
            is_meant = 1;
        }
        meant[unit] = is_meant;
        let count = cube_sum::<f32>(f32::cast_from(is_meant), team);
        sync_cube();
        if count > 0.5 {
            for other in 0..min(units, positions - first) {
                if meant[other] == 1 {
                    #[unroll]
                    for i in 0..vectors_each {
                        let at = unit + i * units;
                        if at < vectors {
                            sums[i] += Vector::cast_from(gradient[(first + other) * vectors + at]);
                        }
                    }
                }
            }
        }
        sync_cube();
    }
    #[unroll]
    for i in 0..vectors_each {
        let at = unit + i * units;
        if at < vectors {
            table[row * vectors + at] = Vector::cast_from(sums[i]);
        }
    }
}
