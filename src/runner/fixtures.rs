//! One job and the events of a good answer, for tests.

use crate::spec::{
    Applied, CellSpec, DeviceReport, Event, Figure, Job, MemoryObservation, Mode, ModelConfig, Observation, Phase,
    Precision, StepSpec, Stopping, TuningCache, Workload, Workloads,
};

pub(super) fn job() -> Job {
    let cell = CellSpec {
        backend: "flex".to_owned(),
        family: "decoder".to_owned(),
        variant: "default".to_owned(),
        mode: Mode::Default,
        tuning_cache: TuningCache::Kept,
        repeat: 0,
        precision: Precision::F32,
        batch_size: 2,
        seq_length: 16,
        model: ModelConfig::default(),
        workloads: Workloads {
            inference: Some(StepSpec { warmup_steps: 1, benchmark_steps: 2 }),
            ..Workloads::default()
        },
        stopping: Stopping::default(),
        redo_disturbed: true,
        seed: 7,
    };
    Job::Measure { cell, cache: None, once: false }
}

pub(super) fn opened() -> Event {
    Event::Opened {
        device: DeviceReport {
            backend: "flex".to_owned(),
            device: "flex".to_owned(),
            name: "a processor".to_owned(),
            driver: None,
            threads: Some(2),
        },
        applied: Applied {
            requested_mode: Mode::Default,
            execution: "eager".to_owned(),
            precision: Precision::F32,
            vendor_products: None,
            notes: Vec::new(),
        },
    }
}

pub(super) fn observation() -> Observation {
    let figure = Figure::read(1 << 20, "counting allocator");
    let memory = MemoryObservation {
        start: figure.clone(),
        peak: figure.clone(),
        current: figure.clone(),
        reserved: figure.clone(),
        padding: None,
        after_release: figure,
    };
    Observation {
        warmup_ns: vec![30],
        samples_ns: vec![10, 11],
        sequences_per_sample: 2,
        tokens_per_sample: 32,
        ..Observation::new(Workload::Inference, memory)
    }
}

pub(super) fn progress(step: usize) -> Event {
    Event::Progress { workload: Workload::Inference, phase: Phase::Measure, step, steps: 50, step_ns: 9 }
}

/// A shell command that sends an event.
pub(super) fn say(event: &Event) -> String {
    format!("printf '%s\\n' '{}'\n", serde_json::to_string(event).expect("events serialise"))
}
