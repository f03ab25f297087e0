use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::{Observation, Reading};
use crate::stats::{Sample, Summary};

const NS_PER_MS: f64 = 1e6;

/// What is in use must grow by this share of itself over all samples to be called growing.
const GROWTH_SHARE: f64 = 0.01;

/// And by this many bytes.
const GROWTH_BYTES: f64 = 1_048_576.0;

/// The steps before the first sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Warmup {
    /// How many.
    pub steps: usize,
    /// Wall clock of the very first step, in milliseconds.
    pub first_step_ms: Option<f64>,
    /// Wall clock of all of them: `sum(t)`, in milliseconds.
    pub total_ms: Option<f64>,
    /// What warming up cost beyond the work done: `sum(t) - steps * median sample`, in milliseconds.
    pub price_ms: Option<f64>,
    /// Why the figures are null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Warmup {
    /// Describes the warm-up curve.
    pub fn of(observation: &Observation) -> Self {
        let curve: Vec<f64> = observation.warmup_ns.iter().map(|&time| time as f64).collect();
        let Some(&first) = curve.first() else {
            return Self::missing("no warm-up step was asked for");
        };
        let total: f64 = curve.iter().sum();
        let steady = median(&observation.samples_ns);
        Self {
            steps: curve.len(),
            first_step_ms: Some(first / NS_PER_MS),
            total_ms: Some(total / NS_PER_MS),
            price_ms: steady.map(|steady| (total - curve.len() as f64 * steady) / NS_PER_MS),
            reason: None,
        }
    }

    /// No figures, and why.
    pub fn missing(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::default() }
    }
}

fn median(times: &[u64]) -> Option<f64> {
    let sample = Sample::new(times.iter().map(|&time| time as f64).collect()).ok()?;
    Some(Summary::of(&sample).median)
}

/// How a step ran on the device; a generation's step is a whole iteration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Execution {
    /// Whether a recorded graph was replayed; null where that was not to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<bool>,
    /// Kernels launched from the host; a replayed graph launches its own.
    pub launches: Option<u64>,
    /// Share of the launches that the fusion engine put together, in percent.
    pub fused_percent: Option<f64>,
    /// Time the device spent in kernels, at most: the sum over all launches, in milliseconds, each from a stamp of the device's
    /// clock before it to one behind it. What the device waits for the host between the two is in it: of kernels that end
    /// sooner than the host sends the next, most of it.
    pub kernels_ms: Option<f64>,
    /// From the step's first work on the device to its last, on the device's clock: median, in milliseconds.
    pub device_ms: Option<f64>,
    /// Share of the wall clock in which the device ran no kernel, at least: `(1 - kernels_ms / median sample) * 100`, not below
    /// zero. Of a replayed graph, which the device begins before the call that launches it returns, at most: `median time until
    /// the calls returned / median sample * 100`; what is idle within the graph is not in it.
    pub host_overhead_percent: Option<f64>,
    /// Why figures are null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Execution {
    /// Derives every figure.
    pub fn of(observation: &Observation) -> Self {
        let kernels = observation.launches.value().map(|step| &step.kernels);
        let launches = kernels.map(|kernels| kernels.iter().map(|kernel| kernel.launches).sum::<u64>());
        let fused =
            kernels.map(|kernels| kernels.iter().filter(|kernel| kernel.fused).map(|kernel| kernel.launches).sum());
        let replayed = observation.replayed == Some(true);
        let timed: Option<u64> =
            kernels.filter(|_| !replayed).and_then(|kernels| kernels.iter().map(|kernel| kernel.device_ns).sum());
        let kernels_ms = timed.map(|time| time as f64 / NS_PER_MS);
        let wall_ms = median(&observation.samples_ns).map(|time| time / NS_PER_MS).filter(|time| *time > 0.0);
        let host_ms = if replayed {
            median(&observation.returned_ns).map(|time| time / NS_PER_MS)
        } else {
            kernels_ms.zip(wall_ms).map(|(kernels, wall)| (wall - kernels).max(0.0))
        };
        let mut reasons: Vec<&str> = Vec::new();
        if let Reading::Missing { reason } = &observation.launches {
            reasons.push(reason);
        } else if replayed {
            reasons.push("the kernels of a replayed graph are not seen one by one");
        } else if timed.is_none() {
            reasons.push("the device does not time single kernels");
        }
        if let Reading::Missing { reason } = &observation.device_clock {
            reasons.push(reason);
        }
        reasons.dedup();
        if observation.replayed == Some(false) {
            reasons.push("nothing was replayed: the device records no graphs, or the variant's cache grows");
        }
        Self {
            replayed: observation.replayed,
            launches,
            fused_percent: launches
                .filter(|_| !replayed)
                .zip(fused)
                .filter(|(all, _)| *all > 0)
                .map(|(all, fused): (u64, u64)| fused as f64 / all as f64 * 100.0),
            kernels_ms,
            device_ms: observation
                .device_clock
                .value()
                .and_then(|clock| median(&clock.device_ns))
                .map(|ns| ns / NS_PER_MS),
            host_overhead_percent: host_ms.zip(wall_ms).map(|(host, wall)| host / wall * 100.0),
            reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        }
    }

    /// No figures, and why.
    pub fn missing(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::default() }
    }
}

/// Whether what is in use grows from sample to sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryGrowth {
    /// Slope of the least-squares line through what is in use after each sample, in bytes a step.
    pub bytes_per_step: Option<f64>,
    /// Whether the line rises by more than 1 % of the mean and more than 1 MB over all samples.
    pub growing: Option<bool>,
    /// Why the figures are null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl MemoryGrowth {
    /// Fits the line.
    pub fn of(memory_by_step: &Reading<Vec<u64>>) -> Self {
        let bytes: Vec<f64> = match memory_by_step {
            Reading::Missing { reason } => return Self::missing(reason),
            Reading::Read(bytes) => bytes.iter().map(|&bytes| bytes as f64).collect(),
        };
        let count = bytes.len() as f64;
        if bytes.len() < 3 {
            return Self::missing("fewer than three samples show no slope");
        }
        let (mean_step, mean) = ((count - 1.0) / 2.0, bytes.iter().sum::<f64>() / count);
        let deviations = bytes.iter().enumerate().map(|(step, bytes)| (step as f64 - mean_step, bytes - mean));
        let (products, squares) =
            deviations.fold((0.0, 0.0), |(products, squares), (x, y)| (products + x * y, squares + x * x));
        let slope = products / squares;
        let rise = slope * (count - 1.0);
        Self {
            bytes_per_step: Some(slope),
            growing: Some(rise > GROWTH_BYTES && rise > GROWTH_SHARE * mean),
            reason: None,
        }
    }

    /// The slope, if it is called growing.
    pub(crate) fn alarming(&self) -> Option<f64> {
        self.bytes_per_step.filter(|_| self.growing == Some(true))
    }

    fn missing(reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use burnmark_backend_api::KernelUse;

    use super::*;
    use crate::spec::{DeviceClock, Figure, MemoryObservation, StepLaunches, Workload};

    fn observation() -> Observation {
        let figure = Figure::read(1, "test");
        let memory = MemoryObservation {
            start: figure.clone(),
            peak: figure.clone(),
            current: figure.clone(),
            reserved: figure.clone(),
            padding: None,
            after_release: figure,
        };
        Observation::new(Workload::Inference, memory)
    }

    #[test]
    fn warming_up_costs_what_exceeds_the_median_sample() {
        let warm = Warmup::of(&Observation {
            warmup_ns: [110, 30, 10, 11].map(|ms| ms * 1_000_000).to_vec(),
            samples_ns: vec![10_000_000; 3],
            ..observation()
        });
        assert_eq!((warm.price_ms, warm.first_step_ms), (Some(121.0), Some(110.0)));
    }

    #[test]
    fn the_hosts_share_is_what_kernels_leave() {
        let kernel = |launches, device_ns, fused| KernelUse { kernel: "k".into(), launches, device_ns, fused };
        let observed = |kernels: Vec<KernelUse>| {
            Execution::of(&Observation {
                samples_ns: vec![10_000_000],
                launches: Reading::Read(StepLaunches { kernels }),
                device_clock: Reading::Read(DeviceClock { device_ns: vec![8_000_000], wall_ns: vec![11_000_000] }),
                ..observation()
            })
        };
        let all = observed(vec![kernel(3, Some(4_000_000), false), kernel(1, Some(1_000_000), true)]);
        assert_eq!((all.launches, all.fused_percent, all.kernels_ms), (Some(4), Some(25.0), Some(5.0)));
        assert_eq!((all.host_overhead_percent, all.device_ms, all.reason), (Some(50.0), Some(8.0), None));
        let some = observed(vec![kernel(3, Some(4_000_000), false), kernel(1, None, true)]);
        assert_eq!((some.kernels_ms, some.host_overhead_percent), (None, None));
        assert!(some.reason.is_some());
    }

    #[test]
    fn a_replayed_graph_waits_for_the_calls_that_launch_it() {
        let replayed = |returned_ns: Vec<u64>| {
            Execution::of(&Observation {
                samples_ns: vec![10_000_000, 12_000_000, 10_000_000],
                returned_ns,
                replayed: Some(true),
                ..observation()
            })
        };
        assert_eq!(replayed(vec![2_000_000, 2_500_000, 9_000_000]).host_overhead_percent, Some(25.0));
        // Results of before know no such time.
        assert_eq!(replayed(Vec::new()).host_overhead_percent, None);
    }

    #[test]
    fn memory_grows_only_if_it_keeps_growing() {
        let growth = |bytes: &[u64]| MemoryGrowth::of(&Reading::Read(bytes.iter().map(|mb| mb << 20).collect()));
        assert_eq!(growth(&[100, 100, 100]).growing, Some(false));
        assert_eq!(growth(&[100, 103, 106]).growing, Some(true));
        assert_eq!(growth(&[100, 103, 106]).bytes_per_step, Some(3.0 * 1_048_576.0));
        assert_eq!(growth(&[100, 101, 100, 101]).growing, Some(false));
        assert_eq!(growth(&[100]).growing, None);
    }
}
