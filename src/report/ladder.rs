//! What each optimisation earns alone, and last, on top of all others.

use super::Style;
use super::table::table;
use super::units::{MISSING, marked, percent};
use crate::record::{Comparison, LadderStep, PairRecord, Results};

/// One figure of a comparison, in words.
pub(super) type Figure = fn(&Comparison) -> Option<String>;

pub(super) const FIGURES: [(&str, Figure); 5] = [
    ("training", |pair| pair.training.speedup.map(|ratio| marked(ratio, pair.training.speedup_interval))),
    ("peak", |pair| pair.training.memory_reduction_percent.map(|less| percent(-less))),
    ("inference", |pair| pair.inference.speedup.map(|ratio| marked(ratio, pair.inference.speedup_interval))),
    ("first token", |pair| {
        pair.generation.first_token_speedup.map(|ratio| marked(ratio, pair.generation.first_token_interval))
    }),
    ("per token", |pair| pair.generation.speedup.map(|ratio| marked(ratio, pair.generation.speedup_interval))),
];

/// The ladder's tables, one for each setting; empty where the plan has no steps.
pub(super) fn ladder(results: &Results, style: Style) -> String {
    let mut settings: Vec<&str> = results.ladder.iter().map(|step| step.cells.as_str()).collect();
    settings.dedup();
    let mut text = String::new();
    for setting in settings {
        let steps = results.ladder.iter().filter(|step| step.cells == setting);
        text.push_str(&format!("\n{} · {setting}\n{}", style.bold("Attribution"), rows(steps)));
        text.push_str("  alone: added to the first variant; last: added when all others are there already\n");
    }
    text
}

fn rows<'a>(steps: impl Iterator<Item = &'a LadderStep>) -> String {
    let columns = FIGURES.iter().flat_map(|(name, _)| [format!("{name} alone"), "last".to_owned()]);
    let header: Vec<String> = [String::new()].into_iter().chain(columns).collect();
    let rows: Vec<Vec<String>> = steps
        .map(|step| {
            let figures = FIGURES.iter().flat_map(|(_, figure)| [(&step.alone, figure), (&step.last, figure)]);
            let cells = figures.map(|(pair, figure)| cell(pair.as_ref(), *figure));
            [step.optimization.clone()].into_iter().chain(cells).collect()
        })
        .collect();
    table(&header, &rows)
}

pub(super) fn cell(pair: Option<&PairRecord>, figure: Figure) -> String {
    pair.map_or_else(String::new, |pair| figure(&pair.comparison).unwrap_or_else(|| MISSING.to_owned()))
}
