use proptest::prelude::*;

use super::*;
use crate::record::fixtures::{gate, observations, planned, record};
use crate::runner::Collected;

/// A run whose cells took these times, a round each.
fn run(times: &[u64]) -> Results {
    let mut results = planned();
    results.finish_gate(gate(&results, 1e-7));
    for cell in 0..2 {
        let round = |step_ms: u64| Collected { observations: observations(step_ms, 100), ..Collected::default() };
        let first = record(&results, cell, observations(times[0], 100), None);
        results.finish_cell(times[1..].iter().fold(first, |record, step_ms| record.with_round(round(*step_ms))));
    }
    results
}

fn rule(text: &str) -> Rule {
    text.parse().expect("a rule")
}

#[test]
fn a_regression_beyond_the_noise_breaks_the_rule_and_one_within_it_does_not() {
    let (before, slower, noisy) = (run(&[100, 101, 100]), run(&[120, 121, 120]), run(&[90, 100, 125]));
    let regression = compare(&before, &slower);
    let change = &regression.cells[0].changes[0];
    assert_eq!((change.metric.as_str(), change.verdict), ("training", Some(Verdict::Slower)));
    assert!((change.change_percent - 19.9).abs() < 0.1, "{change:?}");
    assert_eq!(rule("training>3%").breaches(&regression).len(), 2);
    assert!(rule("training>25%").breaches(&regression).is_empty());
    let noise = compare(&before, &noisy);
    assert!(noise.cells[0].changes[0].change_percent > 3.0);
    assert!(rule("training>3%").breaches(&noise).is_empty(), "it was not shown");
}

#[test]
fn a_run_against_itself_shows_no_difference() {
    let results = run(&[100, 103, 99]);
    let comparison = compare(&results, &results);
    assert!(comparison.environment.is_empty() && comparison.only_before.is_empty());
    let changes = || comparison.cells.iter().flat_map(|cell| &cell.changes);
    assert_eq!(changes().count(), 2 * 7);
    assert!(changes().all(|change| change.change_percent == 0.0));
    assert!(changes().all(|change| change.verdict.is_none_or(|verdict| verdict == Verdict::NoDifferenceShown)));
}

#[test]
fn what_is_not_comparable_is_refused_with_its_reason() {
    let before = run(&[100, 101]);
    let mut after = run(&[100, 101]);
    after.cells[0].spec.model.hidden_size *= 2;
    after.environment.rustc = Some("rustc 1.96.0".to_owned());
    after.cells[0].device.as_mut().expect("a device").driver = Some("a driver 2.0".to_owned());
    let comparison = compare(&before, &after);
    assert!(comparison.cells[0].refused.as_ref().is_some_and(|reason| reason.contains("different work")));
    assert!(comparison.cells[1].refused.is_none());
    let facts: Vec<&str> = comparison.environment.iter().map(|difference| difference.fact.as_str()).collect();
    assert_eq!(facts, ["driver", "rustc"]);
    after.environment.debug_assertions = true;
    assert!(compare(&before, &after).cells.iter().all(|cell| cell.refused.is_some()));
}

#[test]
fn one_backend_is_compared_with_another_across_runs() {
    let before = run(&[100, 101]);
    let mut after = run(&[50, 51]);
    for cell in &mut after.cells {
        cell.spec.backend = "tch:cpu".to_owned();
    }
    let comparison = compare(&before, &after);
    assert_eq!(comparison.cells.len(), 2);
    assert!(comparison.cells[0].cell.starts_with("flex -> tch:cpu"));
    assert_eq!(comparison.cells[0].changes[0].verdict, Some(Verdict::Faster));
}

#[test]
fn a_rule_names_what_it_does_not_understand() {
    for text in ["", "training", "training>", "training>3", "trainign>3%", "training>-1%", "training>x%"] {
        let error = text.parse::<Rule>().expect_err(text).to_string();
        assert!(error.contains("training>3%") && error.contains("generation-peak"), "{error}");
    }
}

proptest! {
    #[test]
    fn rules_survive_their_own_text(limit in 0.0_f64..1e6, metric in 0_usize..7) {
        let names = ["training", "inference", "first-token", "per-token", "training-peak", "inference-peak", "generation-peak"];
        let rule = rule(&format!(" {} > {limit} % ", names[metric]));
        prop_assert_eq!(rule.to_string().parse::<Rule>().expect("a rule"), rule);
    }
}
