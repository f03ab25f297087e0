//! Every time of every cell as comma-separated values, for other programs.

use super::endings::endings;
use crate::record::{CellRecord, Metric, Results, Roofline};
use crate::stats::{Sample, Summary};

const HEADER: [&str; 27] = [
    "cell",
    "backend",
    "variant",
    "mode",
    "tuning_cache",
    "precision",
    "batch_size",
    "seq_length",
    "metric",
    "rounds",
    "samples",
    "ended_by",
    "mean_ms",
    "std_ms",
    "median_ms",
    "min_ms",
    "max_ms",
    "p95_ms",
    "p99_ms",
    "peak_mb",
    "memory_source",
    "flops_per_s",
    "bytes_per_s",
    "flops_per_byte",
    "mfu",
    "mbu",
    "bound_by",
];

/// A line for each time of each cell; a figure that is missing is empty.
#[must_use]
pub fn lines(results: &Results) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let rows =
        results.cells.iter().flat_map(|cell| Metric::ALL.into_iter().filter_map(|metric| row(results, cell, metric)));
    let header = HEADER.map(str::to_owned).to_vec();
    for row in std::iter::once(header).chain(rows) {
        writer.write_record(&row).expect("memory does not fail");
    }
    let bytes = writer.into_inner().expect("memory does not fail");
    String::from_utf8(bytes).expect("text stays text")
}

fn row(results: &Results, cell: &CellRecord, metric: Metric) -> Option<Vec<String>> {
    let rounds = metric.rounds(cell.workloads());
    let summary = Summary::of(&Sample::new(rounds.concat()).ok()?);
    let spec = &cell.spec;
    let (peak, source) =
        metric.peak_mb(cell.workloads()).map_or_else(Default::default, |(mb, source)| (mb.to_string(), source));
    let axes = [
        cell.id.clone(),
        spec.backend.clone(),
        spec.variant.clone(),
        spec.mode.to_string(),
        spec.tuning_cache.to_string(),
        spec.precision.to_string(),
        spec.batch_size.to_string(),
        spec.seq_length.to_string(),
        metric.to_string(),
        rounds.len().to_string(),
        summary.count.to_string(),
        endings(metric.observed(cell.workloads())),
    ];
    let figures = [summary.mean, summary.std, summary.median, summary.min, summary.max, summary.p95, summary.p99];
    let figures = figures.map(|figure| figure.to_string());
    let roofline = results.rooflines.iter().find(|it| it.cell == cell.id && it.metric == metric);
    let of = |figure: fn(&Roofline) -> Option<f64>| {
        roofline.and_then(figure).map_or_else(String::new, |figure| figure.to_string())
    };
    let roofs = [
        of(|it| it.flops_per_s),
        of(|it| it.bytes_per_s),
        of(|it| it.flops_per_byte),
        of(|it| it.mfu),
        of(|it| it.mbu),
        roofline.and_then(|it| it.roof).map_or_else(String::new, |roof| roof.to_string()),
    ];
    Some(axes.into_iter().chain(figures).chain([peak, source]).chain(roofs).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixtures::{measured, peaks};

    #[test]
    fn every_time_has_a_line() {
        let mut results = measured();
        assert!(!lines(&results).contains("compute"), "no peak, no roof");
        results.add_peaks(peaks());
        insta::assert_snapshot!(lines(&results));
    }
}
