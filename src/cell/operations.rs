//! Operations of the optimised model, each beside the plain composition it stands for, at one size.

use std::path::PathBuf;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burnmark_backend_api::Backend;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, StandardNormal};

use super::measure::{dtypes, ensure_supported, opened};
use super::verify::relative_l2;
use crate::backends;
use crate::measure::{Clock, MemoryProbe};
use crate::model::plain;
use crate::ops;
use crate::ops::attention::Heads;
use crate::ops::rope::RopeTables;
use crate::spec::{
    Event, Failure, FailureKind, Operation, OperationObservation, OperationsSpec, Pass, Timing, Tolerance, TuningCache,
    Work,
};

/// Measures every operation of `spec`.
pub(super) fn run(spec: &OperationsSpec, cache: Option<PathBuf>, emit: &mut dyn FnMut(Event)) -> Result<(), Failure> {
    let (backend, device) = backends::open(&spec.backend, spec.mode, TuningCache::Kept, cache)?;
    ensure_supported(spec.precision, &device)?;
    emit(opened(backend, &device, &spec.backend, spec.mode, spec.precision));
    let (_, dtype) = dtypes(spec.precision, false);
    let bench = Bench { spec, backend, device, dtype };
    for operation in &spec.operations {
        for pass in [Pass::Forward, Pass::ForwardBackward] {
            if let Some(observation) = bench.measured(*operation, pass)? {
                emit(Event::OperationObserved(observation));
            }
        }
    }
    Ok(())
}

type Compute = Box<dyn Fn(&[Tensor<3>]) -> Vec<Tensor<3>>>;

/// An operation and its reference. Both take the inputs; the reference takes the first one in `parts` along its last
/// dimension, as the plain model has them.
struct Case {
    shapes: Vec<[usize; 3]>,
    parts: Vec<usize>,
    fused: Compute,
    reference: Compute,
    forward: Work,
    /// `None` if it is not differentiable.
    forward_backward: Option<Work>,
}

struct Bench<'a> {
    spec: &'a OperationsSpec,
    backend: &'static dyn Backend,
    device: Device,
    dtype: DType,
}

impl Bench<'_> {
    fn measured(&self, operation: Operation, pass: Pass) -> Result<Option<OperationObservation>, Failure> {
        let device = match pass {
            Pass::Forward => self.device.clone(),
            Pass::ForwardBackward => self.device.clone().autodiff(),
        };
        let case = self.case(operation, &device);
        let Some(work) = (match pass {
            Pass::Forward => Some(case.forward),
            Pass::ForwardBackward => case.forward_backward,
        }) else {
            return Ok(None);
        };
        let mut random = StdRng::seed_from_u64(self.spec.seed);
        let inputs: Vec<Tensor<3>> = case
            .shapes
            .iter()
            .map(|shape| {
                let count = shape.iter().product();
                let values: Vec<f32> = StandardNormal.sample_iter(&mut random).take(count).collect();
                Tensor::from_data(TensorData::new(values, *shape), (&device, self.dtype))
            })
            .collect();
        let mut first = 0;
        let parts = case.parts.iter().map(|width| {
            first += width;
            inputs[0].clone().narrow(2, first - width, *width) * 1.0
        });
        let parts: Vec<Tensor<3>> = parts.chain(inputs[1..].iter().cloned()).collect();

        let ours = results(&case.fused, &inputs, pass, inputs.len())?;
        let theirs = results(&case.reference, &parts, pass, parts.len() + 1 - case.parts.len())?;
        let errors = ours.iter().zip(&theirs).map(|(ours, theirs)| relative_l2(ours, theirs));
        let error = errors.fold(0.0, |worst: f64, error| if error.is_nan() { f64::NAN } else { worst.max(error) });
        let usual = Tolerance::of(self.spec.precision, self.backend.capabilities().tf32);
        Ok(Some(OperationObservation {
            operation,
            pass,
            work,
            reference: self.timed(&case.reference, &parts, pass)?,
            fused: self.timed(&case.fused, &inputs, pass)?,
            error: error.is_finite().then_some(error),
            tolerance: usual.gradients,
        }))
    }

    fn timed(&self, compute: &Compute, inputs: &[Tensor<3>], pass: Pass) -> Result<Timing, Failure> {
        let clock = Clock::new(&self.device);
        let probe = MemoryProbe::new(self.backend, &self.device);
        let once = || {
            let inputs = tracked(inputs, pass);
            let (_results, span) = clock.time(|| {
                let y = compute(&inputs);
                match pass {
                    Pass::Forward => (Some(y), None),
                    Pass::ForwardBackward => (None, Some(weighed(y).backward())),
                }
            })?;
            Ok(span.total_ns)
        };
        let steps = &self.spec.steps;
        let times = |count: usize| (0..count).map(|_| once()).collect::<Result<Vec<u64>, Failure>>();
        let warmup_ns = times(steps.warmup_steps)?;
        probe.reset_peak();
        let samples_ns = times(steps.benchmark_steps)?;
        let memory = probe.peak_beyond_start();
        let saved = match pass {
            Pass::Forward => None,
            Pass::ForwardBackward => {
                let inputs = tracked(inputs, pass);
                let probe = MemoryProbe::new(self.backend, &self.device);
                let y = compute(&inputs);
                clock.sync()?;
                let saved = probe.current_beyond_start();
                drop(y);
                Some(saved)
            }
        };
        Ok(Timing { warmup_ns, samples_ns, memory, saved })
    }

    #[expect(clippy::too_many_lines, reason = "one entry an operation")]
    fn case(&self, operation: Operation, device: &Device) -> Case {
        let model = &self.spec.model;
        let (batch, seq) = (self.spec.batch_size, self.spec.seq_length);
        let (hidden, mlp, vocabulary, head_dim) =
            (model.hidden_size, model.intermediate_size, model.vocab_size, model.head_dim());
        let heads = Heads { query: model.num_attention_heads, key_value: model.num_key_value_heads };
        let (kv, eps, rows) = (model.kv_size(), model.rms_norm_eps, batch * seq);
        let packed = heads.packed() * head_dim;
        let size = self.dtype.size();
        let work = |flops: usize, elements: usize| Work { flops: flops as u64, bytes: (elements * size) as u64 };
        match operation {
            Operation::RmsNorm => Case {
                shapes: vec![[batch, seq, hidden], [1, 1, hidden]],
                parts: vec![hidden],
                fused: Box::new(move |x| vec![ops::rms_norm(x[0].clone(), x[1].clone().reshape([hidden]), eps)]),
                reference: Box::new(move |x| vec![plain::rms_norm(x[0].clone(), x[1].clone().reshape([hidden]), eps)]),
                forward: work(4 * rows * hidden, 2 * rows * hidden + hidden),
                forward_backward: Some(work(14 * rows * hidden, 5 * rows * hidden + 3 * hidden)),
            },
            Operation::Rope => {
                let table = if self.dtype == DType::F64 { DType::F64 } else { DType::F32 };
                let tables = RopeTables::new(0..seq, head_dim, model.rope_theta, table, device);
                let (cos, sin) = tables.clone().into_parts();
                let turned = (hidden + kv) * rows;
                Case {
                    shapes: vec![[batch, seq, packed]],
                    parts: vec![hidden, kv, kv],
                    fused: Box::new(move |x| vec![ops::rope(x[0].clone(), &tables, heads.query + heads.key_value, 0)]),
                    reference: Box::new(move |x| {
                        let turned = |x: &Tensor<3>, heads| plain::rope(x.clone(), cos.clone(), sin.clone(), heads);
                        vec![turned(&x[0], heads.query), turned(&x[1], heads.key_value), x[2].clone()]
                    }),
                    forward: work(3 * turned, 2 * turned),
                    forward_backward: Some(work(6 * turned, 4 * turned)),
                }
            }
            Operation::Swiglu => Case {
                shapes: vec![[batch, seq, 2 * mlp]],
                parts: vec![mlp, mlp],
                fused: Box::new(|x| vec![ops::swiglu(x[0].clone())]),
                reference: Box::new(|x| vec![plain::swiglu(x[0].clone(), x[1].clone())]),
                forward: work(5 * rows * mlp, 3 * rows * mlp),
                forward_backward: Some(work(16 * rows * mlp, 8 * rows * mlp)),
            },
            Operation::Attention => {
                let products = 2 * batch * heads.query * head_dim * seq * (seq + 1) / 2;
                let device = device.clone();
                Case {
                    shapes: vec![[batch, seq, packed]],
                    parts: vec![hidden, kv, kv],
                    fused: Box::new(move |x| vec![ops::attention(x[0].clone(), heads)]),
                    reference: Box::new(move |x| {
                        let split = |x: &Tensor<3>, heads: usize| {
                            x.clone().reshape([batch, seq, heads, head_dim]).swap_dims(1, 2)
                        };
                        let mask = plain::later_keys(seq, seq, &device);
                        let kv = heads.key_value;
                        let y = plain::attention(split(&x[0], heads.query), split(&x[1], kv), split(&x[2], kv), mask);
                        vec![y.swap_dims(1, 2).reshape([batch, seq, hidden])]
                    }),
                    forward: work(2 * products, rows * (packed + hidden)),
                    forward_backward: Some(work(7 * products, rows * (3 * packed + 3 * hidden))),
                }
            }
            Operation::Decode => {
                let cache = [batch, heads.key_value, seq, head_dim];
                let flat = [batch, heads.key_value * seq, head_dim];
                Case {
                    shapes: vec![[batch, 1, hidden], flat, flat],
                    parts: vec![hidden],
                    fused: Box::new(move |x| {
                        let caches = [&x[1], &x[2]].map(|cached| cached.clone().reshape(cache));
                        let [keys, values] = caches;
                        vec![ops::cached_attention(x[0].clone(), keys, values, seq, heads)]
                    }),
                    reference: Box::new(move |x| {
                        let q = x[0].clone().reshape([batch, 1, heads.query, head_dim]).swap_dims(1, 2);
                        let [keys, values] = [&x[1], &x[2]].map(|cached| cached.clone().reshape(cache));
                        let y = plain::attention(q, keys, values, None);
                        vec![y.swap_dims(1, 2).reshape([batch, 1, hidden])]
                    }),
                    forward: work(4 * batch * hidden * seq, 2 * batch * kv * seq + 2 * batch * hidden),
                    forward_backward: None,
                }
            }
            Operation::Linear => {
                let (output, product) = (2 * mlp, 2 * rows * hidden * 2 * mlp);
                let elements = rows * hidden + hidden * output + rows * output;
                Case {
                    shapes: vec![[batch, seq, hidden], [1, hidden, output]],
                    parts: vec![hidden],
                    fused: Box::new(move |x| {
                        vec![ops::linear(x[0].clone(), x[1].clone().reshape([hidden, output]), ops::Products::Vendor)]
                    }),
                    reference: Box::new(move |x| {
                        let weight = x[1].clone().reshape([hidden, output]);
                        vec![burn::tensor::module::linear(x[0].clone(), weight, None)]
                    }),
                    forward: work(product, elements),
                    forward_backward: Some(work(3 * product, 3 * elements)),
                }
            }
            Operation::CrossEntropy => {
                let mut random = StdRng::seed_from_u64(self.spec.seed);
                let ids: Vec<i64> = (0..rows).map(|_| random.random_range(0..vocabulary) as i64).collect();
                let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch, seq]), device);
                let nothing = Tensor::full([batch, 1], -1, device);
                let targets = Tensor::cat(vec![ids.clone().narrow(1, 1, seq - 1), nothing], 1).reshape([rows]);
                let product = 2 * rows * hidden * vocabulary;
                let elements = rows * hidden + hidden * vocabulary;
                Case {
                    shapes: vec![[batch, seq, hidden], [1, hidden, vocabulary]],
                    parts: vec![hidden],
                    fused: Box::new(move |x| {
                        let (states, weight) = (x[0].clone(), x[1].clone().reshape([hidden, vocabulary]));
                        let states = states.reshape([rows, hidden]);
                        let loss = ops::linear_cross_entropy(
                            states,
                            weight,
                            targets.clone(),
                            batch * (seq - 1),
                            ops::Products::Vendor,
                        );
                        vec![loss.reshape([1, 1, 1])]
                    }),
                    reference: Box::new(move |x| {
                        let weight = x[1].clone().reshape([hidden, vocabulary]);
                        let logits = burn::tensor::module::linear(x[0].clone(), weight, None);
                        vec![plain::next_token_loss(logits, ids.clone()).reshape([1, 1, 1])]
                    }),
                    forward: work(product + 5 * rows * vocabulary, elements),
                    forward_backward: Some(work(3 * product + 7 * rows * vocabulary, 3 * elements)),
                }
            }
        }
    }
}

/// The results on the host, then the gradients of `count` inputs, the first of them put together from its parts.
fn results(compute: &Compute, inputs: &[Tensor<3>], pass: Pass, count: usize) -> Result<Vec<Vec<f64>>, Failure> {
    let host = |tensor: Tensor<3>| -> Result<Vec<f64>, Failure> {
        let data = tensor.try_into_data();
        let data = data.map_err(|error| Failure::new(FailureKind::Crashed, format!("a kernel failed: {error}")))?;
        Ok(data.iter::<f64>().collect())
    };
    let inputs = tracked(inputs, pass);
    let y = compute(&inputs);
    let result = Tensor::cat(y.clone(), 2);
    let mut results = vec![host(result)?];
    if pass == Pass::ForwardBackward {
        let gradients = weighed(y).backward();
        let gradient = |input: &Tensor<3>| {
            let gradient = input.grad(&gradients);
            gradient.ok_or_else(|| Failure::new(FailureKind::WrongAnswer, "an input has no gradient"))
        };
        let of = inputs.iter().map(gradient).collect::<Result<Vec<Tensor<3>>, Failure>>()?;
        let parts = inputs.len() + 1 - count;
        results.push(host(Tensor::cat(of[..parts].to_vec(), 2))?);
        for gradient in &of[parts..] {
            results.push(host(gradient.clone())?);
        }
    }
    Ok(results)
}

/// Inputs as leaves of their own.
fn tracked(inputs: &[Tensor<3>], pass: Pass) -> Vec<Tensor<3>> {
    match pass {
        Pass::Forward => inputs.to_vec(),
        Pass::ForwardBackward => inputs.iter().map(|input| input.clone().detach().require_grad()).collect(),
    }
}

/// A number whose gradient differs from element to element.
fn weighed(results: Vec<Tensor<3>>) -> Tensor<1> {
    let sums = results.into_iter().map(|y| (y.clone() * y).sum());
    sums.reduce(|a, b| a + b).expect("an operation has a result")
}
