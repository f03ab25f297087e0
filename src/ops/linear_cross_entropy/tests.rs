use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_flex::FlexTensor;

use super::*;
use crate::ops::testing::{assert_close, assert_everywhere, assert_gradients, elements, primitive, random};

const DTYPES: [(DType, f64); 2] = [(DType::F32, 2e-6), (DType::F64, 1e-13)];

/// Targets of which every fifth does not count, and the number of those that do.
fn targets(rows: usize, vocabulary: usize) -> (Vec<i64>, usize) {
    let targets: Vec<i64> =
        (0..rows).map(|row| if row % 5 == 4 { -1 } else { (row * 7 % vocabulary) as i64 }).collect();
    let count = targets.iter().filter(|target| **target >= 0).count();
    (targets, count)
}

fn plain(hidden: &FloatTensor<Flex>, weight: &FloatTensor<Flex>, targets: &[i64], count: usize) -> f64 {
    let [_, vocabulary] = weight.layout().shape().dims();
    let logits = elements(Flex::float_matmul(hidden.clone(), weight.clone()));
    let loss = |(row, target): (&[f64], &i64)| {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|x| (x - max).exp()).sum();
        usize::try_from(*target).map_or(0.0, |target| sum.ln() + max - row[target])
    };
    logits.chunks(vocabulary).zip(targets).map(loss).sum::<f64>() / count as f64
}

#[test]
fn kernels_agree_with_the_composition_and_the_definition() {
    for (dtype, tolerance) in DTYPES {
        for [rows, n, vocabulary] in [[1, 3, 2], [7, 5, 97], [70, 33, 131], [700, 16, 1000], [130, 8, 17_001]] {
            let hidden = primitive(&random([rows, n], 1), dtype);
            let weight = primitive(&random([n, vocabulary], 2), dtype);
            let (ids, count) = targets(rows, vocabulary);
            let ids_tensor = || FlexTensor::from_data(TensorData::new(ids.clone(), [rows]));
            let ours = Flex::linear_cross_entropy_with_gradients(
                hidden.clone(),
                weight.clone(),
                ids_tensor(),
                count,
                Products::Tuned,
            );
            let theirs = generic::with_gradients::<Flex>(hidden.clone(), weight.clone(), ids_tensor(), count);
            let loss = [plain(&hidden, &weight, &ids, count)];
            let alone =
                Flex::linear_cross_entropy(hidden.clone(), weight.clone(), ids_tensor(), count, Products::Tuned);
            let composed = generic::forward::<Flex>(hidden, weight, ids_tensor(), count);
            for value in [alone, composed, ours.0, theirs.0] {
                assert_close(&elements(value), &loss, 10.0 * tolerance);
            }
            assert_close(&elements(ours.1), &elements(theirs.1), 10.0 * tolerance);
            assert_close(&elements(ours.2), &elements(theirs.2), 10.0 * tolerance);
        }
    }
}

#[test]
fn large_logits_do_not_overflow() {
    let device = Device::flex();
    let hidden = Tensor::<2>::from_data([[1e4_f32], [-1e4]], &device);
    let weight = Tensor::<2>::from_data([[1.0_f32, -1.0]], &device);
    let targets = Tensor::from_data([0_i64, 0], &device);
    let loss: Vec<f64> =
        linear_cross_entropy(hidden, weight, targets, 2, Products::Tuned).into_data().iter::<f64>().collect();
    assert_close(&loss, &[1e4], 1e-6);
}

#[test]
fn gradients_agree_with_differences() {
    let device = Device::flex().autodiff();
    for [rows, n, vocabulary] in [[1, 2, 3], [6, 3, 5], [67, 2, 4]] {
        let (ids, count) = targets(rows, vocabulary);
        assert_gradients(&[random([rows * n], 1), random([n * vocabulary], 2)], |x| {
            let targets = Tensor::from_data(TensorData::new(ids.clone(), [rows]), &device);
            let (hidden, weight) = (x[0].clone().reshape([rows, n]), x[1].clone().reshape([n, vocabulary]));
            // Times three: the loss need not be the end of the graph.
            linear_cross_entropy(hidden, weight, targets, count, Products::Vendor) * 3.0
        });
    }
}

#[test]
fn every_device_agrees() {
    for [rows, n, vocabulary] in [[1, 3, 2], [7, 5, 97], [70, 33, 131], [130, 8, 1000]] {
        let (ids, count) = targets(rows, vocabulary);
        assert_everywhere(&[random([rows, n], 1), random([n, vocabulary], 2)], true, |x| {
            let targets = Tensor::from_data(TensorData::new(ids.clone(), [rows]), &x[0].device());
            let (hidden, weight) = (x[0].clone().reshape([rows, n]), x[1].clone().reshape([n, vocabulary]));
            linear_cross_entropy(hidden, weight, targets, count, Products::Vendor)
        });
    }
}
