use burn::backend::Flex;
use burn::tensor::{DType, Device, Tensor};

use super::*;
use crate::ops::cache::put;
use crate::ops::rope::rope;
use crate::ops::testing::{assert_close, assert_everywhere, assert_gradients, devices, elements, primitive, random};

const DTYPES: [(DType, f64); 2] = [(DType::F32, 2e-6), (DType::F64, 1e-13)];

const CASES: [([usize; 2], usize, Heads); 6] = [
    ([1, 1], 2, Heads { query: 1, key_value: 1 }),
    ([2, 3], 4, Heads { query: 4, key_value: 2 }),
    ([1, 64], 6, Heads { query: 3, key_value: 1 }),
    ([2, 65], 8, Heads { query: 2, key_value: 2 }),
    ([1, 131], 16, Heads { query: 4, key_value: 1 }),
    ([2, 200], 10, Heads { query: 6, key_value: 3 }),
];

#[test]
fn kernels_agree_with_the_composition() {
    for (dtype, tolerance) in DTYPES {
        for ([batch, seq], head_dim, heads) in CASES {
            let qkv = primitive(&random([batch, seq, heads.packed() * head_dim], 1), dtype);
            let gradient = primitive(&random([batch, seq, heads.query * head_dim], 2), dtype);
            let y = elements(Flex::packed_attention(qkv.clone(), heads));
            assert_close(&y, &elements(generic::forward::<Flex>(qkv.clone(), heads)), tolerance);
            let (out, saved) = Flex::packed_attention_saving(qkv.clone(), heads);
            let d = Flex::packed_attention_backward(qkv.clone(), out, saved, gradient.clone(), heads);
            assert_close(&elements(d), &elements(generic::backward::<Flex>(qkv, gradient, heads)), 10.0 * tolerance);
        }
    }
}

#[test]
fn attending_to_a_cache_equals_attending_to_the_sequence() {
    for (dtype, tolerance) in DTYPES {
        for ([batch, seq], head_dim, heads) in CASES {
            let (data, capacity) = (random([batch, seq, heads.packed() * head_dim], 1), seq + 3);
            let device = Device::flex();
            let qkv = Tensor::<3>::from_data(data, (&device, dtype));
            let full = attention(qkv.clone(), heads);
            let cache = |first: usize| {
                let x = qkv.clone().narrow(2, first * head_dim, heads.key_value * head_dim);
                let x = x.reshape([batch, seq, heads.key_value, head_dim]).swap_dims(1, 2);
                let rest = Tensor::full([batch, heads.key_value, 3, head_dim], f64::NAN, (&device, dtype));
                Tensor::cat(vec![x, rest], 2)
            };
            let (keys, values) = (cache(heads.query), cache(heads.query + heads.key_value));
            assert_eq!(keys.dims()[2], capacity);
            for count in [1, seq.div_ceil(2), seq] {
                let newest = |x: Tensor<3>| x.narrow(1, seq - count, count);
                let y = cached_attention(newest(qkv.clone()), keys.clone(), values.clone(), seq, heads);
                let values = |x: Tensor<3>| x.into_data().iter::<f64>().collect::<Vec<_>>();
                assert_close(&values(y), &values(newest(full.clone())), tolerance);
                let generic = generic::cached::<Flex>(
                    primitive(&newest(qkv.clone()).into_data(), dtype),
                    primitive(&keys.clone().into_data(), dtype),
                    primitive(&cache(heads.query + heads.key_value).into_data(), dtype),
                    seq,
                    heads,
                );
                assert_close(&elements(generic), &values(newest(full.clone())), tolerance);
            }
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let device = Device::flex();
    let heads = Heads { query: 1, key_value: 1 };
    let row = |scale: f32| [scale, scale, 1.0, 2.0, 3.0, 4.0];
    let qkv = Tensor::<3>::from_data([[row(300.0), row(-300.0)]], &device);
    let y: Vec<f64> = attention(qkv, heads).into_data().iter::<f64>().collect();
    assert_close(&y, &[3.0, 4.0, 3.0, 4.0], 1e-6);
}

#[test]
fn gradients_agree_with_differences() {
    for ([batch, seq], head_dim, heads) in &CASES[..3] {
        let (batch, seq) = (*batch, (*seq).min(7));
        let width = heads.packed() * head_dim;
        assert_gradients(&[random([batch * seq * width], 1)], |x| {
            attention(x[0].clone().reshape([batch, seq, width]), *heads).reshape([-1])
        });
    }
}

#[test]
fn every_device_agrees() {
    let head_64 = ([1, 100], 64, Heads { query: 8, key_value: 2 });
    // Few tiles of keys and many rows, which cubes share then, on a device with one processor too.
    let shared = ([1, 31], 8, Heads { query: 16, key_value: 1 });
    for ([batch, seq], head_dim, heads) in CASES.into_iter().chain([head_64, shared]) {
        let width = heads.packed() * head_dim;
        assert_everywhere(&[random([batch, seq, width], 1)], true, |x| {
            attention(x[0].clone().reshape([batch, seq, width]), heads).reshape([-1])
        });
    }
    // Without matrices each tile would be the same plain units once more.
    #[cfg(feature = "cubecl")]
    if devices().iter().any(|tested| tested.name.starts_with("cuda")) {
        every_tile_agrees();
    }
}

/// Each tile of matrix products is right, not only the fastest: ends of sequences, and several steps of keys.
#[cfg(feature = "cubecl")]
fn every_tile_agrees() {
    let cases = [
        ([2, 37], 16, Heads { query: 2, key_value: 1 }),
        ([1, 200], 64, Heads { query: 6, key_value: 2 }),
        ([1, 301], 128, Heads { query: 4, key_value: 1 }),
        // Rows that are no multiple of 128 bytes.
        ([1, 77], 80, Heads { query: 2, key_value: 1 }),
        ([1, 77], 96, Heads { query: 2, key_value: 1 }),
        // More cubes than an H200 has processors, and room for all of them.
        ([2, 300], 16, Heads { query: 8, key_value: 2 }),
    ];
    for forced in choice::tiles().flat_map(|tile| [(tile, 2), (tile, 3)]) {
        *choice::FORCED.lock().unwrap() = Some(forced);
        for ([batch, seq], head_dim, heads) in cases {
            let width = heads.packed() * head_dim;
            assert_everywhere(&[random([batch, seq, width], 1)], true, |x| {
                attention(x[0].clone().reshape([batch, seq, width]), heads).reshape([-1])
            });
        }
    }
    *choice::FORCED.lock().unwrap() = None;
}

/// A cache longer than what one cube works through, its tail never to be read. Against double precision on flex.
#[test]
fn every_device_decodes_alike() {
    for tested in devices() {
        for (batch, length, capacity, head_dim, heads) in [
            (1, 1, 4, 2, Heads { query: 1, key_value: 1 }),
            (2, 37, 40, 6, Heads { query: 4, key_value: 2 }),
            (1, 129, 600, 64, Heads { query: 8, key_value: 2 }),
            (2, 600, 600, 16, Heads { query: 3, key_value: 3 }),
            // So many heads that each has few cubes.
            (40, 577, 600, 16, Heads { query: 8, key_value: 4 }),
            (2, 577, 900, 128, Heads { query: 16, key_value: 2 }),
            // So long a cache that each cube has several steps of it, the newest key in a later one.
            (1, 4177, 4200, 64, Heads { query: 3, key_value: 1 }),
        ] {
            for dtype in tested.floats().filter(|dtype| *dtype == DType::F32 || head_dim >= 64) {
                let on = |device: &Device, to: DType| {
                    let floats = |shape: [usize; 4], seed| {
                        Tensor::<4>::from_data(random(shape, seed).convert_dtype(dtype), (device, to))
                    };
                    let cache = |seed| {
                        let filled = floats([batch, heads.key_value, length, head_dim], seed);
                        if length == capacity {
                            return filled;
                        }
                        let tail = [batch, heads.key_value, capacity - length, head_dim];
                        Tensor::cat(vec![filled, Tensor::full(tail, 1e4, (device, to))], 2)
                    };
                    let newest = floats([1, batch, 3, heads.query * head_dim], 3).squeeze_dim::<3>(0);
                    (newest, cache(1), cache(2))
                };
                let host = |x: Tensor<3>| x.into_data().iter::<f64>().collect::<Vec<_>>();
                let limit = tested.tolerance(dtype, true);
                for count in [1, 3.min(length)] {
                    let (newest, keys, values) = on(&Device::flex(), DType::F64);
                    let expected = host(cached_attention(newest.narrow(1, 0, count), keys, values, length, heads));
                    let (newest, keys, values) = on(&tested.device, dtype);
                    let queries = newest.narrow(1, 0, count);
                    let known = cached_attention(queries.clone(), keys.clone(), values.clone(), length, heads);
                    assert_close(&host(known), &expected, limit);
                    if count == 1 {
                        let position = Tensor::<1, Int>::from_data([length as i64 - 1], &tested.device);
                        assert_close(&host(attention_at(queries, keys, values, &position, heads)), &expected, limit);
                    }
                }
            }
        }
    }
}

/// Against turning, putting and attending one after the other in double precision on flex; nothing is to be read from where
/// the new key goes.
#[test]
fn every_device_turns_and_appends_in_a_step() {
    for tested in devices() {
        for (batch, length, capacity, head_dim, heads) in [
            (1, 1, 4, 2, Heads { query: 1, key_value: 1 }),
            (2, 37, 40, 6, Heads { query: 4, key_value: 2 }),
            (1, 256, 256, 64, Heads { query: 8, key_value: 4 }),
            (1, 129, 600, 64, Heads { query: 8, key_value: 2 }),
            (2, 600, 600, 16, Heads { query: 3, key_value: 3 }),
            (1, 577, 600, 128, Heads { query: 4, key_value: 1 }),
            (3, 513, 900, 64, Heads { query: 6, key_value: 3 }),
            (1, 4177, 4200, 64, Heads { query: 5, key_value: 1 }),
            // Keys for a large cube on every processor, which share a head's or not.
            (8, 1601, 1700, 128, Heads { query: 8, key_value: 4 }),
            (40, 577, 600, 64, Heads { query: 8, key_value: 4 }),
        ] {
            for dtype in tested.floats().filter(|dtype| *dtype == DType::F32 || head_dim >= 64) {
                let on = |device: &Device, to: DType| {
                    let floats = |shape: [usize; 4], seed| {
                        Tensor::<4>::from_data(random(shape, seed).convert_dtype(dtype), (device, to))
                    };
                    let qkv = floats([1, batch, 1, heads.packed() * head_dim], 1).squeeze_dim::<3>(0);
                    let cache = |seed| {
                        let filled = floats([batch, heads.key_value, capacity, head_dim], seed);
                        let rest = [batch, heads.key_value, capacity - length + 1, head_dim];
                        let rest = Tensor::full(rest, 10.0, (device, to));
                        filled.slice_assign([0..batch, 0..heads.key_value, length - 1..capacity, 0..head_dim], rest)
                    };
                    // As in a model, whose tables have 32 bits.
                    let wide = if to == DType::F64 { to } else { DType::F32 };
                    (qkv, RopeTables::new(0..capacity, head_dim, 100.0, wide, device), (cache(2), cache(3)))
                };
                let host = |out: Tensor<3>, (keys, values): (Tensor<4>, Tensor<4>)| {
                    [out.into_data(), keys.into_data(), values.into_data()]
                        .map(|data| data.iter::<f64>().collect::<Vec<_>>())
                };
                let (qkv, tables, caches) = on(&Device::flex(), DType::F64);
                let turned = rope(qkv, &tables, heads.query + heads.key_value, length - 1);
                let (keys, values) = put(turned.clone(), caches, length - 1, heads);
                let expected = cached_attention(turned, keys.clone(), values.clone(), length, heads);
                let expected = host(expected, (keys, values));
                let (qkv, tables, caches) = on(&tested.device, dtype);
                let position = Tensor::<1, Int>::from_data([length as i64 - 1], &tested.device);
                let (out, caches) = turned_attention_at(qkv, &tables, caches, &position, heads);
                for (actual, expected) in host(out, caches).iter().zip(&expected) {
                    assert_close(actual, expected, tested.tolerance(dtype, true));
                }
            }
        }
    }
}
