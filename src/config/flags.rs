use std::path::PathBuf;

use serde_json::{Value, json};

use super::Fault;
use crate::spec::{Mode, Optimizer, Precision, TuningCache, Workload};

/// What the command line lays on top of the file; a flag replaces the whole axis it names.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "each is the key of the same name")]
pub struct Flags {
    pub output: Option<PathBuf>,
    pub rounds: Option<usize>,
    pub batch_size: Option<usize>,
    pub seq_length: Option<usize>,
    pub warmup_steps: Option<usize>,
    pub benchmark_steps: Option<usize>,
    pub no_compile: bool,
    pub compile_mode: Option<Mode>,
    pub backends: Option<Vec<String>>,
    pub variants: Option<Vec<String>>,
    pub ladder: bool,
    pub tuning_caches: Option<Vec<TuningCache>>,
    pub precision: Option<Precision>,
    pub optimizer: Option<Optimizer>,
    pub seed: Option<u64>,
    pub timeout_s: Option<u64>,
    pub memory_mb: Option<u64>,
    pub workloads: Option<Vec<Workload>>,
    pub model_family: Option<String>,
}

impl Flags {
    /// Key, flag and value of everything that was given.
    pub(super) fn settings(&self) -> Result<Vec<(&'static str, &'static str, Value)>, Fault> {
        if let (true, Some(mode)) = (self.no_compile, self.compile_mode) {
            return Err(Fault {
                place: "--no-compile".to_owned(),
                message: format!("contradicts `--compile-mode {mode}`; give one of the two"),
            });
        }
        let mode = if self.no_compile {
            Some(("--no-compile", Mode::NoCompile))
        } else {
            self.compile_mode.map(|mode| ("--compile-mode", mode))
        };
        let mut settings = vec![
            ("output", "--output", self.output.as_ref().map(|path| json!(path))),
            ("rounds", "--rounds", self.rounds.map(|rounds| json!(rounds))),
            ("axes.batch_sizes", "--batch-size", self.batch_size.map(|size| json!([size]))),
            ("axes.seq_lengths", "--seq-length", self.seq_length.map(|length| json!([length]))),
            ("steps.warmup", "--warmup-steps", self.warmup_steps.map(|steps| json!(steps))),
            ("steps.benchmark", "--benchmark-steps", self.benchmark_steps.map(|steps| json!(steps))),
            ("axes.backends", "--backend", self.backends.as_ref().map(|backends| json!(backends))),
            ("axes.variants", "--variants", self.variants.as_ref().map(|variants| json!(variants))),
            ("axes.ladder", "--ladder", self.ladder.then(|| json!(true))),
            ("axes.tuning_caches", "--tuning-cache", self.tuning_caches.as_ref().map(|caches| json!(caches))),
            ("axes.precisions", "--precision", self.precision.map(|precision| json!([precision]))),
            ("training.optimizer", "--optimizer", self.optimizer.map(|optimizer| json!(optimizer))),
            ("seed", "--seed", self.seed.map(|seed| json!(seed))),
            ("limits.timeout_s", "--timeout", self.timeout_s.map(|seconds| json!(seconds))),
            ("limits.memory_mb", "--memory-mb", self.memory_mb.map(|mb| json!(mb))),
            ("model.family", "--model", self.model_family.as_ref().map(|family| json!(family))),
        ];
        settings.extend(mode.map(|(flag, mode)| ("axes.modes", flag, Some(json!([mode])))));
        let workloads = [
            ("training.enabled", Workload::Training),
            ("inference.enabled", Workload::Inference),
            ("generation.enabled", Workload::Generation),
        ];
        for (key, workload) in workloads {
            let enabled = self.workloads.as_ref().map(|chosen| json!(chosen.contains(&workload)));
            settings.push((key, "--workloads", enabled));
        }
        Ok(settings.into_iter().filter_map(|(key, flag, value)| Some((key, flag, value?))).collect())
    }
}
