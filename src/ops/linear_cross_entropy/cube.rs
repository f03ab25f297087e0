//! The sweep of [`super::generic`], what it does with a chunk's logits being one kernel: it turns them into their
//! gradient in place.

use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::generic::{self, Chunk};
use super::{CHUNK_ELEMENTS, LinearCrossEntropyOps, chunk_rows};
use crate::ops::cube::{
    Team, accumulator, cube_max, cube_sum, cubes, element, integer, new_tensor, product, product_add, product_in,
    row_major, rows_and_columns, vector_size,
};
use crate::ops::linear::Products;

/// Logits held at once: more than on a processor, so that products fill the device; in tests so few that there are several
/// chunks.
const DEVICE_CHUNK_ELEMENTS: usize = if cfg!(test) { CHUNK_ELEMENTS / 8 } else { 64 * CHUNK_ELEMENTS };

impl LinearCrossEntropyOps for CubeBackend {
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        count: usize,
        by: Products,
    ) -> FloatTensor<Self> {
        let rows = rows_at_once(&weight);
        let product = |a, b| product(a, b, by);
        generic::forward_in_chunks::<Self>(hidden, weight, targets, rows, product, |logits, targets| {
            chunk(logits, targets, count).loss
        })
    }

    fn linear_cross_entropy_with_gradients(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        count: usize,
        by: Products,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let rows = rows_at_once(&weight);
        let (product, grow) = (|a, b| product(a, b, by), |sum, a, b| grown(sum, a, b, by));
        generic::gradients_in_chunks::<Self>(hidden, weight, targets, rows, product, grow, |logits, targets| {
            chunk(logits, targets, count)
        })
    }
}

/// As [`generic::grown`], added by the product.
fn grown(sum: Option<CubeTensor>, a: CubeTensor, b: CubeTensor, by: Products) -> CubeTensor {
    if let Some(sum) = sum {
        return product_add(a, b, sum, by);
    }
    let wide = accumulator(a.dtype);
    product_in(a, b, wide, by)
}

fn rows_at_once(weight: &CubeTensor) -> usize {
    chunk_rows(DEVICE_CHUNK_ELEMENTS, weight.shape()[1])
}

fn chunk(logits: CubeTensor, targets: CubeTensor, count: usize) -> Chunk<CubeBackend> {
    let (logits, targets) = (row_major(logits), row_major(targets));
    let (client, dtype, wide) = (logits.client.clone(), logits.dtype, accumulator(logits.dtype));
    let (rows, vocabulary) = rows_and_columns(&logits);
    let losses = new_tensor(&logits, [rows], wide);
    let loss = new_tensor(&logits, [1], wide);
    let vector = vector_size(&client, vocabulary, &[dtype]);
    let team = Team::of(&client, vocabulary / vector);
    let integer = integer(targets.dtype);
    let (cube_count, dim) = cubes(&client, rows, team.units);
    cross_entropy_rows::launch(
        &client,
        cube_count,
        dim,
        vector,
        logits.clone().into_buffer_arg(),
        targets.into_buffer_arg(),
        losses.clone().into_buffer_arg(),
        InputScalar::new(1.0 / count as f64, element(wide)),
        rows,
        vocabulary / vector,
        team,
        [element(dtype), element(wide), integer],
    );
    let team = Team::of(&client, rows);
    let (cube_count, dim) = cubes(&client, 1, team.units);
    sum_of_losses::launch(
        &client,
        cube_count,
        dim,
        losses.into_buffer_arg(),
        loss.clone().into_buffer_arg(),
        rows,
        team,
        element(wide),
    );
    Chunk { loss, d_logits: logits }
}

/// One cube a row: its loss, and its logits replaced by their gradient.
#[cube(launch)]
fn cross_entropy_rows<F: Float, A: Float, I: Int, N: Size>(
    logits: &mut [Vector<F, N>],
    targets: &[I],
    losses: &mut [A],
    share: InputScalar,
    rows: usize,
    vectors: usize,
    #[comptime] team: Team,
    #[define(F, A, I)] _types: [ElemType; 3],
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let (first, unit) = (row * vectors, UNIT_POS as usize);
    let size = logits.vector_size();
    let mut largest = Vector::<A, N>::new(A::new(-1e30));
    for at in range_stepped(unit, vectors, comptime!(team.units)) {
        largest = max(largest, Vector::cast_from(logits[first + at]));
    }
    let mut mine = A::new(-1e30);
    #[unroll]
    for i in 0..size {
        mine = max(mine, largest.extract(i));
    }
    let largest = cube_max::<A>(mine, team);
    let mut sum = Vector::<A, N>::new(A::new(0.0));
    for at in range_stepped(unit, vectors, comptime!(team.units)) {
        sum += (Vector::<A, N>::cast_from(logits[first + at]) - Vector::new(largest)).exp();
    }
    let sum = cube_sum::<A>(sum.vector_sum(), team);
    let counts = targets[row] >= I::new(0);
    let mut share = share.get::<A>();
    if !counts {
        share = A::new(0.0);
    }
    let factor = Vector::<A, N>::new(share / sum);
    let mut target = 0usize;
    if counts {
        target = u32::cast_from(targets[row]) as usize;
    }
    for at in range_stepped(unit, vectors, comptime!(team.units)) {
        let value = Vector::<A, N>::cast_from(logits[first + at]) - Vector::new(largest);
        let mut gradient = value.exp() * factor;
        if at == target / size {
            #[unroll]
            for i in 0..size {
                if i == target % size {
                    losses[row] = (sum.ln() - value.extract(i)) * share;
                    gradient.insert(i, gradient.extract(i) - share);
                }
            }
        }
        logits[first + at] = Vector::cast_from(gradient);
    }
}

#[cube(launch)]
fn sum_of_losses<A: Float>(
    losses: &[A],
    to: &mut [A],
    rows: usize,
    #[comptime] team: Team,
    #[define(A)] _type: ElemType,
) {
    let mut sum = A::new(0.0);
    for at in range_stepped(UNIT_POS as usize, rows, comptime!(team.units)) {
        sum += losses[at];
    }
    let sum = cube_sum::<A>(sum, team);
    if UNIT_POS == 0 {
        to[0] = sum;
    }
}
