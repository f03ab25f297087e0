use proptest::collection::vec;
use proptest::prelude::*;
use serde::Deserialize;

use super::{Sample, SampleError, Summary};

#[derive(Deserialize)]
struct Vector {
    name: String,
    values: Vec<f64>,
    mean: f64,
    std: f64,
    median: f64,
    min: f64,
    max: f64,
    percentiles: Vec<(f64, f64)>,
}

/// Within `limit` of the magnitude `scale`.
fn close(actual: f64, expected: f64, scale: f64, limit: f64) -> bool {
    (actual - expected).abs() <= limit * scale
}

fn magnitude(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

fn sample(values: &[f64]) -> Sample {
    Sample::new(values.to_vec()).expect("a valid sample")
}

#[test]
fn agrees_with_numpy() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("testdata/vectors.json")).expect("vectors");
    assert_eq!(vectors.len(), 43);
    for vector in vectors {
        let name = &vector.name;
        let scale = magnitude(&vector.values);
        let sample = sample(&vector.values);
        assert!(close(sample.mean(), vector.mean, scale, 1e-15), "{name}: mean {}", sample.mean());
        assert!(close(sample.std(), vector.std, scale, 1e-15), "{name}: std {}", sample.std());
        assert_eq!(sample.min().to_bits(), vector.min.to_bits(), "{name}: min");
        assert_eq!(sample.max().to_bits(), vector.max.to_bits(), "{name}: max");
        assert!(close(sample.median(), vector.median, scale, f64::EPSILON), "{name}: median");
        for (percent, expected) in vector.percentiles {
            let actual = sample.percentile(percent);
            assert!(close(actual, expected, scale, f64::EPSILON), "{name}: p{percent} {actual} {expected}");
        }
    }
}

#[test]
fn refuses_what_is_not_a_sample() {
    assert_eq!(Sample::new(vec![]), Err(SampleError::Empty));
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e151] {
        let error = Sample::new(vec![1.0, value]).expect_err("out of range");
        assert!(matches!(error, SampleError::OutOfRange { position: 1, .. }), "{error}");
        assert!(error.to_string().contains("at position 1 is not a finite number below 1e150"), "{error}");
    }
}

#[test]
fn summary_of_a_small_sample() {
    let summary = Summary::of(&sample(&[4.0, 1.0, 3.0, 2.0]));
    // The last two are numpy's own roundings of 3.85 and 3.97.
    let (p95, p99) = (3.849_999_999_999_999_6, 3.969_999_999_999_999_8);
    let expected = Summary { count: 4, mean: 2.5, std: 1.25_f64.sqrt(), median: 2.5, min: 1.0, max: 4.0, p95, p99 };
    assert_eq!(summary, expected);
}

#[test]
#[should_panic(expected = "percentile 101 is outside 0..=100")]
fn percentile_outside_the_scale_is_a_bug() {
    sample(&[1.0]).percentile(101.0);
}

fn values() -> impl Strategy<Value = Vec<f64>> {
    vec(-1e6..1e6_f64, 1..200)
}

proptest! {
    #[test]
    fn statistics_stay_within_bounds(values in values()) {
        let sample = sample(&values);
        for value in [sample.mean(), sample.median(), sample.percentile(95.0)] {
            prop_assert!(sample.min() <= value && value <= sample.max());
        }
        prop_assert!(sample.std() >= 0.0);
        prop_assert!(sample.std() <= (sample.max() - sample.min()) / 2.0 * (1.0 + 1e-12));
    }

    #[test]
    fn order_does_not_matter(values in values(), turn in 0..200_usize) {
        let mut turned = values.clone();
        turned.rotate_left(turn % values.len());
        turned.reverse();
        prop_assert_eq!(Summary::of(&sample(&values)), Summary::of(&sample(&turned)));
    }

    #[test]
    fn scaling_scales(values in values(), factor in 1e-3..1e3_f64) {
        let scaled: Vec<f64> = values.iter().map(|value| value * factor).collect();
        let (before, after) = (Summary::of(&sample(&values)), Summary::of(&sample(&scaled)));
        let scale = magnitude(&values) * factor;
        prop_assert!(close(after.mean, before.mean * factor, scale, 1e-12));
        prop_assert!(close(after.std, before.std * factor, scale, 1e-12));
        prop_assert!(close(after.median, before.median * factor, scale, 1e-12));
        prop_assert!(close(after.p99, before.p99 * factor, scale, 1e-12));
    }

    #[test]
    fn shifting_shifts(values in values(), shift in -1e6..1e6_f64) {
        let shifted: Vec<f64> = values.iter().map(|value| value + shift).collect();
        let (before, after) = (Summary::of(&sample(&values)), Summary::of(&sample(&shifted)));
        let scale = magnitude(&values) + shift.abs();
        prop_assert!(close(after.mean, before.mean + shift, scale, 1e-12));
        prop_assert!(close(after.std, before.std, scale, 1e-9));
        prop_assert!(close(after.median, before.median + shift, scale, 1e-12));
        prop_assert!(close(after.p95, before.p95 + shift, scale, 1e-12));
    }

    #[test]
    fn percentiles_are_monotone(values in values(), first in 0.0..=100.0_f64, second in 0.0..=100.0_f64) {
        let sample = sample(&values);
        prop_assert!(sample.percentile(first.min(second)) <= sample.percentile(first.max(second)));
    }

    #[test]
    fn equal_values_have_no_spread(value in -1e6..1e6_f64, count in 1..100_usize) {
        let summary = Summary::of(&sample(&vec![value; count]));
        prop_assert_eq!((summary.mean, summary.std, summary.p99), (value, 0.0, value));
    }
}
