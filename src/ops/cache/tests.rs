use burn::tensor::{DType, Device, Tensor, TensorData};

use super::*;
use crate::ops::rope;
use crate::ops::testing::{assert_close, devices, random};

#[test]
fn every_device_writes_keys_and_values_where_they_belong() {
    for (tested, dtype) in devices().iter().flat_map(|tested| tested.floats().map(move |dtype| (tested, dtype))) {
        for (batch, seq, first, capacity, head_dim, heads) in [
            (1, 1, 0, 1, 1, Heads { query: 1, key_value: 1 }),
            (2, 1, 4, 7, 6, Heads { query: 4, key_value: 2 }),
            (2, 3, 2, 5, 5, Heads { query: 3, key_value: 3 }),
            (1, 1, 599, 600, 64, Heads { query: 8, key_value: 2 }),
        ] {
            let on = |device: &Device| {
                let floats = |shape: [usize; 4], seed| {
                    Tensor::<4>::from_data(random(shape, seed).convert_dtype(dtype), (device, dtype))
                };
                let qkv = floats([1, batch, seq, heads.packed() * head_dim], 1).squeeze_dim::<3>(0);
                let cache = |seed| floats([batch, heads.key_value, capacity, head_dim], seed);
                (qkv, (cache(2), cache(3)))
            };
            let host = |(keys, values): (Tensor<4>, Tensor<4>)| {
                [keys, values].map(|tensor| tensor.into_data().iter::<f32>().collect::<Vec<_>>())
            };
            // By definition: the caches before, the new positions, the caches behind.
            let (qkv, caches) = on(&Device::flex());
            let part = |first_head: usize| {
                let part = qkv.clone().narrow(2, first_head * head_dim, heads.key_value * head_dim);
                part.reshape([batch, seq, heads.key_value, head_dim]).swap_dims(1, 2)
            };
            let expected = |all: Tensor<4>, new: Tensor<4>| {
                let kept = |range: std::ops::Range<usize>| {
                    (!range.is_empty()).then(|| all.clone().narrow(2, range.start, range.len()))
                };
                let parts = [kept(0..first), Some(new), kept(first + seq..capacity)];
                Tensor::cat(parts.into_iter().flatten().collect(), 2)
            };
            let expected =
                host((expected(caches.0, part(heads.query)), expected(caches.1, part(heads.query + heads.key_value))));
            let (qkv, caches) = on(&tested.device);
            assert_eq!(host(put(qkv, caches, first, heads)), expected, "{}", tested.name);
            if seq == 1 {
                let (qkv, caches) = on(&tested.device);
                let position = Tensor::<1, Int>::from_data([first as i64], &tested.device);
                assert_eq!(host(put_at(qkv, caches, &position, heads)), expected, "{}", tested.name);
            }
        }
    }
}

/// Against turning and putting one after the other in double precision on flex.
#[test]
fn every_device_turns_on_the_way() {
    for (tested, dtype) in devices().iter().flat_map(|tested| tested.floats().map(move |dtype| (tested, dtype))) {
        for (batch, seq, first, capacity, head_dim, heads) in [
            (2, 1, 4, 7, 6, Heads { query: 4, key_value: 2 }),
            (2, 3, 2, 5, 10, Heads { query: 3, key_value: 3 }),
            (1, 5, 3, 600, 64, Heads { query: 8, key_value: 2 }),
        ] {
            let on = |device: &Device, to: DType| {
                let floats = |shape: [usize; 4], seed| {
                    Tensor::<4>::from_data(random(shape, seed).convert_dtype(dtype), (device, to))
                };
                let qkv = floats([1, batch, seq, heads.packed() * head_dim], 1).squeeze_dim::<3>(0);
                let cache = |seed| floats([batch, heads.key_value, capacity, head_dim], seed);
                // As in a model, whose tables have 32 bits.
                let wide = if to == DType::F64 { to } else { DType::F32 };
                (qkv, RopeTables::new(0..capacity, head_dim, 100.0, wide, device), (cache(2), cache(3)))
            };
            let host = |queries: Tensor<3>, (keys, values): (Tensor<4>, Tensor<4>)| {
                let values_of = |data: TensorData| data.iter::<f64>().collect::<Vec<_>>();
                [queries.into_data(), keys.into_data(), values.into_data()].map(values_of)
            };
            let (qkv, tables, caches) = on(&Device::flex(), DType::F64);
            let turned = rope(qkv, &tables, heads.query + heads.key_value, first);
            let queries = turned.clone().narrow(2, 0, heads.query * head_dim);
            let expected = host(queries, put(turned, caches, first, heads));
            let (qkv, tables, caches) = on(&tested.device, dtype);
            let (queries, caches) = turn_and_put(qkv, &tables, caches, first, heads);
            for (actual, expected) in host(queries, caches).iter().zip(&expected) {
                assert_close(actual, expected, tested.tolerance(dtype, false));
            }
        }
    }
}
