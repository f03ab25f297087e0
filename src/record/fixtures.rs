//! Results made up for tests, with figures that are easy to check by hand.

use std::time::Duration;

use super::{CellRecord, Environment, GatePolicy, GateRecord, Peak, PeaksRecord, Results, Setup, Versions};
use crate::config::Experiment;
use crate::plan::{Available, plan};
use crate::runner::Collected;
use crate::spec::{
    Applied, Check, DeviceReport, Failure, FailureKind, Figure, GenerationSeries, MemoryObservation, Mode, Observation,
    Precision, VerifyReport, Workload,
};

const MS: u64 = 1_000_000;
const MB: u64 = 1 << 20;

/// The default experiment with one variant more, before anything ran.
pub(crate) fn planned() -> Results {
    with_policy(GatePolicy::Required)
}

fn available(experiment: &Experiment) -> Available {
    Available {
        backends: vec!["flex".to_owned()],
        external: Vec::new(),
        tf32: Vec::new(),
        mixed: Vec::new(),
        tuned: Vec::new(),
        families: vec![("decoder".to_owned(), experiment.axes.variants.clone())],
    }
}

pub(crate) fn with_policy(gate_policy: GatePolicy) -> Results {
    let mut experiment = Experiment::default();
    experiment.axes.variants.push("example-without-loss".to_owned());
    let plan = plan(&experiment, &available(&experiment)).expect("it plans");
    let mut results = Results::new(Setup {
        command: vec!["burnmark".to_owned()],
        environment: environment(),
        experiment: serde_json::to_value(&experiment).expect("serialises"),
        plan: plan.cells.clone(),
        pairs: plan.pairs.iter().map(|pair| (pair.baseline, pair.candidate)).collect(),
        gate_policy,
    });
    results.timestamp = "2026-01-01T00:00:00Z".to_owned();
    results
}

fn environment() -> Environment {
    let known = |text: &str| Some(text.to_owned());
    Environment {
        versions: Versions { burnmark: "1.2.3".to_owned(), burn: known("0.22.1") },
        git_commit: known("0123456"),
        rustc: known("rustc 1.95.0"),
        profile: known("release"),
        debug_assertions: false,
        features: vec!["flex".to_owned()],
        target: "x86_64-linux".to_owned(),
        cpu: known("Some CPU"),
        logical_cores: Some(2),
        physical_cores: Some(2),
        available_threads: Some(2),
        total_memory_bytes: Some(8 << 30),
        os_name: known("Linux"),
        os_version: known("1"),
        kernel: known("6"),
        missing: std::collections::BTreeMap::new(),
    }
}

/// A gate over every variant of [`planned`]; `error` is that of the logits of `example`.
pub(crate) fn gate(results: &Results, error: f64) -> GateRecord {
    let experiment: Experiment = serde_json::from_value(results.experiment.clone()).expect("an experiment");
    let spec = crate::plan::verifications(&experiment, &available(&experiment), &results.plan).remove(0);
    let check = |variant: &str, error: f64| Check {
        variant: variant.to_owned(),
        what: "logits".to_owned(),
        against: "default".to_owned(),
        error: Some(error),
        tolerance: 1e-5,
        passed: error <= 1e-5,
        note: None,
    };
    let checks = vec![check("default", 0.0), check("example", error), check("example-without-loss", 1e-7)];
    let verification = Some(VerifyReport { reference: "seeded weights".to_owned(), checks });
    GateRecord::new(spec, Collected { verification, ..Collected::default() })
}

/// What a child would have observed if every step took `step_ms` and held `peak_mb`.
pub(crate) fn observations(step_ms: u64, peak_mb: u64) -> Vec<Observation> {
    let read = |mb: u64| Figure::read(mb * MB, "counting allocator");
    let memory = MemoryObservation {
        start: read(1),
        peak: read(peak_mb),
        current: read(peak_mb / 2),
        reserved: Figure::read(2 * peak_mb * MB, "resident set"),
        padding: None,
        after_release: read(1),
    };
    let step = |workload| Observation {
        warmup_ns: vec![5 * step_ms * MS, step_ms * MS],
        samples_ns: vec![step_ms * MS - MS, step_ms * MS + MS],
        sequences_per_sample: 2,
        tokens_per_sample: 1024,
        predicted_peak_bytes: Some(peak_mb * MB),
        ..Observation::new(workload, memory.clone())
    };
    let generation = GenerationSeries {
        first_token_ns: vec![step_ms * MS; 2],
        per_token_ns: vec![vec![step_ms * MS / 10; 3], vec![step_ms * MS / 10; 3]],
    };
    vec![
        step(Workload::Training),
        step(Workload::Inference),
        Observation {
            generation: Some(generation),
            sequences_per_sample: 1,
            tokens_per_sample: 4,
            ..step(Workload::Generation)
        },
    ]
}

/// The record of cell `index` of a plan.
pub(crate) fn record(
    results: &Results,
    index: usize,
    observed: Vec<Observation>,
    failure: Option<Failure>,
) -> CellRecord {
    let device = DeviceReport {
        backend: "flex".to_owned(),
        device: "flex".to_owned(),
        name: "Some CPU".to_owned(),
        driver: None,
        threads: Some(2),
    };
    let applied = Applied {
        requested_mode: Mode::Default,
        execution: "eager".to_owned(),
        precision: Precision::F32,
        vendor_products: None,
        notes: Vec::new(),
    };
    let spec = results.plan[index].clone();
    let done = Collected {
        device: Some(device),
        applied: Some(applied),
        observations: observed,
        duration: Duration::from_secs(9),
        failure,
        ..Collected::default()
    };
    CellRecord::new(spec, done)
}

/// Peaks of the fixtures' device: 1 TFLOP/s and 100 GB/s.
pub(crate) fn peaks() -> PeaksRecord {
    let peak = |value: f64, unit: &str| Peak {
        value: Some(value),
        unit: unit.to_owned(),
        source: "made up".to_owned(),
        reason: None,
    };
    PeaksRecord {
        backend: "flex".to_owned(),
        device: "Some CPU".to_owned(),
        cpu: Some("Some CPU".to_owned()),
        mode: Mode::Default,
        precision: Precision::F32,
        burnmark: "1.2.3".to_owned(),
        profile: Some("release".to_owned()),
        timestamp: "2026-01-01T00:00:00Z".to_owned(),
        flops: peak(1e12, "FLOP/s"),
        bytes: peak(1e11, "byte/s"),
    }
}

/// Baseline and optimised model measured, the third cell crashed after training.
pub(crate) fn measured() -> Results {
    let mut results = planned();
    results.finish_gate(gate(&results, 4e-7));
    results.finish_cell(record(&results, 0, observations(30, 100), None));
    results.finish_cell(record(&results, 1, observations(20, 75), None));
    let failure = Failure {
        kind: FailureKind::Crashed,
        message: "killed by signal 6 (SIGABRT)".to_owned(),
        stderr: "first line\nlast line".to_owned(),
    };
    let observed = observations(25, 80).into_iter().take(1).collect();
    results.finish_cell(record(&results, 2, observed, Some(failure)));
    results
}
