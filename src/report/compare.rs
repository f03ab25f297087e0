//! What `burnmark compare` prints.

use super::table::table;
use super::units::{megabytes, percent, time};
use crate::compare::{Change, RunComparison};

/// Differences of the environments first, then every cell's changes.
#[must_use]
pub fn comparison(before: &str, after: &str, comparison: &RunComparison) -> String {
    let mut text = format!("{after} against {before}\n");
    if comparison.environment.is_empty() {
        text.push_str("\nmade by the same build in the same environment\n");
    } else {
        let rows: Vec<Vec<String>> = comparison
            .environment
            .iter()
            .map(|difference| vec![difference.fact.clone(), difference.before.clone(), difference.after.clone()])
            .collect();
        text.push_str(&format!(
            "\nThe environments differ\n{}",
            table(&["", "before", "after"].map(str::to_owned), &rows)
        ));
    }
    for cell in &comparison.cells {
        text.push_str(&format!("\n{}\n", cell.cell));
        if let Some(reason) = &cell.refused {
            text.push_str(&format!("  not compared: {reason}\n"));
        } else {
            let header = ["", "before", "after", "change", "95 % interval", ""].map(str::to_owned);
            text.push_str(&table(&header, &cell.changes.iter().map(row).collect::<Vec<_>>()));
        }
    }
    for (cells, which) in [(&comparison.only_before, "before"), (&comparison.only_after, "after")] {
        if !cells.is_empty() {
            text.push_str(&format!("\nonly {which}: {}\n", cells.join(", ")));
        }
    }
    text
}

fn row(change: &Change) -> Vec<String> {
    let value = |value: f64| if change.unit == "MB" { megabytes(value) } else { time(value) };
    let interval = change.interval_percent.map(|[low, high]| format!("{} to {}", percent(low), percent(high)));
    let verdict = match change.verdict {
        Some(verdict) => verdict.to_string(),
        None if change.unit == "MB" => String::new(),
        None => "one round: no interval".to_owned(),
    };
    vec![
        change.metric.clone(),
        value(change.before),
        value(change.after),
        percent(change.change_percent),
        interval.unwrap_or_default(),
        verdict,
    ]
}
