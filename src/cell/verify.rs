use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::measure::{dtypes, ensure_supported, opened};
use super::reference::Reference;
use super::training::Steps;
use crate::backends;
use crate::model::{Array, BuildRequest, Model, Registry, Replay, Session, Weights};
use crate::spec::{Check, Event, Failure, FailureKind, ModelConfig, Precision, TuningCache, VerifyReport, VerifySpec};

/// Tokens generated greedily where no reference gives their number.
const GREEDY_TOKENS: usize = 8;

/// What a variant computes, on the host.
struct Computed {
    /// `[batch, seq, vocabulary]`.
    logits: Vec<f64>,
    loss: f64,
    gradients: BTreeMap<String, Array<f64>>,
    /// `[batch, count]`.
    greedy: Vec<i64>,
    /// Worst relative L2 of the cached decode against the full forward, and the position it is at.
    decode: (f64, usize),
    /// The same of recorded and replayed work, where the mode and the device have it.
    replayed: Option<Replayed>,
}

/// Worst relative L2 of replayed work against the full forward, with positions.
struct Replayed {
    forward: (f64, usize),
    /// Where the variant's decode can be recorded.
    decode: Option<(f64, usize)>,
    /// Worst relative L2 of a replayed training step's loss and gradients against those of one that was not recorded.
    training: Option<f64>,
}

/// The inputs every variant gets.
struct Inputs {
    config: ModelConfig,
    weights: Weights,
    batch: usize,
    seq: usize,
    ids: Vec<i64>,
    new_tokens: usize,
}

/// Runs every variant once and compares.
pub(super) fn run(
    spec: &VerifySpec,
    cache: Option<PathBuf>,
    registry: &Registry,
    emit: &mut dyn FnMut(Event),
) -> Result<(), Failure> {
    let (backend, device) = backends::open(&spec.backend, spec.mode, TuningCache::Kept, cache)?;
    ensure_supported(spec.precision, &device)?;
    emit(opened(backend, &device, &spec.backend, spec.mode, spec.precision));
    let reference = match &spec.reference {
        Some(path) => Some(Reference::load(path).map_err(|error| {
            Failure::new(FailureKind::Unsupported, format!("reference file `{}`: {error}", path.display()))
        })?),
        None => None,
    };
    let (inputs, mut expected, source) = match reference {
        Some(reference) => {
            let name = spec.reference.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
            let (inputs, expected) = split(reference);
            (inputs, Some(("reference".to_owned(), expected)), name)
        }
        None => (seeded(spec), None, format!("seeded weights (seed {})", spec.seed)),
    };
    let replays = spec.mode.replays() && backend.capabilities().graph_capture;
    for variant in &spec.variants {
        let computed = compute(spec, registry, variant, &inputs, &device, replays)?;
        let mut checks = Vec::new();
        if let Some((against, expected)) = &expected {
            compare(variant, against, &computed, expected, spec, &mut checks);
        }
        let mut own = |what: &str, worst| checks.push(own_check(variant, what, worst, spec.tolerance.logits));
        own("cached decode", computed.decode);
        if let Some(Replayed { forward, decode, training }) = computed.replayed {
            own("replayed forward", forward);
            if let Some(worst) = decode {
                own("replayed decode", worst);
            }
            if let Some(error) = training {
                checks.push(own_training_check(variant, error, spec.tolerance.gradients));
            }
        }
        emit(Event::Verified(VerifyReport { reference: source.clone(), checks }));
        if expected.is_none() {
            expected = Some((variant.clone(), computed));
        }
    }
    if let (Some(path), Some((_, computed))) = (&spec.export, expected) {
        join(inputs, computed).save(path).map_err(|error| {
            Failure::new(FailureKind::Crashed, format!("cannot leave its numbers in `{}`: {error}", path.display()))
        })?;
    }
    Ok(())
}

fn split(reference: Reference) -> (Inputs, Computed) {
    let Reference { config, batch, seq, weights, ids, logits, loss, gradients, greedy } = reference;
    let new_tokens = greedy.len() / batch;
    let expected = Computed { logits, loss, gradients, greedy, decode: (0.0, 0), replayed: None };
    (Inputs { config, weights, batch, seq, ids, new_tokens }, expected)
}

/// The inverse of [`split`].
fn join(inputs: Inputs, computed: Computed) -> Reference {
    let Inputs { config, weights, batch, seq, ids, .. } = inputs;
    let Computed { logits, loss, gradients, greedy, .. } = computed;
    Reference { config, batch, seq, weights, ids, logits, loss, gradients, greedy }
}

fn seeded(spec: &VerifySpec) -> Inputs {
    let mut random = StdRng::seed_from_u64(spec.seed.wrapping_add(1));
    let (batch, seq) = (spec.batch_size, spec.seq_length);
    let room = spec.model.max_position_embeddings.saturating_sub(seq);
    Inputs {
        config: spec.model.clone(),
        weights: Weights::seeded(&spec.model, spec.seed),
        batch,
        seq,
        ids: (0..batch * seq).map(|_| random.random_range(0..spec.model.vocab_size) as i64).collect(),
        new_tokens: room.min(GREEDY_TOKENS),
    }
}

fn compute(
    spec: &VerifySpec,
    registry: &Registry,
    variant: &str,
    inputs: &Inputs,
    device: &Device,
    replays: bool,
) -> Result<Computed, Failure> {
    let build = |device: &Device, trained: bool| {
        let (config, weights) = (&inputs.config, &inputs.weights);
        let (weight_dtype, dtype) = dtypes(spec.precision, trained);
        let request = BuildRequest { variant, config, weights, weight_dtype, dtype, trained, device };
        registry
            .build(&spec.family, &request)
            .map_err(|error| Failure::new(FailureKind::Unsupported, error.to_string()))
    };
    let ids = |device: &Device| -> Tensor<2, Int> {
        Tensor::from_data(TensorData::new(inputs.ids.clone(), [inputs.batch, inputs.seq]), device)
    };
    let by_hand = registry.trains_by_hand(&spec.family, variant);
    let trained_on = if by_hand { device.clone() } else { device.clone().autodiff() };
    let trained = build(&trained_on, true)?;
    let computed = Steps::of(trained.as_ref(), by_hand.then_some(inputs.seq), &trained_on, false).run(ids(&trained_on));
    let (loss, gradients) = (host(computed.loss())[0], computed.gradients(trained.as_ref()));
    let gradients = trained.gradients(&gradients);
    let training = (replays && by_hand).then(|| replayed_training(trained.as_ref(), &ids(device), loss, &gradients));
    drop(trained);
    let model = build(device, false)?;
    let full = model.forward(ids(device));
    let mut session = model.session(inputs.batch, inputs.seq);
    let decode = decode(session.as_mut(), &ids(device), &full, inputs);
    let replayed = replays
        .then(|| Replayed { training: training.flatten(), ..replayed(model.as_ref(), &ids(device), &full, inputs) });
    let greedy = greedy(model.as_ref(), ids(device), inputs);
    Ok(Computed { logits: host(full), loss, gradients, greedy, decode, replayed })
}

/// Feeds the ids through the cache, once one at a time and once in two pieces.
fn decode(session: &mut dyn Session, ids: &Tensor<2, Int>, full: &Tensor<3>, inputs: &Inputs) -> (f64, usize) {
    let (batch, seq, vocabulary) = (inputs.batch, inputs.seq, inputs.config.vocab_size);
    let mut worst = (0.0, 0);
    for pieces in [vec![1; seq], vec![seq.div_ceil(2), seq / 2]] {
        session.restart();
        let mut done = 0;
        for count in pieces.into_iter().filter(|count| *count > 0) {
            let logits = host(session.feed(ids.clone().narrow(1, done, count)));
            done += count;
            let expected = host(full.clone().narrow(1, done - 1, 1).reshape([batch, vocabulary]));
            let error = relative_l2(&logits, &expected);
            worst = worse(worst, (error, done - 1));
        }
    }
    worst
}

/// Replays the forward pass, on other ids first, and decodes twice: the second time nothing is recorded any more.
fn replayed(model: &dyn Model, ids: &Tensor<2, Int>, full: &Tensor<3>, inputs: &Inputs) -> Replayed {
    let mut forward = Replay::new(&ids.device(), model.recordable(inputs.seq));
    forward.run(ids.zeros_like(), 0);
    let error = relative_l2(&host(forward.run(ids.clone(), 0).clone()), &host(full.clone()));
    let decode = model.replayed_session(inputs.batch, inputs.seq).map(|mut session| {
        let mut again = || decode(session.as_mut(), ids, full, inputs);
        worse(again(), again())
    });
    Replayed { forward: (error, inputs.seq - 1), decode, training: None }
}

/// Replays a training step, on other ids first; `None` if the model cannot be trained so.
fn replayed_training(
    model: &dyn Model,
    ids: &Tensor<2, Int>,
    loss: f64,
    gradients: &BTreeMap<String, Array<f64>>,
) -> Option<f64> {
    let [_, seq] = ids.dims();
    let mut step = Replay::new(&ids.device(), model.training_step(seq)?);
    step.run(ids.zeros_like(), 0);
    let step = step.run(ids.clone(), 0);
    let replayed = model.gradients(&step.gradients);
    let of_loss = relative_l2(&host(step.loss.clone()), &[loss]);
    let errors = gradients.iter().map(|(name, expected)| {
        replayed.get(name).map_or(f64::NAN, |gradient| relative_l2(&gradient.values, &expected.values))
    });
    Some(errors.fold(of_loss, |worst, error| worse((worst, 0), (error, 0)).0))
}

/// The larger of two errors; not-a-number is larger than every number.
fn worse(a: (f64, usize), b: (f64, usize)) -> (f64, usize) {
    if a.0.is_nan() || a.0 >= b.0 { a } else { b }
}

fn greedy(model: &dyn Model, ids: Tensor<2, Int>, inputs: &Inputs) -> Vec<i64> {
    let (batch, count) = (inputs.batch, inputs.new_tokens);
    let mut session = model.session(batch, inputs.seq + count);
    let mut columns: Vec<Vec<i64>> = Vec::with_capacity(count);
    let mut next = ids;
    for _ in 0..count {
        next = session.feed(next).argmax(1).reshape([batch, 1]);
        columns.push(next.clone().into_data().iter::<i64>().collect());
    }
    (0..batch).flat_map(|row| columns.iter().map(move |column| column[row])).collect()
}

fn compare(
    variant: &str,
    against: &str,
    computed: &Computed,
    expected: &Computed,
    spec: &VerifySpec,
    checks: &mut Vec<Check>,
) {
    let mut check = |what: String, error: f64, tolerance: f64, note: Option<String>| {
        checks.push(Check {
            variant: variant.to_owned(),
            what,
            against: against.to_owned(),
            error: error.is_finite().then_some(error),
            tolerance,
            passed: error <= tolerance,
            note,
        });
    };
    let tolerance = &spec.tolerance;
    check("logits".to_owned(), relative_l2(&computed.logits, &expected.logits), tolerance.logits, None);
    check("loss".to_owned(), relative_l2(&[computed.loss], &[expected.loss]), tolerance.logits, None);
    for (name, expected) in &expected.gradients {
        let (error, note) = match computed.gradients.get(name) {
            Some(gradient) if gradient.shape == expected.shape => {
                (relative_l2(&gradient.values, &expected.values), None)
            }
            Some(gradient) => (f64::NAN, Some(format!("shape {:?}, expected {:?}", gradient.shape, expected.shape))),
            None => (f64::NAN, Some("the model gives no such gradient".to_owned())),
        };
        check(format!("grad.{name}"), error, tolerance.gradients, note);
    }
    let differing = computed.greedy.iter().zip(&expected.greedy).filter(|(a, b)| a != b).count()
        + computed.greedy.len().abs_diff(expected.greedy.len());
    let share = differing as f64 / expected.greedy.len().max(1) as f64;
    let note = (differing > 0).then(|| format!("{differing} of {} tokens differ", expected.greedy.len()));
    // bfloat16 decides between near-equal logits either way.
    let judged = matches!(spec.precision, Precision::F32 | Precision::F64);
    check("greedy continuation".to_owned(), share, if judged { 0.0 } else { 1.0 }, note);
}

fn own_check(variant: &str, what: &str, (error, position): (f64, usize), tolerance: f64) -> Check {
    Check {
        variant: variant.to_owned(),
        what: what.to_owned(),
        against: "its own full forward".to_owned(),
        error: error.is_finite().then_some(error),
        tolerance,
        passed: error <= tolerance,
        note: Some(format!("at every position, worst at {position}")),
    }
}

fn own_training_check(variant: &str, error: f64, tolerance: f64) -> Check {
    Check {
        against: "its own step, not recorded".to_owned(),
        note: Some("loss and every gradient, the worst of them".to_owned()),
        ..own_check(variant, "replayed training", (error, 0), tolerance)
    }
}

/// `|a - b| / |b|`; absolute where the expected values are all zero, not a number where the lengths differ.
pub(super) fn relative_l2(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
    let size = norm(&mut b.iter().copied());
    if size == 0.0 { difference } else { difference / size }
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_l2_is_scaled_and_keeps_not_a_number() {
        assert!((relative_l2(&[3.0, 4.4], &[3.0, 4.0]) - 0.08).abs() < 1e-12);
        assert!((relative_l2(&[0.5], &[0.0]) - 0.5).abs() < f64::EPSILON);
        assert!(relative_l2(&[f64::NAN], &[1.0]).is_nan());
        assert!(relative_l2(&[1.0], &[1.0, 2.0]).is_nan());
    }
}
