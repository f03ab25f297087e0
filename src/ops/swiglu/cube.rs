use std::f32::consts::LOG2_E;

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::SwigluOps;
use crate::ops::cube::{
    Norm, NormRows, Shares, accumulator, element, exp2_of, item_of, multiplies, new_tensor, norm_rows, one_each,
    reciprocal_of, row_factor, row_major, row_of, rows_and_columns, vector_size,
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
            multiplies(&client, dtype),
            [element(dtype), element(accumulator(dtype))],
        );
        d
    }
}

/// Most pairs of a gate and its counterpart that a unit multiplies.
const PAIRS: usize = 2;

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
    let shares = Shares::new(&client, n / vector, PAIRS);
    let (count, dim) = shares.cubes(&client, rows);
    swiglu_forward::launch(
        &client,
        count,
        dim,
        vector,
        gate_up.into_buffer_arg(),
        norm.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        rows,
        norm_rows,
        norms,
        shares,
        multiplies(&client, dtype),
        [element(dtype), element(accumulator(dtype))],
    );
    y
}

/// The logistic function; off by 2^-17 of it at most if it is to be quick, which 16 bits do not show and
/// devices that multiply matrices, which take PTX, can be.
#[cube]
fn sigmoid<A: Float, N: Size>(x: Vector<A, N>, #[comptime] quick: bool) -> Vector<A, N> {
    let mut y = x;
    if comptime!(quick) {
        #[unroll]
        for e in 0..x.vector_size() {
            let power = exp2_of(f32::cast_from(x.extract(e)) * (-LOG2_E));
            y.insert(e, A::cast_from(reciprocal_of(1.0 + power)));
        }
    } else {
        let one = Vector::<A, N>::new(A::new(1.0));
        y = one / (one + (-x).exp());
    }
    y
}

#[cube(launch)]
fn swiglu_forward<F: Float, A: Float, N: Size>(
    gate_up: &[Vector<F, N>],
    norm: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    rows: usize,
    norm_rows: NormRows,
    #[comptime] norms: bool,
    #[comptime] shares: Shares,
    #[comptime] quick: bool,
    #[define(F, A)] _types: [ElemType; 2],
) {
    let (row, first) = (row_of(shares), item_of(shares));
    if row >= rows {
        terminate!();
    }
    let (items, each, units) = comptime!((shares.items, shares.each, shares.units()));
    let mut gates = Array::<Vector<F, N>>::new(each);
    let mut ups = Array::<Vector<F, N>>::new(each);
    #[unroll]
    for i in 0..each {
        let at = 2 * row * items + min(first + i * units, items - 1);
        gates[i] = gate_up[at];
        ups[i] = gate_up[at + items];
    }
    // Made ready while these are on their way.
    let r = row_factor::<F, A, N>(norm, row, &norm_rows, norms, shares);
    #[unroll]
    for i in 0..each {
        let item = first + i * units;
        let (gate, up) = (Vector::<A, N>::cast_from(gates[i]) * r, Vector::<A, N>::cast_from(ups[i]) * r);
        if item < items {
            y[row * items + item] = Vector::cast_from(gate * sigmoid::<A, N>(gate, quick) * up);
        }
    }
}

#[cube(launch)]
fn swiglu_gradient<F: Float, A: Float, N: Size>(
    gate_up: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    d: &mut [Vector<F, N>],
    vectors: usize,
    #[comptime] quick: bool,
    #[define(F, A)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS >= gradient.len() {
        terminate!();
    }
    let at = ABSOLUTE_POS + ABSOLUTE_POS / vectors * vectors;
    let gate = Vector::<A, N>::cast_from(gate_up[at]);
    let up = Vector::<A, N>::cast_from(gate_up[at + vectors]);
    let dy = Vector::<A, N>::cast_from(gradient[ABSOLUTE_POS]);
    let s = sigmoid::<A, N>(gate, quick);
    let silu = gate * s;
    d[at] = Vector::cast_from(dy * up * (s + silu - silu * s));
    d[at + vectors] = Vector::cast_from(dy * silu);
}
