use burn::tensor::{DType, Device, Tensor, TensorData};

use super::*;
use crate::ops::testing::{assert_close, devices, random};

/// Rows, and elements of each before and after; the last three have more columns than the cubes make
/// at once that fit on a device of up to 138 processors, which then make several groups of them.
const SIZES: [(usize, usize, usize); 12] = [
    (1, 512, 1000),
    (1, 37, 14),
    (2, 96, 130),
    (4, 8, 2),
    (1, 4500, 600),
    (9, 16, 24),
    (3, 1376, 36),
    (8, 5664, 24),
    (1, 5664, 24),
    (1, 64, 26600),
    (5, 64, 26600),
    (2, 5664, 2400),
];

/// Against the composition in double precision on flex, at one and more rows, widths that no vector divides, rows of
/// several steps, and too many rows for a kernel of their own; with weights that lie either way.
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
                    [weight.clone(), lying_transposed(&weight)].map(|weight| {
                        let (x, norm, residual) = (x.clone(), norm.clone(), residual.clone());
                        [
                            rms_norm_linear(x.clone(), norm.clone(), weight.clone(), 1e-5, Products::Vendor),
                            rms_norm_linear_swiglu(x.clone(), norm, weight.clone(), 1e-5, Products::Vendor),
                            linear_add(x, weight, residual, Products::Vendor),
                        ]
                        .map(host)
                    })
                };
                let expected = on(&Device::flex(), DType::F64);
                for (actual, expected) in on(&tested.device, dtype).as_flattened().iter().zip(expected.as_flattened()) {
                    assert_close(actual, expected, limit);
                }
            }
        }
    }
}

/// Where launches overlap, each reads what the last has left: a chain of them computes what it does one launch at a time.
#[test]
fn a_chain_is_the_same_one_by_one() {
    let (width, inner) = (512, 1376);
    for tested in devices() {
        for dtype in tested.floats() {
            let of = |shape: [usize; 2], seed| {
                let data = random(shape.to_vec(), seed).convert_dtype(DType::F32);
                lying_transposed(&(Tensor::<2>::from_data(data, (&tested.device, dtype)) * 0.05))
            };
            let norm = Tensor::<1>::ones([width], (&tested.device, dtype));
            let weights = [0, 2, 4].map(|seed| (of([width, 2 * inner], seed), of([inner, width], seed + 1)));
            let chain = |one_by_one: bool| {
                let mut x = Tensor::<3>::ones([1, 1, width], (&tested.device, dtype));
                for (up, down) in weights.iter().cycle().take(30) {
                    let h = rms_norm_linear_swiglu(x.clone(), norm.clone(), up.clone(), 1e-5, Products::Vendor);
                    x = linear_add(h, down.clone(), x, Products::Vendor);
                    if one_by_one {
                        tested.device.sync().expect("launches work");
                    }
                }
                host(x)
            };
            assert_eq!(chain(false), chain(true), "{} in {dtype:?}", tested.name);
        }
    }
}

fn lying_transposed(weight: &Tensor<2>) -> Tensor<2> {
    transposed(Tensor::from_data(weight.clone().transpose().into_data(), (&weight.device(), weight.dtype())))
}

fn host(y: Tensor<3>) -> Vec<f64> {
    y.into_data().iter::<f64>().collect()
}
