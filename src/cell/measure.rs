use burn::optim::{AdamWConfig, ModuleOptimizer};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burnmark_backend_api::{Backend, Capabilities};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::backends;
use crate::measure::{Clock, Measured, MemoryProbe, StepTimes, run_steps};
use crate::model::{BuildRequest, Model, Registry, Weights};
use crate::spec::{
    Applied, CellSpec, DeviceReport, Event, Failure, FailureKind, GenerationSeries, GenerationSpec, Mode, Observation,
    Optimizer, Phase, Precision, StepSpec, TrainingSpec, Workload,
};

/// Learning rate of the optional optimiser step; what it is does not change what a step costs.
const LEARNING_RATE: f64 = 1e-4;

/// Measures every workload of a cell, one after the other, each with a model of its own.
pub(super) fn run(spec: &CellSpec, registry: &Registry, emit: &mut dyn FnMut(Event)) -> Result<(), Failure> {
    let (backend, device) = backends::open(&spec.backend, spec.mode)?;
    emit(opened(backend, &device, spec));
    let bench = Bench { spec, registry, backend, device };
    if let Some(training) = &spec.workloads.training {
        bench.training(training, emit)?;
    }
    if let Some(steps) = &spec.workloads.inference {
        bench.inference(steps, emit)?;
    }
    if let Some(generation) = &spec.workloads.generation {
        bench.generation(generation, emit)?;
    }
    Ok(())
}

fn opened(backend: &dyn Backend, device: &Device, spec: &CellSpec) -> Event {
    let (execution, notes) = execution(spec.mode, backend.capabilities());
    Event::Opened {
        device: DeviceReport {
            backend: backend.name().to_owned(),
            device: spec.backend.clone(),
            name: backend.device_name(device),
            threads: backend.threads(),
        },
        applied: Applied { requested_mode: spec.mode, execution, precision: spec.precision, notes },
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

pub(super) fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::F64 => DType::F64,
    }
}

/// Random token ids `[batch, seq]`, made on the host before a clock starts.
struct Ids<'a> {
    random: StdRng,
    vocabulary: usize,
    device: &'a Device,
}

impl Ids<'_> {
    fn next(&mut self, batch: usize, seq: usize) -> Tensor<2, Int> {
        let ids: Vec<i64> = (0..batch * seq).map(|_| self.random.random_range(0..self.vocabulary) as i64).collect();
        Tensor::from_data(TensorData::new(ids, [batch, seq]), self.device)
    }
}

/// A cell on its open device.
struct Bench<'a> {
    spec: &'a CellSpec,
    registry: &'a Registry,
    backend: &'static dyn Backend,
    device: Device,
}

impl Bench<'_> {
    /// The host's copy of the weights lives no longer than building takes, so that it counts for no workload.
    fn model(&self, device: &Device) -> Result<Box<dyn Model>, Failure> {
        let weights = Weights::seeded(&self.spec.model, self.spec.seed);
        let request = BuildRequest {
            variant: &self.spec.variant,
            config: &self.spec.model,
            weights: &weights,
            dtype: dtype(self.spec.precision),
            device,
        };
        self.registry
            .build(&self.spec.family, &request)
            .map_err(|error| Failure::new(FailureKind::Unsupported, error.to_string()))
    }

    fn ids<'a>(&self, device: &'a Device) -> Ids<'a> {
        let random = StdRng::seed_from_u64(self.spec.seed.wrapping_add(1));
        Ids { random, vocabulary: self.spec.model.vocab_size, device }
    }

    fn training(&self, spec: &TrainingSpec, emit: &mut dyn FnMut(Event)) -> Result<(), Failure> {
        let device = self.device.clone().autodiff();
        let probe = MemoryProbe::new(self.backend, &self.device);
        let mut model = self.model(&device)?;
        let mut ids = self.ids(&device);
        let clock = Clock::new(&self.device);
        let mut optimizer: Option<ModuleOptimizer> = match spec.optimizer {
            Optimizer::None => None,
            Optimizer::Adamw => Some(AdamWConfig::new().init()),
        };
        let measured = run_steps(
            Workload::Training,
            &spec.steps,
            emit,
            || probe.reset_peak(),
            |_| {
                let input = ids.next(self.spec.batch_size, self.spec.seq_length);
                match &mut optimizer {
                    None => {
                        let ((), total_ns) = clock.time(|| drop(model.loss(input).backward()))?;
                        Ok(StepTimes { total_ns, optimizer_ns: None })
                    }
                    Some(optimizer) => {
                        let (gradients, backward_ns) = clock.time(|| model.loss(input).backward())?;
                        let ((), optimizer_ns) = clock.time(|| model.apply(optimizer, LEARNING_RATE, gradients))?;
                        Ok(StepTimes { total_ns: backward_ns + optimizer_ns, optimizer_ns: Some(optimizer_ns) })
                    }
                }
            },
        )?;
        let observation = self.observation(Workload::Training, &measured, None, &probe);
        drop((model, optimizer));
        finish(observation, &probe, emit);
        Ok(())
    }

    fn inference(&self, steps: &StepSpec, emit: &mut dyn FnMut(Event)) -> Result<(), Failure> {
        let probe = MemoryProbe::new(self.backend, &self.device);
        let model = self.model(&self.device)?;
        let mut ids = self.ids(&self.device);
        let clock = Clock::new(&self.device);
        let measured = run_steps(
            Workload::Inference,
            steps,
            emit,
            || probe.reset_peak(),
            |_| {
                let input = ids.next(self.spec.batch_size, self.spec.seq_length);
                let ((), total_ns) = clock.time(|| drop(model.forward(input)))?;
                Ok(StepTimes { total_ns, optimizer_ns: None })
            },
        )?;
        let observation = self.observation(Workload::Inference, &measured, None, &probe);
        drop(model);
        finish(observation, &probe, emit);
        Ok(())
    }

    fn generation(&self, spec: &GenerationSpec, emit: &mut dyn FnMut(Event)) -> Result<(), Failure> {
        let probe = MemoryProbe::new(self.backend, &self.device);
        let model = self.model(&self.device)?;
        let mut ids = self.ids(&self.device);
        let clock = Clock::new(&self.device);
        let mut series = GenerationSeries::default();
        let steps = StepSpec { warmup_steps: spec.warmup_iterations, benchmark_steps: spec.iterations };
        let measured = run_steps(
            Workload::Generation,
            &steps,
            emit,
            || probe.reset_peak(),
            |phase| {
                let (first_ns, gaps_ns) = generate(model.as_ref(), spec, &mut ids, &clock)?;
                let total_ns = first_ns + gaps_ns.iter().sum::<u64>();
                if phase == Phase::Measure {
                    series.first_token_ns.push(first_ns);
                    series.per_token_ns.push(gaps_ns);
                }
                Ok(StepTimes { total_ns, optimizer_ns: None })
            },
        )?;
        let observation = self.observation(Workload::Generation, &measured, Some(series), &probe);
        drop(model);
        finish(observation, &probe, emit);
        Ok(())
    }

    fn observation(
        &self,
        workload: Workload,
        measured: &Measured,
        generation: Option<GenerationSeries>,
        probe: &MemoryProbe,
    ) -> Observation {
        let totals = |times: &[StepTimes]| times.iter().map(|time| time.total_ns).collect();
        let (sequences, tokens) = match (&self.spec.workloads.generation, workload) {
            (Some(spec), Workload::Generation) => (spec.batch_size, spec.batch_size * spec.new_tokens),
            _ => (self.spec.batch_size, self.spec.batch_size * self.spec.seq_length),
        };
        Observation {
            workload,
            warmup_ns: totals(&measured.warmup),
            samples_ns: totals(&measured.samples),
            optimizer_ns: measured.samples.iter().map(|time| time.optimizer_ns).collect(),
            generation,
            sequences_per_sample: sequences,
            tokens_per_sample: tokens,
            memory: probe.read(),
        }
    }
}

/// One generation: wall clock of the first token, and of every later one by position. The session and its cache, and
/// all token ids, are made before the clock starts.
fn generate(
    model: &dyn Model,
    spec: &GenerationSpec,
    ids: &mut Ids,
    clock: &Clock,
) -> Result<(u64, Vec<u64>), Failure> {
    let prompt = ids.next(spec.batch_size, spec.prompt_tokens);
    let tokens: Vec<_> = (1..spec.new_tokens).map(|_| ids.next(spec.batch_size, 1)).collect();
    let mut session = model.session(spec.batch_size, spec.prompt_tokens + spec.new_tokens);
    let ((), first_ns) = clock.time(|| drop(session.feed(prompt)))?;
    let gaps = tokens.into_iter().map(|token| clock.time(|| drop(session.feed(token))).map(|((), ns)| ns));
    Ok((first_ns, gaps.collect::<Result<_, _>>()?))
}

/// Tells of a workload whose model is gone.
fn finish(mut observation: Observation, probe: &MemoryProbe, emit: &mut dyn FnMut(Event)) {
    observation.memory.after_release = probe.after_release();
    emit(Event::Observed(observation));
}
