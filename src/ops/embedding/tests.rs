use burn::tensor::{Device, Tensor};

use super::*;
use crate::ops::testing::{assert_close, devices, random};

/// By definition, with ids that come often, once and never, and more ids than a cube looks at at once.
#[test]
fn every_device_agrees() {
    for (rows, width, vocabulary) in [(1, 1, 1), (5, 6, 3), (300, 37, 11), (600, 64, 1000), (2500, 6, 3)] {
        let ids: Vec<i64> = (0..rows as i64).map(|i| i * i % vocabulary as i64).collect();
        let data = random([rows, width], 1).convert_dtype(DType::BF16);
        let values: Vec<f64> = data.iter::<f64>().collect();
        let mut expected = vec![0.0; vocabulary * width];
        for (row, id) in ids.iter().enumerate() {
            for column in 0..width {
                expected[*id as usize * width + column] += values[row * width + column];
            }
        }
        for tested in devices() {
            let on = |device: &Device, from: DType, to: DType| {
                let gradient = Tensor::<2>::from_data(data.clone(), (device, from));
                let ids = Tensor::<1, Int>::from_data(ids.as_slice(), device);
                let table = embedding_gradient(gradient, ids, vocabulary, to);
                assert_eq!((table.dims(), table.dtype()), ([vocabulary, width], to), "{}", tested.name);
                table.into_data().iter::<f64>().collect::<Vec<_>>()
            };
            assert_close(&on(&tested.device, DType::F32, DType::F32), &expected, 1e-5);
            if tested.device.supports_dtype(DType::BF16) {
                assert_close(&on(&tested.device, DType::BF16, DType::F32), &expected, 1e-5);
            }
        }
    }
}
