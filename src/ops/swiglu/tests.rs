use burn::backend::Flex;
use burn::tensor::{DType, Device, Tensor};

use super::*;
use crate::ops::testing::{assert_close, assert_everywhere, assert_gradients, elements, primitive, random};

const DTYPES: [(DType, f64); 2] = [(DType::F32, 2e-6), (DType::F64, 1e-13)];

#[test]
fn kernels_agree_with_the_composition() {
    for (dtype, tolerance) in DTYPES {
        for [rows, n] in [[1, 1], [3, 7], [5, 33], [70, 172]] {
            let gate_up = primitive(&random([1, rows, 2 * n], 1), dtype);
            let gradient = primitive(&random([1, rows, n], 2), dtype);
            let y = elements(Flex::swiglu(gate_up.clone()));
            assert_close(&y, &elements(generic::forward::<Flex>(gate_up.clone())), tolerance);
            let d = elements(Flex::swiglu_backward(gate_up.clone(), gradient.clone()));
            assert_close(&d, &elements(generic::backward::<Flex>(gate_up, gradient)), tolerance);
        }
    }
}

#[test]
fn extreme_gates_saturate() {
    let device = Device::flex();
    let gate_up = Tensor::<2>::from_data([[-200.0_f32, 200.0, 1.0, 1.0]], &device);
    let y: Vec<f64> = swiglu(gate_up).into_data().iter::<f64>().collect();
    assert_close(&y, &[0.0, 200.0], 1e-6);
}

#[test]
fn gradients_agree_with_differences() {
    for [rows, n] in [[1, 1], [3, 5], [2, 19]] {
        assert_gradients(&[random([rows * 2 * n], 1)], |x| {
            swiglu(x[0].clone().reshape([1, rows, 2 * n])).reshape([-1])
        });
    }
}

#[test]
fn every_device_agrees() {
    for [rows, n] in [[1, 1], [3, 7], [5, 33], [70, 172], [9, 1376]] {
        assert_everywhere(&[random([rows, 2 * n], 1)], false, |x| {
            swiglu(x[0].clone().reshape([1, rows, 2 * n])).reshape([-1])
        });
    }
}
