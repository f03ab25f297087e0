//! A cube a row: each unit turns two vectors of a head, or passes one through. What the row is divided by, if there is a norm, is
//! made ready while the unit's own vectors are on their way.

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{RopeOps, Turn};
use crate::ops::cube::{
    Norm, NormRows, Team, accumulator, cubes, element, new_tensor, norm_rows, row_factor, row_major, rows_and_columns,
    vector_size,
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
    let team = Team::of(&client, width);
    let types = [element(x.dtype), element(cos.dtype), element(accumulator(x.dtype))];
    let rows = RowsLaunch::new(count, x.shape()[1], width, heads * half);
    let (count, dim) = cubes(&client, count, team.units);
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
        team,
        types,
    );
    y
}

/// Elements of a vector: they end where halves of heads do, and where the rest of a row does.
pub(in crate::ops) fn vector(x: &CubeTensor, table: &CubeTensor, norm: Option<&Norm>) -> usize {
    let vector = vector_size(&x.client, table.shape()[1], &[x.dtype, table.dtype]);
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
    pub turns: bool,
}

/// Where a row's pair `item` lies, those that pass through behind those that turn; tables begin at position `-first`.
#[cube]
pub(in crate::ops) fn pair_at(item: usize, row: usize, first: usize, rows: &Rows, #[comptime] half: usize) -> Pair {
    let turns = item < rows.pairs;
    let at = item % half;
    let low = row * rows.width + select(turns, item / half * comptime!(2 * half) + at, item + rows.pairs);
    let high = select(turns, low + half, low);
    Pair { low, high, angle: (first + row % rows.seq) * half + at, turns }
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
    #[comptime] team: Team,
    #[define(F, T, A)] _types: [ElemType; 3],
) {
    let row = CUBE_POS;
    if row >= rows.count {
        terminate!();
    }
    let items = rows.width - rows.pairs;
    let mut item = UNIT_POS as usize;
    let asked = pair_at(min(item, items - 1), row, first, &rows, half);
    let (mut a, mut b) = (x[asked.low], x[asked.high]);
    let (mut c, mut s) = (cos[asked.angle], sin[asked.angle]);
    let r = row_factor::<F, A, N>(norm, row, &norm_rows, norms, team);
    while item < items {
        let pair = pair_at(item, row, first, &rows, half);
        let (low, high) = (Vector::<A, N>::cast_from(a) * r, Vector::<A, N>::cast_from(b) * r);
        if pair.turns {
            let (c, s) = (Vector::<A, N>::cast_from(c), Vector::<A, N>::cast_from(s));
            let s = if comptime!(back) { -s } else { s };
            y[pair.low] = Vector::cast_from(low * c - high * s);
            y[pair.high] = Vector::cast_from(high * c + low * s);
        } else {
            y[pair.low] = Vector::cast_from(low);
        }
        item += comptime!(team.units);
        if item < items {
            let next = pair_at(item, row, first, &rows, half);
            a = x[next.low];
            b = x[next.high];
            c = cos[next.angle];
            s = sin[next.angle];
        }
    }
}
