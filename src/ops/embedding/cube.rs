//! One cube a row of the table. Its units look through the ids together, a stretch at a time, and add up the rows that
//! are meant; no atomics, so that sums come out the same every time.

use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::EmbeddingOps;
use crate::ops::cube::{Team, accumulator, cube_max, cubes, element, integer, new_tensor, row_major, vector_size};

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
            positions.div_ceil(team.units).next_power_of_two().min(IDS_AT_ONCE),
            team,
            types,
        );
        table
    }
}

/// Most ids that a unit looks at before all units ask whether one of them had its row, as many as there are bits.
const IDS_AT_ONCE: usize = 32;

#[cube(launch)]
fn embedding_gradient<F: Float, T: Float, A: Float, I: Int, N: Size>(
    gradient: &[Vector<F, N>],
    ids: &[I],
    table: &mut [Vector<T, N>],
    positions: usize,
    vocabulary: usize,
    vectors: usize,
    #[comptime] vectors_each: usize,
    #[comptime] ids_at_once: usize,
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
    // Each unit looks at some of the ids and leaves a bit for each that means this row.
    let mut meant = Shared::<[u32]>::new_slice(units);
    for first in range_stepped(0, positions, comptime!(units * ids_at_once)) {
        let mut bits = 0u32;
        #[unroll]
        for j in 0..ids_at_once {
            let at = first + comptime!(j * units) + unit;
            let mut id = vocabulary;
            if at < positions {
                id = u32::cast_from(ids[at]) as usize;
            }
            if id == row {
                bits += comptime!(1u32 << j as u32);
            }
        }
        meant[unit] = bits;
        let some = if bits > 0 { 1.0f32 } else { 0.0f32 };
        let any = cube_max::<f32>(some, team);
        sync_cube();
        if any > 0.5 {
            for other in 0..units {
                let bits = meant[other];
                if bits > 0 {
                    for j in 0..ids_at_once {
                        if (bits >> j as u32) & 1u32 == 1u32 {
                            let from = (first + j * units + other) * vectors;
                            #[unroll]
                            for i in 0..vectors_each {
                                let at = unit + i * units;
                                if at < vectors {
                                    sums[i] += Vector::cast_from(gradient[from + at]);
                                }
                            }
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
