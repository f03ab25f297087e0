//! What a verification compared.

use super::table::table;
use super::tables::each_once;
use crate::record::GateOutcome;
use crate::spec::{Check, VerifyReport};

/// Gradients shown of each variant unless all are asked for.
const WORST_GRADIENTS: usize = 3;

/// The checks as a table, then the verdict; `None` if none was made. Of the gradients only the worst, unless `all` are wanted.
#[must_use]
pub fn verification(outcome: &GateOutcome, all: bool) -> Option<String> {
    let report = outcome.report()?;
    let mut rows = Vec::new();
    let mut left_out = 0;
    for variant in each_once(report.checks.iter().map(|check| &check.variant)) {
        let of_variant = || report.checks.iter().filter(|check| check.variant == variant);
        let mut gradients: Vec<&Check> = of_variant().filter(|check| is_gradient(check)).collect();
        // Not-a-number counts as worse than every number.
        gradients.sort_by(|a, b| b.error.unwrap_or(f64::INFINITY).total_cmp(&a.error.unwrap_or(f64::INFINITY)));
        let shown = if all { gradients.len() } else { WORST_GRADIENTS.min(gradients.len()) };
        left_out += gradients.len() - shown;
        let others = of_variant().filter(|check| !is_gradient(check));
        rows.extend(others.chain(gradients.into_iter().take(shown)).map(row));
    }
    let (checks, failed) = (report.checks.len(), report.failed());
    let verdict = match outcome {
        GateOutcome::Passed { .. } => format!("PASS: {checks} checks"),
        GateOutcome::Failed { .. } => format!("FAIL: {failed} of {checks} checks"),
        GateOutcome::Incomplete { .. } => format!("INCOMPLETE: {failed} of {checks} checks failed until then,"),
    };
    let more = if left_out > 0 {
        format!("  {left_out} gradients with smaller errors are not shown (-v)\n")
    } else {
        String::new()
    };
    Some(format!("{}{more}{verdict} against {}\n", table(&header(), &rows), report.reference))
}

/// The failing checks alone.
pub(super) fn failed(report: &VerifyReport) -> String {
    let rows: Vec<Vec<String>> = report.checks.iter().filter(|check| !check.passed).map(row).collect();
    table(&header(), &rows)
}

fn header() -> Vec<String> {
    ["variant", "what", "against", "relative L2", "limit", "", ""].map(str::to_owned).to_vec()
}

fn row(check: &Check) -> Vec<String> {
    vec![
        check.variant.clone(),
        check.what.clone(),
        check.against.clone(),
        check.error.map_or_else(|| "not a number".to_owned(), |error| format!("{error:.2e}")),
        format!("{:.0e}", check.tolerance),
        if check.passed { "pass" } else { "FAIL" }.to_owned(),
        check.note.clone().unwrap_or_default(),
    ]
}

fn is_gradient(check: &Check) -> bool {
    check.what.starts_with("grad.")
}
