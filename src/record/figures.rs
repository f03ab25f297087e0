use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Execution, MemoryGrowth, Warmup};
use crate::spec::{Figure, MemoryObservation, Observation};
use crate::stats::{Sample, Summary};

const NS_PER_MS: f64 = 1e6;
const MS_PER_S: f64 = 1e3;
const BYTES_PER_MB: f64 = 1_048_576.0;

/// Statistics of a series of wall-clock times, in milliseconds (`nanoseconds / 10^6`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Times {
    /// Number of times the figures are made of.
    pub count: usize,
    /// Arithmetic mean: `sum(t) / n`.
    pub mean_ms: Option<f64>,
    /// Population standard deviation: `sqrt(sum((t - mean)^2) / n)`.
    pub std_ms: Option<f64>,
    /// 50th percentile; all percentiles by linear interpolation at position `p / 100 * (n - 1)` of the sorted times.
    pub median_ms: Option<f64>,
    /// Shortest.
    pub min_ms: Option<f64>,
    /// Longest.
    pub max_ms: Option<f64>,
    /// 95th percentile.
    pub p95_ms: Option<f64>,
    /// 99th percentile.
    pub p99_ms: Option<f64>,
    /// Why the figures are null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Times {
    /// Describes the times; `when_empty` is the reason given if there are none.
    pub fn of(times_ns: impl IntoIterator<Item = u64>, when_empty: &str) -> Self {
        let times_ms: Vec<f64> = times_ns.into_iter().map(|time| time as f64 / NS_PER_MS).collect();
        if times_ms.is_empty() {
            return Self::missing(when_empty);
        }
        let summary = match Sample::new(times_ms) {
            Ok(sample) => Summary::of(&sample),
            Err(error) => return Self::missing(error.to_string()),
        };
        Self {
            count: summary.count,
            mean_ms: Some(summary.mean),
            std_ms: Some(summary.std),
            median_ms: Some(summary.median),
            min_ms: Some(summary.min),
            max_ms: Some(summary.max),
            p95_ms: Some(summary.p95),
            p99_ms: Some(summary.p99),
            reason: None,
        }
    }

    /// No times, and why.
    pub fn missing(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::default() }
    }
}

/// Memory of one workload, in MB of 2^20 bytes (`bytes / 1048576`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    /// Highest in use while samples were taken.
    pub peak_mb: Option<f64>,
    /// What the model's sizes predict for it, beyond `start_mb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_peak_mb: Option<f64>,
    /// How far the prediction is off: `(predicted_peak_mb / (peak_mb - start_mb) - 1) * 100`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction_error_percent: Option<f64>,
    /// In use after the last step, its results dropped.
    pub final_mb: Option<f64>,
    /// Held from the operating system or driver at that moment.
    pub reserved_mb: Option<f64>,
    /// In use when the workload began, weights included.
    pub start_mb: Option<f64>,
    /// In use after the workload's model and inputs were dropped.
    pub after_release_mb: Option<f64>,
    /// Lost to alignment within `final_mb`, where the allocator tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub padding_mb: Option<f64>,
    /// What the driver says the process holds at that moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_mb: Option<f64>,
    /// Whether what is in use grows from sample to sample.
    #[serde(default)]
    pub growth: MemoryGrowth,
    /// Where `peak_mb` comes from; only figures of one source can be compared.
    pub source: Option<String>,
    /// Where `reserved_mb` comes from.
    pub reserved_source: Option<String>,
    /// Why figures are null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Memory {
    /// Converts every figure of the observation.
    pub fn of(observation: &Observation) -> Self {
        let memory = &observation.memory;
        let megabytes = |figure: &Figure| figure.bytes.map(|bytes| bytes as f64 / BYTES_PER_MB);
        Self {
            peak_mb: megabytes(&memory.peak),
            predicted_peak_mb: observation.predicted_peak_bytes.map(|bytes| bytes as f64 / BYTES_PER_MB),
            prediction_error_percent: observation.prediction_error_percent(),
            final_mb: megabytes(&memory.current),
            reserved_mb: megabytes(&memory.reserved),
            start_mb: megabytes(&memory.start),
            after_release_mb: megabytes(&memory.after_release),
            padding_mb: memory.padding.as_ref().and_then(megabytes),
            driver_mb: observation.driver_memory.as_ref().and_then(megabytes),
            growth: MemoryGrowth::of(&observation.memory_by_step),
            source: Some(memory.peak.source.clone()),
            reserved_source: Some(memory.reserved.source.clone()),
            reason: reasons_for_gaps(memory),
        }
    }

    /// No figures, and why.
    pub fn missing(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::default() }
    }
}

/// The notes of all missing figures, each once, with the names of the figures it explains.
fn reasons_for_gaps(memory: &MemoryObservation) -> Option<String> {
    let figures = [
        ("peak", &memory.peak),
        ("final", &memory.current),
        ("reserved", &memory.reserved),
        ("start", &memory.start),
        ("after release", &memory.after_release),
    ];
    let mut gaps: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, figure) in figures.into_iter().filter(|(_, figure)| figure.bytes.is_none()) {
        let note = figure.note.as_deref().unwrap_or("no reason was given");
        match gaps.iter_mut().find(|(known, _)| *known == note) {
            Some((_, names)) => names.push(name),
            None => gaps.push((note, vec![name])),
        }
    }
    let reasons: Vec<String> = gaps.iter().map(|(note, names)| format!("{}: {note}", names.join(", "))).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// Work done per second, from the mean time of a sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Throughput {
    /// Sequences per second: `sequences per sample / (mean_ms / 1000)`.
    pub samples_per_sec: Option<f64>,
    /// Tokens per second: `tokens per sample / (mean_ms / 1000)`; for generation the tokens are those produced.
    pub tokens_per_sec: Option<f64>,
    /// Why the figures are null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Throughput {
    fn of(observation: &Observation, times: &Times) -> Self {
        match times.mean_ms {
            Some(mean_ms) if mean_ms > 0.0 => {
                let per_second = |work: usize| Some(work as f64 / (mean_ms / MS_PER_S));
                Self {
                    samples_per_sec: per_second(observation.sequences_per_sample),
                    tokens_per_sec: per_second(observation.tokens_per_sample),
                    reason: None,
                }
            }
            Some(_) => Self::missing("the mean time is zero: the clock is too coarse for this workload"),
            None => Self::missing(times.reason.clone().unwrap_or_default()),
        }
    }

    /// No figures, and why.
    pub fn missing(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::default() }
    }
}

const NO_SAMPLES: &str = "no sample was taken";

/// Derived figures of training or inference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepFigures {
    /// Of whole steps.
    pub wall_clock_time: Times,
    /// Of the optimiser's part of each step, if there is an optimiser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer_time: Option<Times>,
    /// Memory.
    pub memory: Memory,
    /// Work per second.
    pub throughput: Throughput,
    /// The steps before.
    pub warmup: Warmup,
    /// How a step ran on the device.
    pub execution: Execution,
}

impl StepFigures {
    /// Derives every figure from an observation of training or inference.
    pub fn of(observation: &Observation) -> Self {
        let wall_clock_time = Times::of(observation.samples_ns.iter().copied(), NO_SAMPLES);
        Self {
            throughput: Throughput::of(observation, &wall_clock_time),
            wall_clock_time,
            optimizer_time: observation.optimizer_ns.as_ref().map(|times| Times::of(times.iter().copied(), NO_SAMPLES)),
            memory: Memory::of(observation),
            warmup: Warmup::of(observation),
            execution: Execution::of(observation),
        }
    }

    /// No figures, and why.
    pub fn missing(reason: &str) -> Self {
        Self {
            wall_clock_time: Times::missing(reason),
            optimizer_time: None,
            memory: Memory::missing(reason),
            throughput: Throughput::missing(reason),
            warmup: Warmup::missing(reason),
            execution: Execution::missing(reason),
        }
    }
}

/// Whole iterations of generation, prompt included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TotalGeneration {
    /// Mean time of an iteration, in milliseconds.
    pub mean_ms: Option<f64>,
    /// Population standard deviation, in milliseconds.
    pub std_ms: Option<f64>,
    /// Median, in milliseconds.
    pub median_ms: Option<f64>,
    /// 95th percentile, in milliseconds.
    pub p95_ms: Option<f64>,
    /// 99th percentile, in milliseconds.
    pub p99_ms: Option<f64>,
    /// Tokens produced per iteration, over all sequences.
    pub output_tokens: Option<usize>,
    /// Why figures are null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl TotalGeneration {
    fn of(times: &Times, output_tokens: Option<usize>) -> Self {
        Self {
            mean_ms: times.mean_ms,
            std_ms: times.std_ms,
            median_ms: times.median_ms,
            p95_ms: times.p95_ms,
            p99_ms: times.p99_ms,
            output_tokens,
            reason: times.reason.clone(),
        }
    }
}

/// Derived figures of generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GenerationFigures {
    /// Prompt in, logits of the first new token out.
    pub first_token_latency: Times,
    /// The gaps between later tokens, all positions of all iterations together.
    pub per_token_latency: Times,
    /// Whole iterations.
    pub total_generation: TotalGeneration,
    /// Memory.
    pub memory: Memory,
    /// Work per second, over whole iterations.
    pub throughput: Throughput,
    /// The iterations before.
    pub warmup: Warmup,
    /// How an iteration ran on the device.
    pub execution: Execution,
}

impl GenerationFigures {
    /// Derives every figure from an observation of generation.
    pub fn of(observation: &Observation) -> Self {
        let total = Times::of(observation.samples_ns.iter().copied(), NO_SAMPLES);
        let (first_token_latency, per_token_latency) = if let Some(series) = &observation.generation {
            (
                Times::of(series.first_token_ns.iter().copied(), NO_SAMPLES),
                Times::of(series.per_token_ns.iter().flatten().copied(), "one new token leaves no gap to measure"),
            )
        } else {
            let missing = Times::missing("the child reported no token times");
            (missing.clone(), missing)
        };
        Self {
            first_token_latency,
            per_token_latency,
            total_generation: TotalGeneration::of(&total, Some(observation.tokens_per_sample)),
            memory: Memory::of(observation),
            throughput: Throughput::of(observation, &total),
            warmup: Warmup::of(observation),
            execution: Execution::of(observation),
        }
    }

    /// No figures, and why.
    pub fn missing(reason: &str) -> Self {
        Self {
            first_token_latency: Times::missing(reason),
            per_token_latency: Times::missing(reason),
            total_generation: TotalGeneration::of(&Times::missing(reason), None),
            memory: Memory::missing(reason),
            throughput: Throughput::missing(reason),
            warmup: Warmup::missing(reason),
            execution: Execution::missing(reason),
        }
    }
}
