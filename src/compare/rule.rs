use std::str::FromStr;

use thiserror::Error;

use super::{Change, RunComparison};
use crate::stats::Verdict;

/// Figures that a rule can name.
const METRICS: [&str; 7] =
    ["training", "inference", "first-token", "per-token", "training-peak", "inference-peak", "generation-peak"];

/// A change that shall not be: `training>3%`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    metric: String,
    limit_percent: f64,
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` is no rule: write METRIC>PERCENT%, such as training>3%; metrics are {}", METRICS.join(", "))]
pub struct RuleError {
    text: String,
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let error = || RuleError { text: text.to_owned() };
        let (metric, limit) = text.split_once('>').ok_or_else(error)?;
        let metric = METRICS.into_iter().find(|known| *known == metric.trim()).ok_or_else(error)?;
        let limit = limit.trim().strip_suffix('%').ok_or_else(error)?.trim();
        let limit_percent: f64 = limit.parse().map_err(|_| error())?;
        let usable = limit_percent.is_finite() && limit_percent >= 0.0;
        usable.then(|| Self { metric: metric.to_owned(), limit_percent }).ok_or_else(error)
    }
}

impl Rule {
    /// What a comparison holds against the rule, in words: every cell whose figure grew by more than the limit. A time
    /// with an interval counts only if it is shown to be slower at all, so that noise fails no build.
    #[must_use]
    pub fn breaches(&self, comparison: &RunComparison) -> Vec<String> {
        let shown = |change: &&Change| change.verdict.is_none_or(|verdict| verdict == Verdict::Slower);
        let over = |change: &&Change| change.metric == self.metric && change.change_percent > self.limit_percent;
        let cells = comparison.cells.iter();
        cells
            .flat_map(|cell| cell.changes.iter().filter(over).filter(shown).map(move |change| (cell, change)))
            .map(|(cell, change)| {
                format!(
                    "{}: {} changed by {:+.1} %, more than {} %",
                    cell.cell, change.metric, change.change_percent, self.limit_percent
                )
            })
            .collect()
    }

    /// Whether any compared cell has the figure at all.
    #[must_use]
    pub fn applies(&self, comparison: &RunComparison) -> bool {
        comparison.cells.iter().flat_map(|cell| &cell.changes).any(|change| change.metric == self.metric)
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}>{}%", self.metric, self.limit_percent)
    }
}
