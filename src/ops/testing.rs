//! What the operations' tests share: inputs, devices, central differences, comparisons.

use std::sync::LazyLock;

use burn::tensor::{DType, Device, Shape, Tensor, TensorData};
use burn_flex::FlexTensor;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

use crate::spec::{Mode, TuningCache};

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

/// Variable that names further devices to test on, separated by commas, such as `vulkan,tch`.
const DEVICES: &str = "BURNMARK_TEST_DEVICES";

/// A device to test on.
pub(crate) struct TestDevice {
    pub name: String,
    pub device: Device,
    /// Rounds the factors of products to TF32.
    pub tf32: bool,
}

impl TestDevice {
    /// Element types of at most 32 bits that the device has.
    pub(crate) fn floats(&self) -> impl Iterator<Item = DType> {
        [DType::F32, DType::F16, DType::BF16].into_iter().filter(|dtype| self.device.supports_dtype(*dtype))
    }

    /// Largest error, relative to the largest expected value, of an operation in an element type. `products` says whether
    /// it multiplies matrices.
    pub(crate) fn tolerance(&self, dtype: DType, products: bool) -> f64 {
        match dtype {
            DType::F64 => 1e-11,
            DType::F32 if products && self.tf32 => 5e-3,
            DType::F32 => 1e-5,
            DType::F16 => 1e-2,
            _ => 6e-2,
        }
    }
}

/// flex, and what the environment names.
pub(crate) fn devices() -> &'static [TestDevice] {
    static OPENED: LazyLock<Vec<TestDevice>> = LazyLock::new(|| {
        let further = std::env::var(DEVICES).unwrap_or_default();
        let names = std::iter::once("flex").chain(further.split(',').filter(|name| !name.is_empty()));
        let open = |name: &str| {
            let (backend, device) = crate::backends::open(name, Mode::NoCompile, TuningCache::Kept, None)
                .unwrap_or_else(|failure| panic!("{DEVICES} names `{name}`: {failure}"));
            TestDevice { name: name.to_owned(), device, tf32: backend.capabilities().tf32 }
        };
        names.map(open).collect()
    });
    &OPENED
}

/// Runs `f` and its gradients at `inputs` on every device, in every element type it has there, twice, and holds them
/// against the same on flex in double precision, with the same rounded inputs.
///
/// The inputs arrive as flat tensors, for `f` to reshape. `products` says whether `f` multiplies matrices.
#[track_caller]
pub(crate) fn assert_everywhere(inputs: &[TensorData], products: bool, f: impl Fn(Vec<Tensor<1>>) -> Tensor<1>) {
    for tested in devices() {
        for dtype in std::iter::once(DType::F64).chain(tested.floats()) {
            // Vulkan's exponential takes 32 bits at most: in double precision nothing that needs one is right there. On
            // CUDA Burn's own products lose the device in double precision, and with it all tests that follow.
            let inexact = ["vulkan", "cuda"].iter().any(|name| tested.name.starts_with(name));
            if (dtype == DType::F64 && inexact) || !tested.device.supports_dtype(dtype) {
                continue;
            }
            let rounded: Vec<TensorData> = inputs.iter().map(|data| data.clone().convert_dtype(dtype)).collect();
            let expected = evaluate(&rounded, &Device::flex(), DType::F64, dtype, &f);
            let limit = tested.tolerance(dtype, products);
            for round in 0..2 {
                let actual = evaluate(&rounded, &tested.device, dtype, dtype, &f);
                for (part, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
                    let worst = deviation(actual, expected);
                    assert!(
                        worst <= limit,
                        "{}, {dtype:?}, run {round}: {} is off by {worst:e}, allowed are {limit:e}",
                        tested.name,
                        if part == 0 { "the result".to_owned() } else { format!("gradient {part}") },
                    );
                }
            }
        }
    }
}

/// The result of `f` and the gradients of its inputs, weighed by numbers that `weights` can hold.
fn evaluate(
    inputs: &[TensorData],
    device: &Device,
    dtype: DType,
    weights: DType,
    f: &impl Fn(Vec<Tensor<1>>) -> Tensor<1>,
) -> Vec<Vec<f64>> {
    let device = device.clone().autodiff();
    let leaf = |data: &TensorData| {
        let flat = TensorData::new(data.iter::<f64>().collect::<Vec<_>>(), [data.num_elements()]);
        Tensor::<1>::from_data(flat, (&device, dtype)).require_grad()
    };
    let leaves: Vec<Tensor<1>> = inputs.iter().map(leaf).collect();
    let y = f(leaves.clone());
    let weights = random([y.dims()[0]], 99).convert_dtype(weights).convert_dtype(DType::F64);
    let weighed = y.clone() * Tensor::from_data(weights, (&device, y.dtype()));
    let gradients = weighed.sum().backward();
    let host = |tensor: Tensor<1>| tensor.into_data().iter::<f64>().collect::<Vec<_>>();
    let of_inputs = leaves.iter().map(|leaf| host(leaf.grad(&gradients).expect("a gradient")));
    std::iter::once(host(y)).chain(of_inputs).collect()
}

/// Largest difference, relative to the largest expected value; infinite where a number is missing or none.
fn deviation(actual: &[f64], expected: &[f64]) -> f64 {
    if actual.len() != expected.len() {
        return f64::INFINITY;
    }
    let scale = expected.iter().fold(1e-30_f64, |max, x| max.max(x.abs()));
    let differences = actual.iter().zip(expected).map(|(a, e)| (a - e).abs() / scale);
    differences.fold(0.0, |worst, x| if x.is_nan() { f64::INFINITY } else { worst.max(x) })
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
