use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{RopeOps, Turn};
use crate::ops::cube::{accumulator, element, new_tensor, one_each, row_major, vector_size};

impl RopeOps for CubeBackend {
    fn rope(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        heads: usize,
        first: usize,
        turn: Turn,
    ) -> FloatTensor<Self> {
        let (x, cos, sin) = (row_major(x), row_major(cos), row_major(sin));
        let (client, dtype, table) = (x.client.clone(), x.dtype, cos.dtype);
        let [batch, seq, width] = x.shape().dims();
        let half = cos.shape()[1];
        let y = new_tensor(&x, x.shape(), dtype);
        // Vectors must end where halves of heads do, and where the rest of a row does.
        let vector = vector_size(&client, half, &[dtype, table]);
        let vector = if width.is_multiple_of(vector) { vector } else { 1 };
        let (half, width) = (half / vector, width / vector);
        let pairs = heads * half;
        let units_per_row = pairs + (width - 2 * pairs);
        let (count, dim) = one_each(&client, batch * seq * units_per_row);
        rope_rotate::launch(
            &client,
            count,
            dim,
            vector,
            x.into_buffer_arg(),
            cos.into_buffer_arg(),
            sin.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            RowsLaunch::new(seq, width, half, pairs, units_per_row),
            first,
            turn == Turn::Back,
            [element(dtype), element(table), element(accumulator(dtype))],
        );
        y
    }
}

/// A row in vectors.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Rows {
    /// Positions of a sequence.
    seq: usize,
    /// Of the whole row.
    width: usize,
    /// Of half a head.
    half: usize,
    /// Of the first halves of all heads that turn.
    pairs: usize,
    /// Units that work on the row: one for each pair, one for each vector that passes through.
    units: usize,
}

#[cube(launch)]
fn rope_rotate<F: Float, T: Float, A: Float, N: Size>(
    x: &[Vector<F, N>],
    cos: &[Vector<T, N>],
    sin: &[Vector<T, N>],
    y: &mut [Vector<F, N>],
    rows: Rows,
    first: usize,
    #[comptime] back: bool,
    #[define(F, T, A)] _types: [ElemType; 3],
) {
    let row = ABSOLUTE_POS / rows.units;
    let unit = ABSOLUTE_POS % rows.units;
    let start = row * rows.width;
    if start >= y.len() {
        terminate!();
    }
    if unit < rows.pairs {
        let at = unit % rows.half;
        let angle = (first + row % rows.seq) * rows.half + at;
        let low = start + unit / rows.half * 2 * rows.half + at;
        let high = low + rows.half;
        let (a, b) = (Vector::<A, N>::cast_from(x[low]), Vector::<A, N>::cast_from(x[high]));
        let (c, s) = (Vector::<A, N>::cast_from(cos[angle]), Vector::<A, N>::cast_from(sin[angle]));
        let s = if comptime!(back) { -s } else { s };
        y[low] = Vector::cast_from(a * c - b * s);
        y[high] = Vector::cast_from(b * c + a * s);
    } else {
        let at = start + unit + rows.pairs;
        y[at] = x[at];
    }
}
