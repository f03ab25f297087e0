use burn::backend::Flex;
use burn::tensor::{DType, Device, Tensor};

use super::*;
use crate::ops::testing::{assert_close, assert_everywhere, assert_gradients, elements, primitive, random};

const DTYPES: [(DType, f64); 2] = [(DType::F32, 2e-6), (DType::F64, 1e-13)];

const SHAPES: [[usize; 3]; 7] =
    [[1, 1, 1], [1, 7, 3], [4, 33, 65], [5, 31, 17], [3, 600, 300], [129, 67, 131], [300, 64, 257]];

#[test]
fn kernels_agree_with_the_composition() {
    for (dtype, tolerance) in DTYPES {
        for [rows, input, output] in SHAPES {
            let x = primitive(&random([1, rows, input], 1), dtype);
            let weight = primitive(&random([input, output], 2), dtype);
            let residual = primitive(&random([1, rows, output], 3), dtype);
            let expected = elements(generic::forward::<Flex>(x.clone(), weight.clone()));
            assert_close(
                &elements(Flex::packed_linear(x.clone(), weight.clone(), Products::Tuned)),
                &expected,
                tolerance,
            );
            let added = elements(Flex::packed_linear_add(x.clone(), weight.clone(), residual.clone(), Products::Tuned));
            let expected: Vec<f64> = expected.iter().zip(elements(residual.clone())).map(|(a, b)| a + b).collect();
            assert_close(&added, &expected, tolerance);
            assert_close(
                &elements(Flex::linear_input_gradient(residual.clone(), weight.clone(), Products::Tuned)),
                &elements(generic::input_gradient::<Flex>(residual.clone(), weight)),
                tolerance,
            );
            assert_close(
                &elements(Flex::linear_weight_gradient(residual.clone(), x.clone(), dtype, Products::Tuned)),
                &elements(generic::weight_gradient::<Flex>(residual, x)),
                tolerance,
            );
        }
    }
}

#[test]
fn a_shared_residual_is_left_alone() {
    let device = Device::flex();
    let ones = |shape: [usize; 3]| Tensor::<3>::ones(shape, &device);
    let residual = ones([1, 5, 2]);
    let y = linear_add(ones([1, 5, 3]), Tensor::ones([3, 2], &device), residual.clone(), Products::Tuned);
    assert_close(&y.into_data().iter::<f64>().collect::<Vec<_>>(), &[4.0; 10], 1e-6);
    assert_close(&residual.into_data().iter::<f64>().collect::<Vec<_>>(), &[1.0; 10], 1e-6);
}

#[test]
fn transposed_inputs_are_read_in_their_own_order() {
    let device = Device::flex();
    let x = Tensor::<2>::from_data(random([6, 5], 1), (&device, DType::F64));
    let weight = Tensor::<2>::from_data(random([4, 6], 2), (&device, DType::F64));
    let y = linear(x.clone().transpose(), weight.clone().transpose(), Products::Tuned);
    let expected = x.transpose().matmul(weight.transpose());
    let values = |tensor: Tensor<2>| tensor.into_data().iter::<f64>().collect::<Vec<_>>();
    assert_close(&values(y), &values(expected), 1e-13);
}

#[test]
fn gradients_agree_with_differences() {
    for [rows, input, output] in [[1, 2, 3], [3, 5, 4], [6, 4, 7]] {
        let inputs = [random([rows * input], 1), random([input * output], 2), random([rows * output], 3)];
        assert_gradients(&inputs[..2], |x| {
            linear(x[0].clone().reshape([1, rows, input]), x[1].clone().reshape([input, output]), Products::Tuned)
                .reshape([-1])
        });
        assert_gradients(&inputs, |x| {
            let weight = x[1].clone().reshape([input, output]);
            let residual = x[2].clone().reshape([1, rows, output]);
            linear_add(x[0].clone().reshape([1, rows, input]), weight, residual, Products::Tuned).reshape([-1])
        });
    }
}

#[test]
fn every_device_agrees() {
    // The last two lie so that kernels for matrix units take them, in all three directions.
    for [rows, input, output] in [[1, 7, 3], [5, 31, 17], [129, 67, 131], [136, 72, 200], [8, 264, 16]] {
        let inputs = [random([rows, input], 1), random([input, output], 2), random([rows, output], 3)];
        for by in [Products::Tuned, Products::Vendor] {
            assert_everywhere(&inputs, true, |x| {
                let weight = x[1].clone().reshape([input, output]);
                let residual = x[2].clone().reshape([1, rows, output]);
                linear_add(x[0].clone().reshape([1, rows, input]), weight, residual, by).reshape([-1])
            });
        }
    }
}
