//! What the operations' tests share: inputs, central differences, comparisons.

use burn::tensor::{DType, Device, Shape, Tensor, TensorData};
use burn_flex::FlexTensor;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

/// Normally distributed elements.
pub(crate) fn random(shape: impl Into<Shape>, seed: u64) -> TensorData {
    let shape = shape.into();
    let values: Vec<f64> = StandardNormal.sample_iter(StdRng::seed_from_u64(seed)).take(shape.num_elements()).collect();
    TensorData::new(values, shape)
}

/// A primitive for calling a composition directly.
pub(crate) fn primitive(data: &TensorData, dtype: DType) -> FlexTensor {
    FlexTensor::from_data(data.clone().convert_dtype(dtype))
}

/// Elements of a primitive, in row-major order.
pub(crate) fn elements(tensor: FlexTensor) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// Largest difference, relative to the largest expected value.
#[track_caller]
pub(crate) fn assert_close(actual: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "lengths differ");
    let scale = expected.iter().fold(1e-30_f64, |max, x| max.max(x.abs()));
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!((a - e).abs() <= tolerance * scale, "element {i}: {a} instead of {e} (scale {scale})");
    }
}

/// Compares the gradients of `f` at `inputs`, all of them in double precision, with central differences.
///
/// The inputs arrive as flat tensors, for `f` to reshape; its result is reduced to a number with fixed weights.
#[track_caller]
pub(crate) fn assert_gradients(inputs: &[TensorData], f: impl Fn(Vec<Tensor<1>>) -> Tensor<1>) {
    const STEP: f64 = 1e-5;
    let device = Device::flex().autodiff();
    let inputs: Vec<Vec<f64>> = inputs.iter().map(|data| data.iter::<f64>().collect()).collect();
    let leaves = |inputs: &[Vec<f64>]| -> Vec<Tensor<1>> {
        let leaf = |values: &Vec<f64>| {
            let data = TensorData::new(values.clone(), [values.len()]);
            Tensor::from_data(data, (&device, DType::F64)).require_grad()
        };
        inputs.iter().map(leaf).collect()
    };
    let scalar = |leaves: Vec<Tensor<1>>| {
        let y = f(leaves);
        let weights = random([y.dims()[0]], 99);
        (y * Tensor::from_data(weights, (&device, DType::F64))).sum()
    };
    let value = |inputs: &[Vec<f64>]| scalar(leaves(inputs)).into_data().iter::<f64>().next().expect("one number");

    let at = leaves(&inputs);
    let gradients = scalar(at.clone()).backward();
    for (index, leaf) in at.iter().enumerate() {
        let gradient: Vec<f64> = leaf.grad(&gradients).expect("a gradient").into_data().iter::<f64>().collect();
        let differences: Vec<f64> = (0..inputs[index].len())
            .map(|element| {
                let moved = |by: f64| {
                    let mut inputs = inputs.clone();
                    inputs[index][element] += by;
                    value(&inputs)
                };
                (moved(STEP) - moved(-STEP)) / (2.0 * STEP)
            })
            .collect();
        assert_close(&gradient, &differences, 1e-7);
    }
}
