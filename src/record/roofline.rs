use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CellRecord, Metric, Peak, PeaksRecord};
use crate::model::work;
use crate::spec::{CellSpec, Work};

/// The roof under which a workload lies (Williams, Waterman and Patterson 2009, "Roofline").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Roof {
    /// Operations a second.
    Compute,
    /// Bytes a second.
    Memory,
}

impl fmt::Display for Roof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compute => "compute",
            Self::Memory => "memory",
        })
    }
}

/// How near a workload of a cell comes to what its device can do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Roofline {
    /// Id of the cell.
    pub cell: String,
    /// The time it is about; of the inter-token latency the mean over a generation.
    pub metric: Metric,
    /// What it needs; docs/METHOD.md has the formulas.
    pub work: Option<Work>,
    /// Arithmetic intensity: `work.flops / work.bytes`.
    pub flops_per_byte: Option<f64>,
    /// Achieved: `work.flops / mean time`.
    pub flops_per_s: Option<f64>,
    /// Achieved: `work.bytes / mean time`.
    pub bytes_per_s: Option<f64>,
    /// Model FLOPs utilisation: `flops_per_s / measured peak`.
    pub mfu: Option<f64>,
    /// Model bandwidth utilisation: `bytes_per_s / measured peak`.
    pub mbu: Option<f64>,
    /// The roof that binds: memory if `flops_per_byte` is below the peaks' ratio.
    pub roof: Option<Roof>,
    /// Why figures are null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Every time of every cell against its device's peaks.
pub(super) fn rooflines(cells: &[CellRecord], peaks: &[PeaksRecord]) -> Vec<Roofline> {
    let of = |cell: &CellRecord| {
        let measured = Metric::ALL.into_iter().filter_map(|metric| Some((metric, mean_s(cell, metric)?)));
        measured.map(|(metric, seconds)| roofline(cell, metric, seconds, peaks)).collect::<Vec<_>>()
    };
    cells.iter().flat_map(of).collect()
}

fn mean_s(cell: &CellRecord, metric: Metric) -> Option<f64> {
    let done = cell.workloads();
    let ms = match metric {
        Metric::Training => done.training.as_ref()?.figures.wall_clock_time.mean_ms,
        Metric::Inference => done.inference.as_ref()?.figures.wall_clock_time.mean_ms,
        Metric::FirstToken => done.generation.as_ref()?.figures.first_token_latency.mean_ms,
        Metric::PerToken => done.generation.as_ref()?.figures.per_token_latency.mean_ms,
    };
    ms.filter(|ms| *ms > 0.0).map(|ms| ms / 1e3)
}

fn roofline(cell: &CellRecord, metric: Metric, seconds: f64, peaks: &[PeaksRecord]) -> Roofline {
    let work = needed(&cell.spec, metric);
    let peaks = peaks.iter().find(|it| it.is_of(&cell.spec));
    let (flops_peak, bytes_peak) = (peaks.and_then(|it| it.flops.value), peaks.and_then(|it| it.bytes.value));
    let (flops, bytes) = (work.map(|work| work.flops as f64), work.map(|work| work.bytes as f64));
    let rate = |amount: Option<f64>| amount.map(|amount| amount / seconds);
    let share = |amount: Option<f64>, peak: Option<f64>| Some(rate(amount)? / peak?);
    let flops_per_byte = flops.zip(bytes).map(|(flops, bytes)| flops / bytes);
    let ridge = flops_peak.zip(bytes_peak).map(|(flops, bytes)| flops / bytes);
    let missing = |peak: &Peak| peak.value.is_none().then(|| peak.reason.clone()).flatten();
    let reason = match (work, peaks) {
        (None, _) => Some(format!("what a model of family `{}` needs is not known", cell.spec.family)),
        (_, None) => Some("the device's peaks were not measured".to_owned()),
        (_, Some(peaks)) => missing(&peaks.flops).or_else(|| missing(&peaks.bytes)),
    };
    Roofline {
        cell: cell.id.clone(),
        metric,
        work,
        flops_per_byte,
        flops_per_s: rate(flops),
        bytes_per_s: rate(bytes),
        mfu: share(flops, flops_peak),
        mbu: share(bytes, bytes_peak),
        roof: flops_per_byte
            .zip(ridge)
            .map(|(intensity, ridge)| if intensity < ridge { Roof::Memory } else { Roof::Compute }),
        reason,
    }
}

/// What a workload of the built-in decoder needs; nothing is known of other families.
fn needed(cell: &CellSpec, metric: Metric) -> Option<Work> {
    if cell.family != "decoder" {
        return None;
    }
    let (model, precision) = (&cell.model, cell.precision);
    let CellSpec { batch_size, seq_length, workloads, .. } = cell;
    match metric {
        Metric::Training => {
            let optimizer = workloads.training.as_ref()?.optimizer;
            Some(work::training(model, *batch_size, *seq_length, precision, optimizer))
        }
        Metric::Inference => Some(work::inference(model, *batch_size, *seq_length, precision)),
        Metric::FirstToken => {
            let spec = workloads.generation.as_ref()?;
            Some(work::prefill(model, spec.batch_size, spec.prompt_tokens, precision))
        }
        Metric::PerToken => {
            let spec = workloads.generation.as_ref()?;
            work::mean_decode(model, spec.batch_size, spec.prompt_tokens, spec.new_tokens, precision)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixtures::{measured, peaks};

    #[test]
    fn shares_are_of_the_measured_peaks() {
        let mut results = measured();
        let alone = &results.rooflines[0];
        assert!(alone.mfu.is_none() && alone.reason.is_some() && alone.flops_per_s.is_some());
        results.add_peaks(peaks());
        let training = &results.rooflines[0];
        let work = training.work.expect("the decoder's work is known");
        // 30 ms a step, 1 TFLOP/s and 100 GB/s.
        let mfu = training.mfu.expect("a peak is there");
        assert!((mfu - work.flops as f64 / 0.030 / 1e12).abs() < 1e-12, "{mfu}");
        assert_eq!((training.roof, &training.reason), (Some(Roof::Compute), &None));
        let decode = results.rooflines.iter().find(|it| it.metric == Metric::PerToken).expect("measured");
        assert_eq!(decode.roof, Some(Roof::Memory), "a token at a time reads all weights for few operations");
    }
}
