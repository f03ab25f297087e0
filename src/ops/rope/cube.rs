//! Each unit turns some pairs of vectors of a head, or passes vectors through. What the row is divided by, if there is a norm, is made ready while
//! these are on their way.

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{RopeOps, Turn};
use crate::ops::cube::{
    Norm, NormRows, Shares, accumulator, element, item_of, new_tensor, norm_rows, row_factor, row_major, row_of,
    rows_and_columns, vector_size,
};

impl RopeOps for CubeBackend {
    fn rope(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        heads: usize,
        first: usize,
        turn: Turn,
    ) -> FloatTensor<Self> {
        rotate(x, [cos, sin], heads, first, turn, None)
    }
}

/// [`RopeOps::rope`], each row divided by the root mean square of that of `norm`, if there is one.
pub(in crate::ops) fn rotate(
    x: CubeTensor,
    tables: [CubeTensor; 2],
    heads: usize,
    first: usize,
    turn: Turn,
    norm: Option<Norm>,
) -> CubeTensor {
    let (x, [cos, sin]) = (row_major(x), tables.map(row_major));
    let norm = norm.map(|(rows, eps)| (row_major(rows), eps));
    let (client, y) = (x.client.clone(), new_tensor(&x, x.shape(), x.dtype));
    let ((count, width), half) = (rows_and_columns(&x), cos.shape()[1]);
    let vector = vector(&x, &cos, norm.as_ref());
    let (norms, (norm, norm_rows)) = (norm.is_some(), norm_rows(norm, &x, vector));
    let (half, width) = (half / vector, width / vector);
    let types = [element(x.dtype), element(cos.dtype), element(accumulator(x.dtype))];
    let rows = RowsLaunch::new(count, x.shape()[1], width, heads * half);
    let shares = Shares::new(&client, width - heads * half, PAIRS);
    let (count, dim) = shares.cubes(&client, count);
    rope_rotate::launch(
        &client,
        count,
        dim,
        vector,
        x.into_buffer_arg(),
        cos.into_buffer_arg(),
        sin.into_buffer_arg(),
        norm.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        rows,
        norm_rows,
        first,
        half,
        turn == Turn::Back,
        norms,
        shares,
        types,
    );
    y
}

/// Most pairs that a unit turns.
pub(in crate::ops) const PAIRS: usize = 2;

/// Elements of a vector: they end where halves of heads do, and where the rest of a row does.
pub(in crate::ops) fn vector(x: &CubeTensor, table: &CubeTensor, norm: Option<&Norm>) -> usize {
    let vector = vector_size(&x.client, table.shape()[1], &[x.dtype]);
    let mut widths = std::iter::once(x).chain(norm.map(|(rows, _)| rows)).map(|rows| rows_and_columns(rows).1);
    if widths.all(|width| width.is_multiple_of(vector)) { vector } else { 1 }
}

/// Rows, in vectors where it is not counts.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(in crate::ops) struct Rows {
    /// How many.
    pub count: usize,
    /// Positions of a sequence.
    pub seq: usize,
    /// Of the whole row.
    pub width: usize,
    /// Of the first halves of all heads that turn.
    pub pairs: usize,
}

/// Two vectors that turn, or the one that passes through as both.
#[derive(CubeType, Clone, Copy)]
pub(in crate::ops) struct Pair {
    pub low: usize,
    pub high: usize,
    /// In the tables.
    pub angle: usize,
}

/// Where a row's pair `item` lies, those that pass through behind those that turn; tables begin at position `-first`.
#[cube]
pub(in crate::ops) fn pair_at(item: usize, row: usize, first: usize, rows: &Rows, #[comptime] half: usize) -> Pair {
    let turns = item < rows.pairs;
    let at = item % half;
    let low = row * rows.width + select(turns, item / half * comptime!(2 * half) + at, item + rows.pairs);
    let high = select(turns, low + half, low);
    Pair { low, high, angle: (first + row % rows.seq) * half + at }
}

/// What a unit turns.
#[derive(CubeType, Clone, Copy)]
pub(in crate::ops) struct Turning<F: Float, T: Float, N: Size> {
    pub a: Vector<F, N>,
    pub b: Vector<F, N>,
    pub cos: Vector<T, N>,
    pub sin: Vector<T, N>,
}

#[cube]
pub(in crate::ops) fn ask<F: Float, T: Float, N: Size>(
    x: &[Vector<F, N>],
    cos: &[Vector<T, N>],
    sin: &[Vector<T, N>],
    pair: Pair,
) -> Turning<F, T, N> {
    Turning::<F, T, N> { a: x[pair.low], b: x[pair.high], cos: cos[pair.angle], sin: sin[pair.angle] }
}

#[cube(launch)]
fn rope_rotate<F: Float, T: Float, A: Float, N: Size>(
    x: &[Vector<F, N>],
    cos: &[Vector<T, N>],
    sin: &[Vector<T, N>],
    norm: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    rows: Rows,
    norm_rows: NormRows,
    first: usize,
    #[comptime] half: usize,
    #[comptime] back: bool,
    #[comptime] norms: bool,
    #[comptime] shares: Shares,
    #[define(F, T, A)] _types: [ElemType; 3],
) {
    let (row, first_item) = (row_of(shares), item_of(shares));
    if row >= rows.count {
        terminate!();
    }
    let (items, each, units) = comptime!((shares.items, shares.each, shares.units()));
    let mut asked = Sequence::<Turning<F, T, N>>::new();
    #[unroll]
    for i in 0..each {
        let item = min(first_item + i * units, items - 1);
        asked.push(ask::<F, T, N>(x, cos, sin, pair_at(item, row, first, &rows, half)));
    }
    let r = row_factor::<F, A, N>(norm, row, &norm_rows, norms, shares);
    #[unroll]
    for i in 0..each {
        let item = first_item + i * units;
        let pair = pair_at(item, row, first, &rows, half);
        let turning = asked.index(i);
        let (a, b) = (Vector::<A, N>::cast_from(turning.a) * r, Vector::<A, N>::cast_from(turning.b) * r);
        if item < rows.pairs {
            let (c, s) = (Vector::<A, N>::cast_from(turning.cos), Vector::<A, N>::cast_from(turning.sin));
            let s = if comptime!(back) { -s } else { s };
            y[pair.low] = Vector::cast_from(a * c - b * s);
            y[pair.high] = Vector::cast_from(b * c + a * s);
        } else if item < items {
            y[pair.low] = Vector::cast_from(a);
        }
    }
}
