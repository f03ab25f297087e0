//! One cube a row forward; backward one cube several rows, so that the weight's gradient is summed on the way.

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::RmsNormOps;
use crate::ops::cube::{
    Team, VECTORS_PER_UNIT, accumulator, cube_sum, cubes, element, inverse_rms, new_tensor, row_major,
    rows_and_columns, vector_size,
};

/// Cubes that share the rows of a backward pass: each leaves one partial sum of the weight's gradient.
const BACKWARD_CUBES: usize = 512;

/// Vectors of the weight's gradient that a cube sums, and units that share the parts of each.
const SUM_LANES: usize = 16;
const SUM_SHARES: usize = 16;

impl RmsNormOps for CubeBackend {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        let (x, weight) = (row_major(x), row_major(weight));
        let (client, dtype, wide) = (x.client.clone(), x.dtype, accumulator(x.dtype));
        let y = new_tensor(&x, x.shape(), dtype);
        let (rows, columns) = rows_and_columns(&x);
        let vector = vector_size(&client, columns, &[dtype, weight.dtype]);
        let team = Team::of(&client, columns / vector);
        let (count, dim) = cubes(&client, rows, team.units);
        rms_norm_forward::launch(
            &client,
            count,
            dim,
            vector,
            x.into_buffer_arg(),
            weight.clone().into_buffer_arg(),
            y.clone().into_buffer_arg(),
            InputScalar::new(eps, element(wide)),
            InputScalar::new(columns as f64, element(wide)),
            columns / vector,
            rows,
            team,
            [element(dtype), element(weight.dtype), element(wide)],
        );
        y
    }

    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        gradients(x, weight, gradient, None, eps)
    }

    fn rms_norm_backward_add(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        past: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        gradients(x, weight, gradient, Some(past), eps)
    }
}

/// Gradients of `x`, to which `past` is added, and `weight`.
fn gradients(
    x: CubeTensor,
    weight: CubeTensor,
    gradient: CubeTensor,
    past: Option<CubeTensor>,
    eps: f64,
) -> (CubeTensor, CubeTensor) {
    let (x, weight, gradient) = (row_major(x), row_major(weight), row_major(gradient));
    let adds = past.is_some();
    let past = past.map_or_else(|| gradient.clone(), row_major);
    let (client, dtype, wide) = (x.client.clone(), x.dtype, accumulator(x.dtype));
    let (rows, columns) = rows_and_columns(&x);
    let vector = vector_size(&client, columns, &[dtype, weight.dtype, wide]);
    let team = Team::of(&client, columns / vector);
    let rows_each = rows.div_ceil(BACKWARD_CUBES).max(1);
    let parts = rows.div_ceil(rows_each);
    let (dx, dw) = (new_tensor(&x, x.shape(), dtype), new_tensor(&weight, [columns], weight.dtype));
    let partial = new_tensor(&x, [parts, columns], wide);
    let (count, dim) = cubes(&client, parts, team.units);
    rms_norm_gradients::launch(
        &client,
        count,
        dim,
        vector,
        x.into_buffer_arg(),
        weight.clone().into_buffer_arg(),
        gradient.into_buffer_arg(),
        past.into_buffer_arg(),
        dx.clone().into_buffer_arg(),
        partial.clone().into_buffer_arg(),
        InputScalar::new(eps, element(wide)),
        InputScalar::new(columns as f64, element(wide)),
        columns / vector,
        rows,
        rows_each,
        (columns / vector).div_ceil(team.units),
        adds,
        team,
        [element(dtype), element(weight.dtype), element(wide)],
    );
    let team = Team::new(&client, SUM_LANES * SUM_SHARES);
    let (count, dim) = cubes(&client, (columns / vector).div_ceil(SUM_LANES), team.units);
    sum_of_rows::launch(
        &client,
        count,
        dim,
        vector,
        partial.into_buffer_arg(),
        dw.clone().into_buffer_arg(),
        columns / vector,
        parts,
        team.units,
        [element(weight.dtype), element(wide)],
    );
    (dx, dw)
}

#[cube(launch)]
fn rms_norm_forward<F: Float, W: Float, A: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<W, N>],
    y: &mut [Vector<F, N>],
    eps: InputScalar,
    columns: InputScalar,
    vectors: usize,
    rows: usize,
    #[comptime] team: Team,
    #[define(F, W, A)] _types: [ElemType; 3],
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let (unit, first) = (UNIT_POS as usize, row * vectors);
    // Most rows are read once, and their scales while they come.
    let mut kept = Array::<Vector<F, N>>::new(VECTORS_PER_UNIT);
    let mut scales = Array::<Vector<W, N>>::new(VECTORS_PER_UNIT);
    ask::<F, N>(x, &mut kept, row, rows, vectors, VECTORS_PER_UNIT, team);
    ask::<W, N>(weight, &mut scales, 0, 1, vectors, VECTORS_PER_UNIT, team);
    let mut squares = Vector::<A, N>::new(A::new(0.0));
    #[unroll]
    for i in 0..VECTORS_PER_UNIT {
        let value = Vector::<A, N>::cast_from(kept[i]);
        squares += value * value;
    }
    for at in range_stepped(unit + comptime!(VECTORS_PER_UNIT * team.units), vectors, comptime!(team.units)) {
        let value = Vector::<A, N>::cast_from(x[first + at]);
        squares += value * value;
    }
    let squares = cube_sum::<A>(squares.vector_sum(), team);
    let r = Vector::<A, N>::new(inverse_rms::<A>(squares, columns.get::<A>(), eps.get::<A>()));
    #[unroll]
    for i in 0..VECTORS_PER_UNIT {
        let at = unit + comptime!(i * team.units);
        if at < vectors {
            let value = Vector::<A, N>::cast_from(kept[i]);
            y[first + at] = Vector::cast_from(value * r * Vector::cast_from(scales[i]));
        }
    }
    for at in range_stepped(unit + comptime!(VECTORS_PER_UNIT * team.units), vectors, comptime!(team.units)) {
        let value = Vector::<A, N>::cast_from(x[first + at]);
        y[first + at] = Vector::cast_from(value * r * Vector::cast_from(weight[at]));
    }
}

#[cube(launch)]
fn rms_norm_gradients<F: Float, W: Float, A: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<W, N>],
    gradient: &[Vector<F, N>],
    past: &[Vector<F, N>],
    dx: &mut [Vector<F, N>],
    partial: &mut [Vector<A, N>],
    eps: InputScalar,
    columns: InputScalar,
    vectors: usize,
    rows: usize,
    rows_each: usize,
    #[comptime] vectors_each: usize,
    #[comptime] adds: bool,
    #[comptime] team: Team,
    #[define(F, W, A)] _types: [ElemType; 3],
) {
    let part = CUBE_POS;
    if part * rows_each >= rows {
        terminate!();
    }
    let (eps, columns) = (eps.get::<A>(), columns.get::<A>());
    let zero = Vector::<A, N>::new(A::new(0.0));
    let mut dw = Array::<Vector<A, N>>::new(vectors_each);
    #[unroll]
    for i in 0..vectors_each {
        dw[i] = zero;
    }
    let first_row = part * rows_each;
    let end_row = min(first_row + rows_each, rows);
    let mut next_x = Array::<Vector<F, N>>::new(vectors_each);
    let mut next_dy = Array::<Vector<F, N>>::new(vectors_each);
    let mut next_past = Array::<Vector<F, N>>::new(vectors_each);
    ask::<F, N>(x, &mut next_x, first_row, end_row, vectors, vectors_each, team);
    ask::<F, N>(gradient, &mut next_dy, first_row, end_row, vectors, vectors_each, team);
    if adds {
        ask::<F, N>(past, &mut next_past, first_row, end_row, vectors, vectors_each, team);
    }
    for row in first_row..end_row {
        let mut values = Array::<Vector<A, N>>::new(vectors_each);
        let mut dys = Array::<Vector<A, N>>::new(vectors_each);
        let mut pasts = Array::<Vector<F, N>>::new(vectors_each);
        let mut squares = zero;
        let mut products = zero;
        #[unroll]
        for i in 0..vectors_each {
            let (value, dy) = (Vector::<A, N>::cast_from(next_x[i]), Vector::<A, N>::cast_from(next_dy[i]));
            let at = min(UNIT_POS as usize + i * comptime!(team.units), vectors - 1);
            squares += value * value;
            products += dy * Vector::cast_from(weight[at]) * value;
            values[i] = value;
            dys[i] = dy;
            if adds {
                pasts[i] = next_past[i];
            }
        }
        ask::<F, N>(x, &mut next_x, row + 1, end_row, vectors, vectors_each, team);
        ask::<F, N>(gradient, &mut next_dy, row + 1, end_row, vectors, vectors_each, team);
        if adds {
            ask::<F, N>(past, &mut next_past, row + 1, end_row, vectors, vectors_each, team);
        }
        let squares = cube_sum::<A>(squares.vector_sum(), team);
        let products = cube_sum::<A>(products.vector_sum(), team);
        let r = inverse_rms::<A>(squares, columns, eps);
        let factor = Vector::<A, N>::new(r * r * r * products / columns);
        let r = Vector::<A, N>::new(r);
        #[unroll]
        for i in 0..vectors_each {
            let at = UNIT_POS as usize + i * comptime!(team.units);
            if at < vectors {
                dw[i] += dys[i] * values[i] * r;
                let mut slope = dys[i] * Vector::cast_from(weight[at]) * r - values[i] * factor;
                if adds {
                    slope += Vector::cast_from(pasts[i]);
                }
                dx[row * vectors + at] = Vector::cast_from(slope);
            }
        }
    }
    #[unroll]
    for i in 0..vectors_each {
        let at = UNIT_POS as usize + i * comptime!(team.units);
        if at < vectors {
            partial[part * vectors + at] = dw[i];
        }
    }
}

/// Asks for this unit's first vectors of a row; zeros beyond the row, and from `end_row` on.
#[cube]
fn ask<F: Float, N: Size>(
    from: &[Vector<F, N>],
    to: &mut Array<Vector<F, N>>,
    row: usize,
    end_row: usize,
    vectors: usize,
    #[comptime] vectors_each: usize,
    #[comptime] team: Team,
) {
    #[unroll]
    for i in 0..vectors_each {
        let at = UNIT_POS as usize + i * comptime!(team.units);
        let mut value = Vector::<F, N>::new(F::new(0.0));
        if at < vectors && row < end_row {
            value = from[row * vectors + at];
        }
        to[i] = value;
    }
}

/// `[parts, n]` to `[n]`: a cube some columns, its units sharing out the parts.
#[cube(launch)]
fn sum_of_rows<W: Float, A: Float, N: Size>(
    partial: &[Vector<A, N>],
    to: &mut [Vector<W, N>],
    vectors: usize,
    parts: usize,
    #[comptime] units: usize,
    #[define(W, A)] _types: [ElemType; 2],
) {
    let unit = UNIT_POS as usize;
    let shares = comptime!(units / SUM_LANES);
    let (share, column) = (unit / SUM_LANES, CUBE_POS * SUM_LANES + unit % SUM_LANES);
    let mut sum = Vector::<A, N>::new(A::new(0.0));
    if column < vectors {
        for part in range_stepped(share, parts, shares) {
            sum += partial[part * vectors + column];
        }
    }
    let mut sums = Shared::<[Vector<A, N>]>::new_slice(units);
    sums[unit] = sum;
    sync_cube();
    if share == 0 && column < vectors {
        for other in 1..shares {
            sum += sums[other * SUM_LANES + unit];
        }
        to[column] = Vector::cast_from(sum);
    }
}
