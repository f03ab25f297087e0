use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::SwigluOps;
use crate::ops::cube::{
    Norm, NormRows, Team, accumulator, cubes, element, new_tensor, norm_rows, one_each, row_factor, row_major,
    rows_and_columns, vector_size,
};
use crate::ops::primitive::with_last;

impl SwigluOps for CubeBackend {
    fn swiglu(gate_up: FloatTensor<Self>) -> FloatTensor<Self> {
        forward(gate_up, None)
    }

    fn swiglu_backward(gate_up: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let (gate_up, gradient) = (row_major(gate_up), row_major(gradient));
        let (client, dtype) = (gate_up.client.clone(), gate_up.dtype);
        let (rows, n) = rows_and_columns(&gradient);
        let d = new_tensor(&gate_up, gate_up.shape(), dtype);
        let vector = vector_size(&client, n, &[dtype]);
        let (count, dim) = one_each(&client, rows * n / vector);
        swiglu_gradient::launch(
            &client,
            count,
            dim,
            vector,
            gate_up.into_buffer_arg(),
            gradient.into_buffer_arg(),
            d.clone().into_buffer_arg(),
            n / vector,
            [element(dtype), element(accumulator(dtype))],
        );
        d
    }
}

/// [`SwigluOps::swiglu`], each row divided before by the root mean square of that of `norm`, if there is one.
pub(in crate::ops) fn forward(gate_up: CubeTensor, norm: Option<Norm>) -> CubeTensor {
    let gate_up = row_major(gate_up);
    let norm = norm.map(|(rows, eps)| (row_major(rows), eps));
    let (client, dtype) = (gate_up.client.clone(), gate_up.dtype);
    let (rows, columns) = rows_and_columns(&gate_up);
    let n = columns / 2;
    let y = new_tensor(&gate_up, with_last(gate_up.shape(), n), dtype);
    let vector = vector_size(&client, n, &[dtype]);
    let fits = norm.as_ref().is_none_or(|(rows, _)| rows_and_columns(rows).1.is_multiple_of(vector));
    let vector = if fits { vector } else { 1 };
    let (norms, (norm, norm_rows)) = (norm.is_some(), norm_rows(norm, &gate_up, vector));
    let team = Team::of(&client, n / vector);
    let (count, dim) = cubes(&client, rows, team.units);
    swiglu_forward::launch(
        &client,
        count,
        dim,
        vector,
        gate_up.into_buffer_arg(),
        norm.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        n / vector,
        rows,
        norm_rows,
        norms,
        team,
        [element(dtype), element(accumulator(dtype))],
    );
    y
}

/// The logistic function.
#[cube]
fn sigmoid<A: Float, N: Size>(x: Vector<A, N>) -> Vector<A, N> {
    let one = Vector::<A, N>::new(A::new(1.0));
    one / (one + (-x).exp())
}

#[cube(launch)]
fn swiglu_forward<F: Float, A: Float, N: Size>(
    gate_up: &[Vector<F, N>],
    norm: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    vectors: usize,
    rows: usize,
    norm_rows: NormRows,
    #[comptime] norms: bool,
    #[comptime] team: Team,
    #[define(F, A)] _types: [ElemType; 2],
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let from = 2 * row * vectors;
    let mut at = UNIT_POS as usize;
    // On their way while what they are divided by is made ready.
    let asked = from + min(at, vectors - 1);
    let (mut gate, mut up) = (gate_up[asked], gate_up[asked + vectors]);
    let r = row_factor::<F, A, N>(norm, row, &norm_rows, norms, team);
    while at < vectors {
        let (g, u) = (Vector::<A, N>::cast_from(gate) * r, Vector::<A, N>::cast_from(up) * r);
        y[row * vectors + at] = Vector::cast_from(g * sigmoid::<A, N>(g) * u);
        at += comptime!(team.units);
        if at < vectors {
            gate = gate_up[from + at];
            up = gate_up[from + vectors + at];
        }
    }
}

#[cube(launch)]
fn swiglu_gradient<F: Float, A: Float, N: Size>(
    gate_up: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    d: &mut [Vector<F, N>],
    vectors: usize,
    #[define(F, A)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS >= gradient.len() {
        terminate!();
    }
    let at = ABSOLUTE_POS + ABSOLUTE_POS / vectors * vectors;
    let gate = Vector::<A, N>::cast_from(gate_up[at]);
    let up = Vector::<A, N>::cast_from(gate_up[at + vectors]);
    let dy = Vector::<A, N>::cast_from(gradient[ABSOLUTE_POS]);
    let s = sigmoid::<A, N>(gate);
    let silu = gate * s;
    d[at] = Vector::cast_from(dy * up * (s + silu - silu * s));
    d[at + vectors] = Vector::cast_from(dy * silu);
}
