use burn::tensor::{DType, Device, Tensor, TensorData};

use super::*;
use crate::ops::testing::{assert_close, devices, random};

/// Rows, and elements of each before and after.
const SIZES: [(usize, usize, usize); 6] =
    [(1, 512, 1000), (1, 37, 14), (2, 96, 130), (4, 8, 2), (1, 4500, 600), (9, 16, 24)];

/// Against the composition in double precision on flex, at one and more rows, widths that no vector divides, rows of
/// several steps, and too many rows for a kernel of their own.
#[test]
fn every_device_agrees() {
    for tested in devices() {
        for dtype in tested.floats() {
            let limit = tested.tolerance(dtype, true);
            for (rows, input, output) in SIZES {
                // More than it adds up well in 16 bits.
                if tested.name == "flex" && dtype != DType::F32 && input > 1000 {
                    continue;
                }
                let on = |device: &Device, dtype: DType| {
                    let data =
                        |shape: Vec<usize>, seed| -> TensorData { random(shape, seed).convert_dtype(DType::BF16) };
                    let rows_of =
                        |width, seed| Tensor::<3>::from_data(data(vec![1, rows, width], seed), (device, dtype));
                    let norm = Tensor::<1>::from_data(data(vec![input], 3), (device, dtype));
                    let weight = Tensor::<2>::from_data(data(vec![input, output], 4), (device, dtype));
                    let (x, residual) = (rows_of(input, 1), rows_of(output, 5));
                    [
                        rms_norm_linear(x.clone(), norm.clone(), weight.clone(), 1e-5, Products::Vendor),
                        rms_norm_linear_swiglu(x.clone(), norm, weight.clone(), 1e-5, Products::Vendor),
                        linear_add(x, weight, residual, Products::Vendor),
                    ]
                    .map(|y| y.into_data().iter::<f64>().collect::<Vec<_>>())
                };
                let expected = on(&Device::flex(), DType::F64);
                for (actual, expected) in on(&tested.device, dtype).iter().zip(&expected) {
                    assert_close(actual, expected, limit);
                }
            }
        }
    }
}
