//! What measuring costs: the same step in a bare loop, under the counting allocator, and inside the runner's loop.
//!
//! ```sh
//! cargo bench --bench overhead -- docs/results/overhead_flex.json
//! ```
//!
//! Two answers. Directly: what the harness takes for a step that does nothing, and what counting adds to one
//! allocation, times how many there are; as shares of the step. And as a check that nothing else hides: the three arms
//! taking turns within one process, so that drift of the machine hits all alike, compared round by round.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burnmark::CountingAllocator;
use burnmark::measure::{Clock, Machine, Sampling, Span, StepTimes, run_steps};
use burnmark::model::{BuildRequest, Model, Registry, Weights};
use burnmark::record::Environment;
use burnmark::spec::{Mode, ModelConfig, StepSpec, Stopping, TuningCache, Workload};
use burnmark::stats::Sample;
use burnmark_backend_api::Backend;
use serde_json::{Value, json};

/// The program's allocator, counting or not.
struct Switched;

static COUNTING: AtomicBool = AtomicBool::new(true);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: both allocators behind it are the system's, so that a block may be freed under either.
unsafe impl GlobalAlloc for Switched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is handed on.
        unsafe {
            if COUNTING.load(Ordering::Relaxed) {
                CountingAllocator.alloc(layout)
            } else {
                ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
                System.alloc(layout)
            }
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is handed on.
        unsafe {
            if COUNTING.load(Ordering::Relaxed) {
                CountingAllocator.dealloc(pointer, layout);
            } else {
                System.dealloc(pointer, layout);
            }
        }
    }
}

#[global_allocator]
static HEAP: Switched = Switched;

/// What the steps of a block run on.
struct Subject {
    backend: &'static dyn Backend,
    model: Box<dyn Model>,
    device: Device,
    workload: Workload,
}

impl Subject {
    fn new(workload: Workload) -> Self {
        let (backend, opened) =
            burnmark::backends::open("flex", Mode::Default, TuningCache::Kept, None).expect("flex is compiled in");
        let device = if workload == Workload::Training { opened.autodiff() } else { opened };
        let config = ModelConfig::default();
        let weights = Weights::seeded(&config, 42);
        let request = BuildRequest {
            variant: "example",
            config: &config,
            weights: &weights,
            weight_dtype: DType::F32,
            dtype: DType::F32,
            trained: workload == Workload::Training,
            device: &device,
        };
        let model = Registry::default().build("decoder", &request).expect("a built-in model");
        Self { backend, model, device, workload }
    }

    fn ids(&self, batch: usize, seq: usize) -> Tensor<2, Int> {
        let ids: Vec<i64> = (0..batch * seq).map(|i| (i * 7919 % 1000) as i64).collect();
        Tensor::from_data(TensorData::new(ids, [batch, seq]), &self.device)
    }

    /// One step, each timed part of it handed to `time`: what the runner gives its clock, a bare loop just calls.
    fn step(&self, mut time: impl FnMut(&mut dyn FnMut())) {
        match self.workload {
            Workload::Training => {
                let mut ids = Some(self.ids(2, 512));
                time(&mut || drop(self.model.loss(ids.take().expect("once")).backward()));
            }
            Workload::Inference => {
                let mut ids = Some(self.ids(2, 512));
                time(&mut || drop(self.model.forward(ids.take().expect("once"))));
            }
            Workload::Generation => {
                let mut session = self.model.session(1, 256);
                for count in std::iter::once(128).chain(std::iter::repeat_n(1, 127)) {
                    let mut ids = Some(self.ids(1, count));
                    time(&mut || drop(session.feed(ids.take().expect("once"))));
                }
            }
        }
    }

    /// Nanoseconds of a step in a bare loop.
    fn bare(&self) -> f64 {
        let start = Instant::now();
        self.step(|part| part());
        start.elapsed().as_nanos() as f64
    }

    fn machine(&self) -> Machine<'_> {
        Machine::new(self.backend, &self.device, Instant::now())
    }

    /// Nanoseconds of a step in the runner's loop, with everything it does around its samples.
    fn runner(&self, events: &mut dyn Write) -> f64 {
        let clock = Clock::new(&self.device);
        harness(&self.machine(), self.workload, 1, events, || {
            let mut total_ns = 0;
            self.step(|part| total_ns += clock.time(part).expect("flex synchronises").1.total_ns);
            total_ns
        })
    }

    /// Nanoseconds that the runner takes for a step that does nothing.
    fn nothing(&self, events: &mut dyn Write) -> f64 {
        let clock = Clock::new(&self.device);
        let parts = if self.workload == Workload::Generation { 128 } else { 1 };
        harness(&self.machine(), self.workload, 1000, events, || {
            (0..parts).map(|_| clock.time(|| black_box(())).expect("flex synchronises").1.total_ns).sum()
        })
    }
}

/// Nanoseconds a step of the runner's loop, its events written to a pipe.
fn harness(
    machine: &Machine,
    workload: Workload,
    steps: usize,
    events: &mut dyn Write,
    mut step: impl FnMut() -> u64,
) -> f64 {
    let spec = StepSpec { warmup_steps: 0, benchmark_steps: steps };
    let mut emit = |event| {
        let line = serde_json::to_string(&event).expect("an event serialises");
        writeln!(events, "{line}").expect("the pipe is open");
    };
    let sampling = Sampling { workload, steps: &spec, stopping: &Stopping::default(), redo_disturbed: false };
    let start = Instant::now();
    let mut timed = |_| Ok(StepTimes::of(Span { total_ns: step(), ..Span::default() }));
    let measured = run_steps(&sampling, machine, &mut emit, || {}, &mut timed);
    black_box(measured.expect("no step fails"));
    start.elapsed().as_nanos() as f64 / steps as f64
}

/// By how much an arm's steps take longer than another's, in per cent: the rounds' mean with its standard error.
fn excess(rounds: &[[f64; 3]], arm: usize, against: usize) -> Value {
    let ratios: Vec<f64> = rounds.iter().map(|round| (round[arm] / round[against] - 1.0) * 100.0).collect();
    let ratios = Sample::new(ratios).expect("finite times");
    let error = ratios.std() / (ratios.count() as f64 - 1.0).sqrt();
    json!({ "mean_percent": ratios.mean(), "standard_error_percent": error, "median_percent": ratios.median() })
}

fn compare(workload: Workload, rounds: usize, counting_ns: f64, events: &mut dyn Write) -> Value {
    eprintln!("{workload}: {rounds} rounds of 3 steps");
    let subject = Subject::new(workload);
    subject.bare();
    let readings: Vec<[f64; 3]> = (0..rounds)
        .map(|round| {
            let mut reading = [0.0; 3];
            for turn in 0..3 {
                let arm = (turn + round) % 3;
                COUNTING.store(arm > 0, Ordering::Relaxed);
                reading[arm] = if arm == 2 { subject.runner(events) } else { subject.bare() };
            }
            reading
        })
        .collect();
    COUNTING.store(false, Ordering::Relaxed);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    subject.bare();
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    COUNTING.store(true, Ordering::Relaxed);
    let arm = |arm: usize| readings.iter().map(|reading| reading[arm]).collect::<Vec<f64>>();
    let median_ns = Sample::new(arm(0)).expect("finite times").median();
    let harness_ns = subject.nothing(events);
    let share = |nanoseconds: f64| nanoseconds / median_ns * 100.0;
    json!({
        "bare_step_median_ns": median_ns,
        "harness": {
            "ns_per_step": harness_ns,
            "share_of_step_percent": share(harness_ns),
            "runner_against_bare_loop": excess(&readings, 2, 1),
        },
        "counting_allocator": {
            "allocations_per_step": allocations,
            "share_of_step_percent": share(counting_ns * allocations as f64),
            "counted_against_not": excess(&readings, 1, 0),
        },
        "step_ns": { "bare": arm(0), "counted": arm(1), "runner": arm(2) },
    })
}

/// Nanoseconds that counting adds to one allocation and its release.
fn counting_ns() -> f64 {
    let pairs = 5_000_000;
    let run = |counting: bool| {
        COUNTING.store(counting, Ordering::Relaxed);
        let start = Instant::now();
        for i in 0..pairs {
            drop(black_box(Vec::<u8>::with_capacity(64 + (i & 1))));
        }
        start.elapsed().as_nanos() as f64 / f64::from(pairs as u32)
    };
    let best = |counting| (0..5).map(|_| run(counting)).fold(f64::INFINITY, f64::min);
    let (plain, counted) = (best(false), best(true));
    COUNTING.store(true, Ordering::Relaxed);
    counted - plain
}

fn main() {
    let output = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let (mut reader, mut events) = std::io::pipe().expect("a pipe");
    std::thread::spawn(move || reader.read_to_end(&mut Vec::new()));
    let counting_ns = counting_ns();
    let workloads = [(Workload::Training, 120), (Workload::Inference, 400), (Workload::Generation, 200)];
    let compared: serde_json::Map<String, Value> = workloads
        .into_iter()
        .map(|(workload, rounds)| (workload.to_string(), compare(workload, rounds, counting_ns, &mut events)))
        .collect();
    let report = json!({
        "command": "cargo bench --bench overhead",
        "environment": Environment::read(burnmark::backends::features()),
        "counting_ns_per_allocation": counting_ns,
        "workloads": compared,
    });
    let text = serde_json::to_string_pretty(&report).expect("it serialises") + "\n";
    match output {
        Some(path) => std::fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {path}: {error}")),
        None => std::io::stdout().write_all(text.as_bytes()).expect("standard output is open"),
    }
}
