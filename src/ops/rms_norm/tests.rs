use burn::backend::Flex;
use burn::tensor::{DType, Device, Tensor};

use super::*;
use crate::ops::testing::{assert_close, assert_everywhere, assert_gradients, devices, elements, primitive, random};

const DTYPES: [(DType, f64); 2] = [(DType::F32, 2e-6), (DType::F64, 1e-13)];

#[test]
fn kernels_agree_with_the_composition() {
    for (dtype, tolerance) in DTYPES {
        for [rows, n] in [[1, 1], [3, 7], [5, 33], [70, 512], [2, 4099]] {
            let x = primitive(&random([1, rows, n], 1), dtype);
            let weight = primitive(&random([n], 2), dtype);
            let gradient = primitive(&random([1, rows, n], 3), dtype);
            let y = elements(Flex::rms_norm(x.clone(), weight.clone(), 1e-5));
            assert_close(&y, &elements(generic::forward::<Flex>(x.clone(), weight.clone(), 1e-5)), tolerance);
            let (dx, dw) = Flex::rms_norm_backward(x.clone(), weight.clone(), gradient.clone(), 1e-5);
            let (expected_dx, expected_dw) = generic::backward::<Flex>(x, weight, gradient, 1e-5);
            // A one-element row has a gradient that cancels to rounding.
            if n > 1 {
                assert_close(&elements(dx), &elements(expected_dx), 10.0 * tolerance);
            }
            assert_close(&elements(dw), &elements(expected_dw), 10.0 * tolerance);
        }
    }
}

#[test]
fn rows_of_zeros_and_of_huge_values_stay_finite() {
    let device = Device::flex();
    let rows = Tensor::<2>::from_data([[0.0_f32, 0.0, 0.0], [1e15, -1e15, 2e15]], &device);
    let y: Vec<f64> = rms_norm(rows, Tensor::ones([3], &device), 1e-6).into_data().iter::<f64>().collect();
    assert_close(&y, &[0.0, 0.0, 0.0, 0.5_f64.sqrt(), -(0.5_f64.sqrt()), 2.0_f64.sqrt()], 1e-6);
}

#[test]
fn gradients_agree_with_differences() {
    for [rows, n] in [[1, 2], [3, 5], [4, 37]] {
        assert_gradients(&[random([rows * n], 1), random([n], 2)], |x| {
            rms_norm(x[0].clone().reshape([1, rows, n]), x[1].clone(), 1e-3).reshape([-1])
        });
    }
}

#[test]
fn every_device_agrees() {
    for [rows, n] in [[1, 2], [3, 7], [5, 33], [70, 512], [1100, 64], [2, 4099]] {
        assert_everywhere(&[random([rows, n], 1), random([n], 2)], false, |x| {
            rms_norm(x[0].clone().reshape([1, rows, n]), x[1].clone(), 1e-5).reshape([-1])
        });
    }
}

#[test]
fn what_flows_past_the_norm_is_added_on_every_device() {
    for [rows, n] in [[1, 7], [70, 512], [1100, 64]] {
        let gradients = |device: &Device, dtype: DType| {
            let data = |shape: Vec<usize>, seed| Tensor::<3>::from_data(random(shape, seed), (device, dtype));
            let [x, gradient, past] = [1, 2, 3].map(|seed| data(vec![1, rows, n], seed));
            let weight = Tensor::<1>::from_data(random([n], 4), (device, dtype));
            let (d_x, d_weight) = rms_norm_backward_add(x, weight, gradient, past, 1e-5);
            [d_x.reshape([-1]), d_weight].map(|tensor: Tensor<1>| tensor.into_data().iter::<f64>().collect::<Vec<_>>())
        };
        let expected = gradients(&Device::flex(), DType::F64);
        for tested in devices() {
            for (actual, expected) in gradients(&tested.device, DType::F32).iter().zip(&expected) {
                assert_close(actual, expected, 1e-5);
            }
        }
    }
}
