//! A report as Markdown: the tables that people paste into issues and commits.

use super::card;
use super::tables::{self, Table};
use super::warnings::warnings;
use crate::record::Results;

/// The report of a results file.
#[must_use]
pub fn document(results: &Results) -> String {
    let name = results.experiment.get("name").and_then(|name| name.as_str()).unwrap_or("burnmark");
    let environment = &results.environment;
    let known = |fact: &Option<String>| fact.clone().unwrap_or_else(|| "unknown".to_owned());
    let mut text = format!(
        "# {name}\n\n`{}`, {}; burnmark {}, Burn {}, commit {}, {} on {}\n",
        results.command.join(" "),
        results.timestamp,
        environment.versions.burnmark,
        known(&environment.versions.burn),
        known(&environment.git_commit),
        known(&environment.rustc),
        known(&environment.cpu),
    );
    let single = [
        ("Summary", tables::comparisons(results)),
        ("Times", tables::times(results)),
        ("Roofline", tables::rooflines(results)),
    ];
    let ladders = tables::ladders(results).into_iter().map(|it| ("Attribution", it));
    let ledger = tables::ledger(results).into_iter().map(|it| ("Tuning", it));
    let all = single.into_iter().chain(ladders).chain([("Memory", tables::memory(results))]).chain(ledger);
    let all = all.chain([("Graphics card", card::table(results))]);
    for (title, it) in all.filter(|(_, it)| !it.rows.is_empty()) {
        text.push_str(&format!("\n## {title}\n\n{}.\n\n{}", it.caption, table(&it)));
    }
    let doubts = warnings(results);
    if !doubts.is_empty() {
        text.push_str("\n## Warnings\n\n");
        text.extend(doubts.iter().map(|doubt| format!("- {doubt}\n")));
    }
    for cell in &results.cells {
        if let Some(failure) = cell.failure() {
            text.push_str(&format!("\n**{} failed**: {failure}\n", cell.spec.label()));
        }
    }
    text
}

fn table(it: &Table) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule: Vec<String> = (0..it.header.len()).map(|i| if i == 0 { "---" } else { "---:" }.to_owned()).collect();
    line(&it.header) + &line(&rule) + &it.rows.iter().map(|row| line(row)).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixtures::measured;

    #[test]
    fn every_table_is_there() {
        insta::assert_snapshot!(document(&measured()));
    }
}
