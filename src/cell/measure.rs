use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burnmark_backend_api::{Backend, Capabilities, Origin};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::paths::paths;
use super::training;
use crate::backends;
use crate::measure::{
    Clock, HOST_CLOCK, Machine, MemoryProbe, Sampling, StepTimes, TokenTimes, device_clock, run_steps,
};
use crate::model::{BuildRequest, Model, Registry, Replay, Session, Weights};
use crate::spec::{
    Applied, CellSpec, DeviceReport, Event, Failure, FailureKind, GenerationSeries, GenerationSpec, MemoryPhase, Mode,
    Observation, Phase, PhaseMemory, Precision, Reading, StepLaunches, StepSpec, Workload,
};

/// Steps that run once more under the device's clock.
const DEVICE_CLOCK_STEPS: usize = 3;

/// Measures every workload of a cell, one after the other, each with a model of its own.
pub(super) fn run(
    spec: &CellSpec,
    cache: Option<PathBuf>,
    once: bool,
    registry: &Registry,
    emit: &mut dyn FnMut(Event),
) -> Result<(), Failure> {
    let (backend, device) = backends::open(&spec.backend, spec.mode, spec.tuning_cache, cache)?;
    ensure_supported(spec.precision, &device)?;
    let origin = backend.record_tuning().unwrap_or_else(Instant::now);
    emit(opened(backend, &device, &spec.backend, spec.mode, spec.precision));
    let replays = spec.mode.replays() && backend.capabilities().graph_capture;
    let bench = Bench { spec, registry, backend, device, origin, replays, once };
    if let Some(training) = &spec.workloads.training {
        training::run(&bench, training, emit)?;
    }
    if let Some(steps) = &spec.workloads.inference {
        bench.inference(steps, emit)?;
    }
    if let Some(generation) = &spec.workloads.generation {
        bench.generation(generation, emit)?;
    }
    Ok(())
}

/// Tells of an open device; `specification` is what named it.
pub(super) fn opened(
    backend: &dyn Backend,
    device: &Device,
    specification: &str,
    mode: Mode,
    precision: Precision,
) -> Event {
    let (execution, mut notes) = execution(mode, backend.capabilities());
    let vendor_products = backend.vendor_products().transpose().unwrap_or_else(|why| {
        notes.push(format!("variants with `vendor-products` have kernels of the backend's: {why}"));
        None
    });
    Event::Opened {
        device: DeviceReport {
            backend: backend.name().to_owned(),
            device: specification.to_owned(),
            name: backend.device_name(device),
            driver: backend.driver(device),
            threads: backend.threads(),
        },
        applied: Applied { requested_mode: mode, execution, precision, vendor_products, notes },
    }
}

/// What a backend without fusion, autotune or graph capture makes of a mode, and what it could not do.
fn execution(mode: Mode, has: Capabilities) -> (String, Vec<String>) {
    let wanted: &[(&str, bool)] = match mode {
        Mode::NoCompile => &[],
        Mode::Default => &[("fusion", has.fusion), ("autotune", has.autotune)],
        Mode::ReduceOverhead | Mode::MaxAutotune => {
            &[("fusion", has.fusion), ("autotune", has.autotune), ("graph capture", has.graph_capture)]
        }
    };
    let applied: Vec<&str> = wanted.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
    let notes = wanted
        .iter()
        .filter(|(_, has)| !has)
        .map(|(name, _)| format!("mode `{mode}` asks for {name}, which this backend does not have"))
        .collect();
    (if applied.is_empty() { "eager".to_owned() } else { applied.join(" + ") }, notes)
}

/// Element types of weights, which may be trained, and of activations.
pub(super) fn dtypes(precision: Precision, trained: bool) -> (DType, DType) {
    match precision {
        Precision::F32 => (DType::F32, DType::F32),
        Precision::F64 => (DType::F64, DType::F64),
        Precision::Mixed if trained => (DType::F32, DType::BF16),
        Precision::Mixed | Precision::Bf16 => (DType::BF16, DType::BF16),
    }
}

/// Fails where the device lacks an element type that a precision needs.
pub(super) fn ensure_supported(precision: Precision, device: &Device) -> Result<(), Failure> {
    let needed = [false, true].map(|trained| dtypes(precision, trained));
    match needed
        .iter()
        .flat_map(|(weights, activations)| [*weights, *activations])
        .find(|dtype| !device.supports_dtype(*dtype))
    {
        None => Ok(()),
        Some(lacking) => Err(Failure::new(
            FailureKind::Unsupported,
            format!(
                "precision `{precision}` needs {lacking:?}, which this device does not have; `burnmark devices` lists what it has, `--precision f32` works everywhere"
            ),
        )),
    }
}

/// Random token ids `[batch, seq]`, made on the host before a clock starts.
pub(super) struct Ids<'a> {
    random: StdRng,
    vocabulary: usize,
    device: &'a Device,
}

impl Ids<'_> {
    pub fn next(&mut self, batch: usize, seq: usize) -> Tensor<2, Int> {
        let ids: Vec<i64> = (0..batch * seq).map(|_| self.random.random_range(0..self.vocabulary) as i64).collect();
        Tensor::from_data(TensorData::new(ids, [batch, seq]), self.device)
    }
}

/// A cell on its open device.
pub(super) struct Bench<'a> {
    pub spec: &'a CellSpec,
    pub registry: &'a Registry,
    pub backend: &'static dyn Backend,
    pub device: Device,
    origin: Origin,
    /// Whether work that can be recorded as a graph is, and replayed.
    pub replays: bool,
    /// Whether nothing runs after the samples.
    pub once: bool,
}

impl Bench<'_> {
    /// Builds the model and reads what its weights take. The host's copy of them lives no longer than that, so that it
    /// counts for no workload.
    pub(super) fn model(
        &self,
        device: &Device,
        trained: bool,
        probe: &MemoryProbe,
    ) -> Result<(Box<dyn Model>, PhaseMemory), Failure> {
        let build = || {
            let weights = Weights::seeded(&self.spec.model, self.spec.seed);
            let (weight_dtype, dtype) = dtypes(self.spec.precision, trained);
            let request = BuildRequest {
                variant: &self.spec.variant,
                config: &self.spec.model,
                weights: &weights,
                weight_dtype,
                dtype,
                trained,
                device,
            };
            self.registry.build(&self.spec.family, &request)
        };
        let (model, memory) = probe.phase(MemoryPhase::Weights, build)?;
        Ok((model.map_err(|error| Failure::new(FailureKind::Unsupported, error.to_string()))?, memory))
    }

    pub(super) fn ids<'a>(&self, device: &'a Device) -> Ids<'a> {
        let random = StdRng::seed_from_u64(self.spec.seed.wrapping_add(1));
        Ids { random, vocabulary: self.spec.model.vocab_size, device }
    }

    fn inference(&self, steps: &StepSpec, emit: &mut dyn FnMut(Event)) -> Result<(), Failure> {
        let probe = MemoryProbe::new(self.backend, &self.device);
        let (model, weights) = self.model(&self.device, false, &probe)?;
        let mut ids = self.ids(&self.device);
        let mut input = || ids.next(self.spec.batch_size, self.spec.seq_length);
        let clock = Clock::new(&self.device);
        let mut replay = self.replays.then(|| Replay::new(&self.device, model.recordable(self.spec.seq_length)));
        let mut run = |input| match &mut replay {
            Some(replay) => replay.run(input, 0).clone(),
            None => model.forward(input),
        };
        let mut observation = self.sampled(Workload::Inference, steps, &probe, emit, || {
            let input = input();
            let (_logits, span) = clock.time(|| run(input))?;
            Ok(StepTimes::of(span))
        })?;
        if self.once {
            emit(Event::Observed(observation));
            return Ok(());
        }
        let (logits, forward) = probe.phase(MemoryPhase::Forward, || run(input()))?;
        readable(logits)?;
        observation.memory_by_phase = vec![weights, forward];
        self.watch(&mut observation, || run(input()))?;
        observation.replayed = replay.as_ref().map(Replay::is_hardware);
        observation.paths = paths(&observation, model.own_kernels(Workload::Inference));
        drop(replay);
        drop(model);
        finish(observation, &probe, emit);
        Ok(())
    }

    fn generation(&self, spec: &GenerationSpec, emit: &mut dyn FnMut(Event)) -> Result<(), Failure> {
        let probe = MemoryProbe::new(self.backend, &self.device);
        let (model, weights) = self.model(&self.device, false, &probe)?;
        let mut ids = self.ids(&self.device);
        let clock = Clock::new(&self.device);
        let steps = StepSpec { warmup_steps: spec.warmup_iterations, benchmark_steps: spec.iterations };
        let capacity = spec.prompt_tokens + spec.new_tokens;
        let replayed = self.replays.then(|| model.replayed_session(spec.batch_size, capacity)).flatten();
        let mut session = replayed.unwrap_or_else(|| model.session(spec.batch_size, capacity));
        let mut observation = self.sampled(Workload::Generation, &steps, &probe, emit, || {
            generate(session.as_mut(), spec, &mut ids, &clock)
        })?;
        if self.once {
            emit(Event::Observed(observation));
            return Ok(());
        }
        session.restart();
        let prompt = || session.feed(ids.next(spec.batch_size, spec.prompt_tokens));
        let (logits, prefill) = probe.phase(MemoryPhase::Prefill, prompt)?;
        readable(logits)?;
        let tokens = || (1..spec.new_tokens).map(|_| session.feed(ids.next(spec.batch_size, 1))).last();
        let (logits, decode) = probe.phase(MemoryPhase::Decode, tokens)?;
        logits.map_or(Ok(()), readable)?;
        observation.memory_by_phase = vec![weights, prefill, decode];
        self.watch(&mut observation, || {
            session.restart();
            let first = session.feed(ids.next(spec.batch_size, spec.prompt_tokens));
            let later = (1..spec.new_tokens).map(|_| session.feed(ids.next(spec.batch_size, 1)));
            std::iter::once(first).chain(later).collect::<Vec<_>>()
        })?;
        observation.replayed = self.replays.then(|| session.is_replayed());
        observation.paths = paths(&observation, model.own_kernels(Workload::Generation));
        drop(session);
        drop(model);
        finish(observation, &probe, emit);
        Ok(())
    }

    /// Runs a workload's steps and tells what they took; what further steps are to tell is still missing.
    pub(super) fn sampled(
        &self,
        workload: Workload,
        steps: &StepSpec,
        probe: &MemoryProbe,
        emit: &mut dyn FnMut(Event),
        mut step: impl FnMut() -> Result<StepTimes, Failure>,
    ) -> Result<Observation, Failure> {
        let sampling =
            Sampling { workload, steps, stopping: &self.spec.stopping, redo_disturbed: self.spec.redo_disturbed };
        let measured = run_steps(
            &sampling,
            &Machine::new(self.backend, &self.device, self.origin),
            emit,
            || probe.reset_peak(),
            |phase| {
                let times = step()?;
                Ok(StepTimes { memory: (phase == Phase::Measure).then(|| probe.current()), ..times })
            },
        )?;
        let of = |times: &[StepTimes], part: fn(&StepTimes) -> u64| times.iter().map(part).collect();
        let (sequences, tokens) = match (&self.spec.workloads.generation, workload) {
            (Some(spec), Workload::Generation) => (spec.batch_size, spec.batch_size * spec.new_tokens),
            _ => (self.spec.batch_size, self.spec.batch_size * self.spec.seq_length),
        };
        let by_step: Result<Vec<u64>, String> =
            measured.samples.iter().filter_map(|time| time.memory.clone()).collect();
        Ok(Observation {
            warmup_ns: of(&measured.warmup, |time| time.span.total_ns),
            samples_ns: of(&measured.samples, |time| time.span.total_ns),
            returned_ns: of(&measured.samples, |time| time.span.returned_ns),
            ended_by: Some(measured.ended_by),
            warmup_at_ns: of(&measured.warmup, |time| time.at_ns),
            samples_at_ns: of(&measured.samples, |time| time.at_ns),
            optimizer_ns: measured.samples.iter().map(|time| time.optimizer_ns).collect(),
            generation: measured.samples.iter().map(|time| time.tokens.clone()).collect::<Option<_>>().map(series),
            sequences_per_sample: sequences,
            tokens_per_sample: tokens,
            predicted_peak_bytes: self.registry.predicted_peak_bytes(self.spec, workload),
            memory_by_step: by_step.map_or_else(Reading::missing, Reading::Read),
            driver_memory: probe.driver(),
            disturbances: measured.disturbances,
            card: measured.card,
            ..Observation::new(workload, probe.read())
        })
    }

    /// Runs further steps, one to see its kernels and some under the device's own clock.
    pub(super) fn watch<R: Send + 'static>(
        &self,
        observation: &mut Observation,
        mut step: impl FnMut() -> R + Send,
    ) -> Result<(), Failure> {
        let clock = Clock::new(&self.device);
        observation.launches = match self.backend.watch_launches() {
            None => Reading::missing("the backend does not tell what it launches"),
            Some(watch) => {
                clock.time(&mut step)?;
                Reading::Read(StepLaunches { kernels: watch.kernels() })
            }
        };
        observation.device_clock = if self.backend.capabilities().synchronous {
            Reading::missing(HOST_CLOCK)
        } else {
            device_clock(&self.device, DEVICE_CLOCK_STEPS, step)?
        };
        Ok(())
    }
}

/// One generation: wall clock of the first token, and of every later one by position. The session and its cache, and
/// all token ids, are there before the clock starts.
fn generate(
    session: &mut dyn Session,
    spec: &GenerationSpec,
    ids: &mut Ids,
    clock: &Clock,
) -> Result<StepTimes, Failure> {
    let prompt = ids.next(spec.batch_size, spec.prompt_tokens);
    let tokens: Vec<_> = (1..spec.new_tokens).map(|_| ids.next(spec.batch_size, 1)).collect();
    session.restart();
    let (_logits, first) = clock.time(|| session.feed(prompt))?;
    let (mut all, mut gaps_ns) = (first, Vec::with_capacity(tokens.len()));
    for token in tokens {
        let (_logits, gap) = clock.time(|| session.feed(token))?;
        all = all + gap;
        gaps_ns.push(gap.total_ns);
    }
    Ok(StepTimes { tokens: Some(TokenTimes { first_ns: first.total_ns, gaps_ns }), ..StepTimes::of(all) })
}

/// The two clocks of all samples.
fn series(samples: Vec<TokenTimes>) -> GenerationSeries {
    let (first_token_ns, per_token_ns) = samples.into_iter().map(|tokens| (tokens.first_ns, tokens.gaps_ns)).unzip();
    GenerationSeries { first_token_ns, per_token_ns }
}

/// Fails if a result cannot be read or is not finite. A launch that failed only taints what depends on it, and Burn
/// says so to nobody but who reads that: times of such steps would count work that was never done.
pub(super) fn readable<const D: usize>(result: Tensor<D>) -> Result<(), Failure> {
    let data = result.try_into_data().map_err(|error| {
        Failure::new(FailureKind::Crashed, format!("a kernel failed, so the steps did not do their work: {error}"))
    })?;
    if data.iter::<f64>().all(f64::is_finite) {
        return Ok(());
    }
    Err(Failure::new(FailureKind::WrongAnswer, "a step's result holds numbers that are not finite"))
}

/// Tells of a workload whose model is gone.
pub(super) fn finish(mut observation: Observation, probe: &MemoryProbe, emit: &mut dyn FnMut(Event)) {
    observation.memory.after_release = probe.after_release();
    emit(Event::Observed(observation));
}
