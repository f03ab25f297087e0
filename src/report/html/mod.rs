//! One page that opens from the disk: tables without scripts, charts as drawings within it, nothing from a network.

mod charts;

use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;

use super::Style;
use super::tables::{self, Table};
use crate::record::{CellRecord, Metric, PairRecord, PeaksRecord, Results};
use crate::spec::Observation;

const TEMPLATE: &str = include_str!("report.html.jinja");

/// A chart: what it shows, and the drawing.
#[derive(Serialize)]
struct Chart {
    caption: String,
    svg: String,
}

/// What the template names.
#[derive(Serialize)]
struct Page<'a> {
    title: &'a str,
    question: &'a str,
    timestamp: &'a str,
    command: String,
    summary: String,
    comparisons: Table,
    intervals: Vec<Chart>,
    times: Table,
    rooflines: Table,
    roofs: Vec<Chart>,
    memory: Table,
    phases: Vec<Chart>,
    ladders: Vec<Table>,
    ledger: Vec<Table>,
    distributions: Vec<Chart>,
    curves: Vec<Chart>,
    positions: Vec<Chart>,
    cards: Table,
    warnings: Vec<String>,
    failures: Vec<[String; 3]>,
    facts: serde_json::Value,
    experiment: String,
}

/// The page of a results file.
///
/// # Panics
/// If the template, which is part of this program, does not fit the results; tests hold that it does.
#[must_use]
pub fn page(results: &Results) -> String {
    let mut environment = Environment::new();
    environment.add_template("report.html", TEMPLATE).expect("the template is well-formed");
    let template = environment.get_template("report.html").expect("it was just added");
    let of_experiment = |key: &str| results.experiment.get(key).and_then(|text| text.as_str()).unwrap_or_default();
    let decoding =
        |cell: &CellRecord| charts::positions(cell).map(|svg| ("decode".to_owned(), svg)).into_iter().collect();
    let page = Page {
        title: of_experiment("name"),
        question: of_experiment("description"),
        timestamp: &results.timestamp,
        command: results.command.join(" "),
        summary: super::console::summary(results, Style::default()),
        comparisons: tables::comparisons(results),
        intervals: intervals(results),
        times: tables::times(results),
        rooflines: tables::rooflines(results),
        roofs: roofs(results),
        memory: tables::memory(results),
        phases: phases(results),
        ladders: tables::ladders(results),
        ledger: tables::ledger(results),
        distributions: distributions(results),
        curves: charts_of(results, charts::warmup),
        positions: charts_of(results, decoding),
        cards: super::card::table(results),
        warnings: super::warnings::warnings(results),
        failures: failures(results),
        facts: serde_json::to_value(&results.environment).expect("an environment serialises"),
        experiment: serde_json::to_string_pretty(&results.experiment).expect("JSON stays JSON"),
    };
    template.render(Serde(page)).expect("the template fits the results") + "\n"
}

/// The ratios of every pair, all on the same axis.
fn intervals(results: &Results) -> Vec<Chart> {
    let of = |pair: &PairRecord| -> Vec<charts::Ratio> {
        let known = |(name, ratio): &tables::Ratio| {
            let (ratio, interval) = ratio(&pair.comparison);
            Some((*name, ratio?, interval))
        };
        tables::RATIOS.iter().filter_map(known).collect()
    };
    let pairs: Vec<(String, Vec<charts::Ratio>)> =
        results.comparisons.iter().map(|pair| (pair.label.clone(), of(pair))).collect();
    let reach = charts::reach(pairs.iter().flat_map(|(_, ratios)| ratios));
    let chart = |(caption, ratios): (String, Vec<charts::Ratio>)| {
        Some(Chart { caption, svg: charts::intervals(&ratios, reach)? })
    };
    pairs.into_iter().filter_map(chart).collect()
}

/// Memory of every cell by workload and phase, of the first round.
fn phases(results: &Results) -> Vec<Chart> {
    let of = |cell: &CellRecord| -> Vec<charts::Phase> {
        let named = |seen: &Observation| {
            tables::phases(seen)
                .into_iter()
                .map(|(phase, peak, current)| {
                    (format!("{}, {phase}", seen.workload), tables::in_mb(peak.bytes), tables::in_mb(current.bytes))
                })
                .collect::<Vec<_>>()
        };
        cell.workloads().first_rounds().flat_map(named).collect()
    };
    let cells: Vec<(String, Vec<charts::Phase>)> =
        results.cells.iter().map(|cell| (cell.spec.label(), of(cell))).collect();
    let figures = cells.iter().flat_map(|(_, phases)| phases).flat_map(|(_, peak, current)| [*peak, *current]);
    let most = figures.flatten().fold(0.0, f64::max);
    cells
        .into_iter()
        .filter_map(|(caption, phases)| Some(Chart { caption, svg: charts::phases(&phases, most)? }))
        .collect()
}

/// All samples of every metric, a row a cell.
fn distributions(results: &Results) -> Vec<Chart> {
    let of = |metric: Metric| {
        let cells: Vec<(String, Vec<f64>)> = results
            .cells
            .iter()
            .map(|cell| (cell.spec.label(), metric.rounds(cell.workloads()).concat()))
            .filter(|(_, samples)| !samples.is_empty())
            .collect();
        charts::strips(&cells).map(|svg| Chart { caption: metric.to_string(), svg })
    };
    Metric::ALL.into_iter().filter_map(of).collect()
}

/// The roofs of every device, and what was reached under them.
fn roofs(results: &Results) -> Vec<Chart> {
    let of = |peaks: &PeaksRecord| {
        let marks: Vec<(String, f64, f64)> = results
            .rooflines
            .iter()
            .filter_map(|it| {
                let cell = results.cell(&it.cell).filter(|cell| peaks.is_of(&cell.spec))?;
                Some((format!("{}: {}", cell.spec.label(), it.metric), it.flops_per_byte?, it.flops_per_s?))
            })
            .collect();
        let caption = format!("{} ({}), {}, {}", peaks.backend, peaks.device, peaks.mode, peaks.precision);
        charts::roofline(peaks, &marks).map(|svg| Chart { caption, svg })
    };
    results.peaks.iter().filter_map(of).collect()
}

fn charts_of(results: &Results, draw: impl Fn(&CellRecord) -> Vec<(String, String)>) -> Vec<Chart> {
    let of = |cell: &CellRecord| {
        let label = cell.spec.label();
        draw(cell).into_iter().map(|(what, svg)| Chart { caption: format!("{label}: {what}"), svg }).collect::<Vec<_>>()
    };
    results.cells.iter().flat_map(of).collect()
}

fn failures(results: &Results) -> Vec<[String; 3]> {
    let failed = results.cells.iter().filter_map(|cell| Some((cell.spec.label(), cell.failure()?)));
    failed.map(|(label, failure)| [label, failure.to_string(), failure.stderr.clone()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixtures::measured;

    #[test]
    fn the_page_holds_everything_and_asks_nobody() {
        let page = page(&measured());
        for part in ["<!doctype html>", "1.50x", "killed by signal 6", "Some CPU", "<svg", "training step"] {
            assert!(page.contains(part), "{part}");
        }
        for outside in ["http://", "https://", "<script", "<link", "@import", "url("] {
            let found = page.match_indices(outside).find(|(at, _)| !page[*at..].starts_with("http://www.w3.org/"));
            assert_eq!(found, None, "nothing is asked of a network");
        }
    }

    #[test]
    fn roofs_are_drawn_where_peaks_were_measured() {
        let mut results = measured();
        assert!(roofs(&results).is_empty());
        results.add_peaks(crate::record::fixtures::peaks());
        let svg = &roofs(&results)[0].svg;
        assert_eq!(svg.matches("<circle").count(), results.rooflines.len(), "a mark for each time");
        assert!(svg.contains("example/default/f32/b2s512: per-token"), "{svg}");
    }

    #[test]
    fn text_from_results_stays_text() {
        let mut results = measured();
        results.command.push("<script>alert(1)</script>".to_owned());
        assert!(!page(&results).contains("<script>"));
    }
}
