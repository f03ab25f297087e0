use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::WorkloadRecords;
use crate::spec::Observation;

const NS_PER_MS: f64 = 1e6;

/// A time that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// A training step.
    Training,
    /// An inference step.
    Inference,
    /// Time to first token.
    FirstToken,
    /// Inter-token latency.
    PerToken,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Training => "training",
            Self::Inference => "inference",
            Self::FirstToken => "first-token",
            Self::PerToken => "per-token",
        })
    }
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Training, Self::Inference, Self::FirstToken, Self::PerToken];

    /// Its samples in milliseconds, one list a round; empty if the workload was not measured. Tokens of one generation
    /// follow one another, so that their mean is the sample.
    #[must_use]
    pub fn rounds(self, workloads: &WorkloadRecords) -> Vec<Vec<f64>> {
        let ms = |times: &[u64]| times.iter().map(|&time| time as f64 / NS_PER_MS).collect::<Vec<f64>>();
        let mean = |times: &Vec<u64>| times.iter().sum::<u64>() as f64 / times.len() as f64 / NS_PER_MS;
        let samples = |seen: &Observation| match (self, &seen.generation) {
            (Self::FirstToken, Some(series)) => ms(&series.first_token_ns),
            (Self::PerToken, Some(series)) => {
                series.per_token_ns.iter().filter(|gaps| !gaps.is_empty()).map(mean).collect()
            }
            _ => ms(&seen.samples_ns),
        };
        self.observed(workloads).iter().map(samples).filter(|samples| !samples.is_empty()).collect()
    }

    /// What was observed in each round of its workload; empty if that was not measured.
    #[must_use]
    pub fn observed(self, workloads: &WorkloadRecords) -> &[Observation] {
        let rounds = match self {
            Self::Training => workloads.training.as_ref().map(|record| &record.rounds),
            Self::Inference => workloads.inference.as_ref().map(|record| &record.rounds),
            Self::FirstToken | Self::PerToken => workloads.generation.as_ref().map(|record| &record.rounds),
        };
        rounds.map_or(&[], Vec::as_slice)
    }

    /// Peak memory of its workload, in MB of 2^20 bytes, with its source.
    #[must_use]
    pub fn peak_mb(self, workloads: &WorkloadRecords) -> Option<(f64, String)> {
        let memory = match self {
            Self::Training => workloads.training.as_ref().map(|record| &record.figures.memory),
            Self::Inference => workloads.inference.as_ref().map(|record| &record.figures.memory),
            Self::FirstToken | Self::PerToken => workloads.generation.as_ref().map(|record| &record.figures.memory),
        }?;
        Some((memory.peak_mb?, memory.source.clone().unwrap_or_default()))
    }
}
