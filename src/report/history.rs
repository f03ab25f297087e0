//! What `burnmark history show` prints: a metric over the runs that were kept.

use super::table::table;
use super::units::{megabytes, or_missing, time};
use crate::history::Point;

/// Characters of the longest bar.
const BAR: f64 = 40.0;

/// A table for each cell, a bar for each run.
#[must_use]
pub fn history(metric: &str, points: &[Point]) -> String {
    if points.is_empty() {
        return format!("no run with {metric} is kept; `burnmark history add FILE` keeps one\n");
    }
    let mut text = String::new();
    for cell in points.chunk_by(|a, b| a.cell == b.cell) {
        let most = cell.iter().map(|point| point.mean_ms).fold(0.0, f64::max);
        let row = |point: &Point| {
            let commit = point.git_commit.as_deref().unwrap_or("unknown");
            vec![
                point.timestamp.get(..19).unwrap_or(&point.timestamp).replace('T', " "),
                commit.get(..10).unwrap_or(commit).to_owned(),
                format!("{} ± {}", time(point.mean_ms), time(point.std_ms)),
                format!("{} x {}", point.rounds, point.samples / point.rounds.max(1)),
                or_missing(point.peak_mb, megabytes),
                "█".repeat((point.mean_ms / most * BAR).round() as usize),
            ]
        };
        let header = ["run", "commit", metric, "samples", "peak", ""].map(str::to_owned);
        text.push_str(&format!("{}\n{}\n", cell[0].cell, table(&header, &cell.iter().map(row).collect::<Vec<_>>())));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_over_commits() {
        let point = |timestamp: &str, commit: &str, mean_ms: f64| Point {
            timestamp: timestamp.to_owned(),
            git_commit: Some(commit.to_owned()),
            processor: None,
            cell: "flex/example".to_owned(),
            mean_ms,
            std_ms: 1.0,
            samples: 150,
            rounds: 3,
            peak_mb: Some(183.0),
        };
        let points = [
            point("2026-01-01T00:00:00.5Z", "0123456789abcdef", 250.0),
            point("2026-01-02T00:00:00.5Z", "fedcba9876543210", 200.0),
        ];
        insta::assert_snapshot!(history("training", &points));
        assert!(history("training", &[]).contains("history add"));
    }
}
