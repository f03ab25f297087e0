use burn::backend::Flex;
use burn::tensor::{DType, Device};

use super::*;
use crate::ops::testing::{assert_close, assert_everywhere, assert_gradients, elements, primitive, random};

const DTYPES: [(DType, f64); 2] = [(DType::F32, 2e-6), (DType::F64, 1e-13)];

fn tables(dtype: DType, device: &Device) -> RopeTables {
    RopeTables::new(0..40, 6, 10_000.0, dtype, device)
}

#[test]
fn kernels_agree_with_the_composition() {
    let device = Device::flex();
    for (dtype, tolerance) in DTYPES {
        let (cos, sin) = tables(DType::F64, &device).into_parts();
        let (cos, sin) = (primitive(&cos.into_data(), dtype), primitive(&sin.into_data(), dtype));
        for ([batch, seq], heads, width, first) in [([1, 1], 1, 6, 39), ([2, 5], 2, 18, 3), ([3, 31], 3, 18, 0)] {
            let x = primitive(&random([batch, seq, width], 1), dtype);
            for turn in [Turn::Forward, Turn::Back] {
                let y = elements(Flex::rope(x.clone(), cos.clone(), sin.clone(), heads, first, turn));
                let expected = generic::rotate::<Flex>(x.clone(), cos.clone(), sin.clone(), heads, first, turn);
                assert_close(&y, &elements(expected), tolerance);
            }
        }
    }
}

#[test]
fn turning_back_undoes_turning() {
    let device = Device::flex();
    let (cos, sin) = tables(DType::F64, &device).into_parts();
    let (cos, sin) = (primitive(&cos.into_data(), DType::F64), primitive(&sin.into_data(), DType::F64));
    let x = primitive(&random([2, 7, 18], 1), DType::F64);
    let turned = Flex::rope(x.clone(), cos.clone(), sin.clone(), 2, 5, Turn::Forward);
    assert_close(&elements(Flex::rope(turned, cos, sin, 2, 5, Turn::Back)), &elements(x), 1e-14);
}

#[test]
fn gradients_agree_with_differences() {
    let device = Device::flex().autodiff();
    assert_gradients(&[random([2 * 3 * 18], 1)], |x| {
        rope(x[0].clone().reshape([2, 3, 18]), &tables(DType::F64, &device), 2, 4).reshape([-1])
    });
}

#[test]
fn every_device_agrees() {
    for ([batch, seq], heads, head_dim, width, first) in
        [([1, 1], 1, 6, 6, 39), ([2, 5], 2, 6, 18, 3), ([3, 31], 3, 10, 37, 0), ([2, 40], 10, 64, 768, 0)]
    {
        assert_everywhere(&[random([batch, seq, width], 1)], false, |x| {
            let table_dtype = if x[0].dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            let tables = RopeTables::new(0..40, head_dim, 10_000.0, table_dtype, &x[0].device());
            rope(x[0].clone().reshape([batch, seq, width]), &tables, heads, first).reshape([-1])
        });
    }
}
