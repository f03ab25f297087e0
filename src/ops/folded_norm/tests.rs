use burn::tensor::{DType, Device, Tensor};

use super::*;
use crate::ops;
use crate::ops::testing::{assert_close, devices, random};

const EPS: f64 = 1e-5;

/// Against rows divided before, in double precision on flex: widths that no vector divides, rows of several steps.
#[test]
fn every_device_agrees_with_rows_divided_before() {
    for (tested, dtype) in devices().iter().flat_map(|tested| tested.floats().map(move |dtype| (tested, dtype))) {
        for (batch, seq, first, hidden, head_dim, heads) in [
            (1, 1, 3, 7, 2, Heads { query: 1, key_value: 1 }),
            (2, 3, 0, 48, 10, Heads { query: 3, key_value: 3 }),
            (2, 5, 2, 512, 64, Heads { query: 8, key_value: 2 }),
            (1, 3, 1, 4500, 16, Heads { query: 4, key_value: 1 }),
        ] {
            let (turning, capacity) = (heads.query + heads.key_value, first + seq + 2);
            let on = |device: &Device, dtype: DType| {
                let floats = |shape: [usize; 4], seed| {
                    Tensor::<4>::from_data(random(shape, seed).convert_dtype(DType::BF16), (device, dtype))
                };
                let rows = |width, seed| floats([1, batch, seq, width], seed).squeeze_dim::<3>(0);
                let cache = |seed| floats([batch, heads.key_value, capacity, head_dim], seed);
                let wide = if dtype == DType::F64 { dtype } else { DType::F32 };
                let tables = RopeTables::new(0..capacity, head_dim, 100.0, wide, device);
                let products = [rows(heads.packed() * head_dim, 2), rows(2 * hidden, 3)];
                (rows(hidden, 1), products, tables, (cache(4), cache(5)))
            };
            let host = |[turned, gated, queries]: [Tensor<3>; 3], (keys, values): (Tensor<4>, Tensor<4>)| {
                let all = [turned, gated, queries].map(Tensor::into_data);
                let all = all.into_iter().chain([keys.into_data(), values.into_data()]);
                all.map(|data| data.iter::<f64>().collect::<Vec<_>>()).collect::<Vec<_>>()
            };
            let (x, products, tables, caches) = on(&Device::flex(), DType::F64);
            let r = (x.powi_scalar(2).mean_dim(2) + EPS).sqrt().recip();
            let [qkv, gate_up] = products.map(|product| product * r.clone());
            let turned = ops::rope(qkv.clone(), &tables, turning, first);
            let (queries, caches) = ops::cache::turn_and_put(qkv, &tables, caches, first, heads);
            let expected = host([turned, ops::swiglu(gate_up), queries], caches);

            let (x, [qkv, gate_up], tables, caches) = on(&tested.device, dtype);
            let turned = rope(qkv.clone(), x.clone(), EPS, &tables, turning, first);
            let gated = swiglu(gate_up, x.clone(), EPS);
            let (queries, caches) = turn_and_put((qkv, x), EPS, &tables, caches, first, heads);
            for (actual, expected) in host([turned, gated, queries], caches).iter().zip(&expected) {
                assert_close(actual, expected, tested.tolerance(dtype, false));
            }
        }
    }
}
