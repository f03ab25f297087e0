use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::SwigluOps;
use crate::ops::cube::{accumulator, element, new_tensor, one_each, row_major, rows_and_columns, vector_size};
use crate::ops::primitive::with_last;

impl SwigluOps for CubeBackend {
    fn swiglu(gate_up: FloatTensor<Self>) -> FloatTensor<Self> {
        let gate_up = row_major(gate_up);
        let (client, dtype) = (gate_up.client.clone(), gate_up.dtype);
        let (rows, columns) = rows_and_columns(&gate_up);
        let n = columns / 2;
        let y = new_tensor(&gate_up, with_last(gate_up.shape(), n), dtype);
        let vector = vector_size(&client, n, &[dtype]);
        let (count, dim) = one_each(&client, rows * n / vector);
        swiglu_forward::launch(
            &client,
            count,
            dim,
            vector,
            gate_up.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            n / vector,
            [element(dtype), element(accumulator(dtype))],
        );
        y
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

/// The logistic function.
#[cube]
fn sigmoid<A: Float, N: Size>(x: Vector<A, N>) -> Vector<A, N> {
    let one = Vector::<A, N>::new(A::new(1.0));
    one / (one + (-x).exp())
}

#[cube(launch)]
fn swiglu_forward<F: Float, A: Float, N: Size>(
    gate_up: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    vectors: usize,
    #[define(F, A)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS >= y.len() {
        terminate!();
    }
    let at = ABSOLUTE_POS + ABSOLUTE_POS / vectors * vectors;
    let gate = Vector::<A, N>::cast_from(gate_up[at]);
    let up = Vector::<A, N>::cast_from(gate_up[at + vectors]);
    y[ABSOLUTE_POS] = Vector::cast_from(gate * sigmoid::<A, N>(gate) * up);
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
