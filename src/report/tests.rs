use super::*;
use crate::record::fixtures::{gate, measured, observations, planned, record};
use crate::spec::{Check, Ending, Observation, VerifyReport};

#[test]
fn the_summary_of_a_run() {
    insta::assert_snapshot!(console::summary(&measured(), Style::default()));
}

#[test]
fn a_run_with_peaks_has_a_roofline() {
    let mut results = measured();
    assert!(!console::summary(&results, Style::default()).contains("Roofline"));
    results.add_peaks(crate::record::fixtures::peaks());
    insta::assert_snapshot!(console::summary(&results, Style::default()));
}

#[test]
fn samples_that_ended_before_their_count_are_told_of() {
    let shown = |ended_by| {
        let mut results = planned();
        let seen = observations(30, 100).into_iter().map(|seen| Observation { ended_by: Some(ended_by), ..seen });
        results.finish_cell(record(&results, 0, seen.collect(), None));
        [console::summary(&results, Style::default()), markdown::document(&results), csv::lines(&results)]
    };
    let early = shown(Ending::NarrowEnough);
    for (text, part) in early.iter().zip([
        "training: sampling ended before its count: narrow enough; 2 taken",
        "| 2, narrow enough |",
        ",narrow enough,",
    ]) {
        assert!(text.contains(part), "{text}");
    }
    let [console, markdown, csv] = shown(Ending::Count);
    assert!(
        !console.contains("ended before") && !markdown.contains("2, count") && csv.contains(",count,"),
        "{console}{markdown}{csv}"
    );
}

#[test]
fn a_failed_gate_shows_its_checks_and_no_ratio() {
    let mut results = planned();
    results.finish_gate(gate(&results, 0.5));
    results.finish_cell(record(&results, 0, observations(30, 100), None));
    results.finish_cell(record(&results, 1, observations(20, 75), None));
    let summary = console::summary(&results, Style::default());
    assert!(!summary.contains("1.50x"), "{summary}");
    insta::assert_snapshot!(summary);
}

#[test]
fn colour_is_there_only_when_asked_for() {
    assert!(!console::summary(&measured(), Style::default()).contains('\u{1b}'));
    assert!(console::summary(&measured(), Style { color: true }).contains('\u{1b}'));
}

#[test]
fn a_verification_shows_the_worst_gradients() {
    let check = |what: &str, error: Option<f64>| Check {
        variant: "example".to_owned(),
        what: what.to_owned(),
        against: "reference".to_owned(),
        error,
        tolerance: 1e-4,
        passed: error.is_some_and(|error| error <= 1e-4),
        note: None,
    };
    let checks = vec![
        check("logits", Some(1e-7)),
        check("grad.a", Some(1e-7)),
        check("grad.b", None),
        check("grad.c", Some(3e-7)),
        check("grad.d", Some(2e-7)),
    ];
    let report = VerifyReport { reference: "file".to_owned(), checks };
    insta::assert_snapshot!(verify::verification(&report, false));
    assert!(verify::verification(&report, true).contains("grad.a"));
}
