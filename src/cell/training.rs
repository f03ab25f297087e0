//! Training steps: through autodiff, by hand, or by hand and recorded.

use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Gradients, Int, Tensor};

use super::measure::{Bench, finish, readable};
use super::paths::paths;
use crate::measure::{Clock, MemoryProbe, StepTimes};
use crate::model::{Model, Replay, TrainingStep, Work};
use crate::spec::{Event, Failure, MemoryPhase, Optimizer, PhaseMemory, TrainingSpec, Workload};

/// Learning rate of the optional optimiser step; what it is does not change what a step costs.
const LEARNING_RATE: f64 = 1e-4;

/// How a model's steps are computed.
#[expect(clippy::large_enum_variant, reason = "one lives for each workload")]
pub(super) enum Steps<'a> {
    Autodiff(&'a dyn Model),
    /// By hand, with the position that recorded work reads.
    ByHand(Work<'a, TrainingStep>, Tensor<1, Int>),
    Recorded(Replay<'a, TrainingStep>),
}

/// What a step leaves.
pub(super) enum Computed {
    Autodiff(Tensor<1>, Gradients),
    ByHand(TrainingStep),
    /// The recording holds its gradients.
    Recorded(Tensor<1>),
}

impl<'a> Steps<'a> {
    /// Steps by hand on sequences of `by_hand` tokens, recorded if `replays` says so; else, or if the model has none,
    /// through autodiff.
    pub(super) fn of(model: &'a dyn Model, by_hand: Option<usize>, device: &Device, replays: bool) -> Self {
        match by_hand.and_then(|seq| model.training_step(seq)) {
            None => Self::Autodiff(model),
            Some(work) if replays => Self::Recorded(Replay::new(device, work)),
            Some(work) => Self::ByHand(work, Tensor::zeros([1], device)),
        }
    }

    /// Forward and backward.
    pub(super) fn run(&mut self, ids: Tensor<2, Int>) -> Computed {
        match self {
            Self::Autodiff(model) => {
                let loss = model.loss(ids);
                let gradients = loss.backward();
                Computed::Autodiff(loss, gradients)
            }
            Self::ByHand(work, position) => Computed::ByHand(work(ids, position)),
            Self::Recorded(replay) => Computed::Recorded(replay.run(ids, 0).loss.clone()),
        }
    }
}

impl Computed {
    /// The loss `[1]`.
    pub(super) fn loss(&self) -> Tensor<1> {
        match self {
            Self::Autodiff(loss, _) | Self::Recorded(loss) => loss.clone(),
            Self::ByHand(step) => step.loss.clone(),
        }
    }

    /// The gradients by parameter; none of a recorded step, which keeps them.
    pub(super) fn gradients(self, model: &dyn Model) -> GradientsParams {
        match self {
            Self::Autodiff(_, gradients) => model.collect(gradients),
            Self::ByHand(step) => step.gradients,
            Self::Recorded(_) => GradientsParams::new(),
        }
    }
}

/// Measures training.
pub(super) fn run(bench: &Bench, spec: &TrainingSpec, emit: &mut dyn FnMut(Event)) -> Result<(), Failure> {
    // Burn's optimisers want tensors that autodiff tracks.
    let alone = spec.optimizer == Optimizer::None;
    let by_hand = alone && bench.registry.trains_by_hand(&bench.spec.family, &bench.spec.variant);
    let device = if by_hand { bench.device.clone() } else { bench.device.clone().autodiff() };
    let probe = MemoryProbe::new(bench.backend, &bench.device);
    let (mut model, weights) = bench.model(&device, true, &probe)?;
    let (batch, seq) = (bench.spec.batch_size, bench.spec.seq_length);
    let mut ids = bench.ids(&device);
    let mut input = || ids.next(batch, seq);
    let clock = Clock::new(&bench.device);
    let mut observation = match spec.optimizer {
        Optimizer::None => {
            let mut steps = Steps::of(model.as_ref(), by_hand.then_some(seq), &device, bench.replays);
            let mut observation = bench.sampled(Workload::Training, &spec.steps, &probe, emit, || {
                let input = input();
                let (_computed, span) = clock.time(|| steps.run(input))?;
                Ok(StepTimes::of(span))
            })?;
            if bench.once {
                emit(Event::Observed(observation));
                return Ok(());
            }
            let (computed, phases) = phases(&mut steps, &probe, &mut input)?;
            readable(computed.loss())?;
            drop(computed);
            observation.memory_by_phase = std::iter::once(weights).chain(phases).collect();
            bench.watch(&mut observation, || steps.run(input()))?;
            if let Steps::Recorded(replay) = &steps {
                observation.replayed = Some(replay.is_hardware());
            }
            observation
        }
        Optimizer::Adamw => {
            let mut optimizer: ModuleOptimizer = AdamWConfig::new().init();
            let mut observation = bench.sampled(Workload::Training, &spec.steps, &probe, emit, || {
                let input = input();
                let (gradients, backward) = clock.time(|| model.loss(input).backward())?;
                let ((), optimized) = clock.time(|| update(model.as_mut(), &mut optimizer, gradients))?;
                Ok(StepTimes { optimizer_ns: Some(optimized.total_ns), ..StepTimes::of(backward + optimized) })
            })?;
            if bench.once {
                emit(Event::Observed(observation));
                return Ok(());
            }
            let (loss, forward) = probe.phase(MemoryPhase::Forward, || model.loss(input()))?;
            let (gradients, backward) = probe.phase(MemoryPhase::Backward, || loss.backward())?;
            readable(loss)?;
            let step = || update(model.as_mut(), &mut optimizer, gradients);
            let ((), updated) = probe.phase(MemoryPhase::Optimizer, step)?;
            observation.memory_by_phase = vec![weights, forward, backward, updated];
            bench.watch(&mut observation, || {
                let gradients = model.loss(input()).backward();
                update(model.as_mut(), &mut optimizer, gradients);
            })?;
            observation
        }
    };
    observation.paths = paths(&observation, model.own_kernels(Workload::Training));
    drop(model);
    finish(observation, &probe, emit);
    Ok(())
}

fn update(model: &mut dyn Model, optimizer: &mut ModuleOptimizer, gradients: Gradients) {
    let gradients = model.collect(gradients);
    model.apply(optimizer, LEARNING_RATE, gradients);
}

/// One more step, in the parts whose memory can be told apart.
fn phases(
    steps: &mut Steps,
    probe: &MemoryProbe,
    input: &mut impl FnMut() -> Tensor<2, Int>,
) -> Result<(Computed, Vec<PhaseMemory>), Failure> {
    if let Steps::Autodiff(model) = steps {
        let (loss, forward) = probe.phase(MemoryPhase::Forward, || model.loss(input()))?;
        let (gradients, backward) = probe.phase(MemoryPhase::Backward, || loss.backward())?;
        return Ok((Computed::Autodiff(loss, gradients), vec![forward, backward]));
    }
    let (computed, step) = probe.phase(MemoryPhase::Step, || steps.run(input()))?;
    Ok((computed, vec![step]))
}
