//! What `burnmark tuning show` prints.

use std::path::Path;

use burnmark_backend_api::TuningContents;
use serde_json::Value;

use super::table::table;
use super::units::time;

/// Questions that are shown if not all are asked for.
const SHOWN: usize = 20;

/// Numbers of a question that are shown.
const NUMBERS: usize = 6;

/// What a cache holds, the dearest questions first.
#[must_use]
pub fn contents(folder: &Path, contents: &TuningContents, all: bool) -> String {
    let mut text =
        format!("{}\n{} answers, {} compiled kernels\n", folder.display(), contents.answers, contents.kernels);
    let count = if all { contents.tuned.len() } else { contents.tuned.len().min(SHOWN) };
    if count > 0 {
        let header = ["operation", "question", "winner", "candidates", "took"].map(str::to_owned);
        let rows: Vec<Vec<String>> = contents.tuned[..count]
            .iter()
            .map(|tuned| {
                vec![
                    tuned.table.rsplit('/').next().unwrap_or_default().to_owned(),
                    question(&tuned.key),
                    tuned.winner.clone(),
                    format!("{} of {}", tuned.trials.len(), tuned.candidates),
                    time(tuned.wall_ns as f64 / 1e6),
                ]
            })
            .collect();
        text.push_str(&table(&header, &rows));
    }
    if count < contents.tuned.len() {
        text.push_str(&format!("  {} more are not shown (-v)\n", contents.tuned.len() - count));
    }
    text
}

/// The first numbers of a question under their names.
fn question(key: &str) -> String {
    fn numbers(value: &Value, found: &mut Vec<String>) {
        for (name, value) in value.as_object().into_iter().flatten() {
            match value {
                Value::Number(number) => found.push(format!("{name} {number}")),
                nested => numbers(nested, found),
            }
        }
    }
    let mut found = Vec::new();
    numbers(&serde_json::from_str(key).unwrap_or_default(), &mut found);
    found.truncate(NUMBERS);
    found.join(", ")
}

#[cfg(test)]
mod tests {
    use burnmark_backend_api::{Trial, TunedKey};

    use super::*;

    #[test]
    fn a_cache_is_shown_with_its_dearest_questions() {
        let tuned = |m: usize, ms: u64| TunedKey {
            at_ns: 0,
            wall_ns: ms * 1_000_000,
            table: "autotune/0.11.3/device/matmul".to_owned(),
            key: format!(r#"{{"definition":{{"m":{m},"n":8,"elem":"F32"}},"groups":2}}"#),
            winner: "simple".to_owned(),
            candidates: 33,
            trials: vec![Trial { name: "simple".to_owned(), wall_ns: 1 }],
            stored: true,
        };
        let tuned = (1..=25).map(|m| tuned(m, 3000 - m as u64)).collect();
        let cache = TuningContents { answers: 25, kernels: 80, tuned };
        let text = contents(Path::new("/cache"), &cache, false);
        assert!(text.contains("m 1, n 8, groups 2") && text.contains("5 more are not shown"), "{text}");
        insta::assert_snapshot!(text.lines().take(5).collect::<Vec<_>>().join("\n"));
        assert!(contents(Path::new("/cache"), &cache, true).contains("m 25, n 8"));
        let empty = contents(Path::new("/cache"), &TuningContents::default(), false);
        assert_eq!(empty, "/cache\n0 answers, 0 compiled kernels\n");
    }
}
