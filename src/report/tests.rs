use super::*;
use crate::record::fixtures::{gate, measured, observations, planned, record};
use crate::record::{GateOutcome, Results};
use crate::spec::{Check, Ending, Failure, FailureKind, Figure, Observation, VerifyReport};

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
fn a_peak_that_is_missing_says_why_once() {
    let (mut results, mut peaks) = (measured(), crate::record::fixtures::peaks());
    (peaks.flops.value, peaks.flops.reason) = (None, Some("no such peak".to_owned()));
    results.add_peaks(peaks);
    for text in [console::summary(&results, Style::default()), markdown::document(&results)] {
        assert_eq!(text.matches("n/a: no such peak").count(), 1, "{text}");
    }
}

#[test]
fn what_a_ratio_lacks_because_its_sides_do_is_told_once() {
    let mut results = planned();
    for (cell, why) in ["no counter here", "none there"].into_iter().enumerate() {
        let mut seen = observations(30, 100);
        for observation in &mut seen {
            observation.memory.peak = Figure::missing("counting allocator", why);
        }
        results.finish_cell(record(&results, cell, seen, None));
    }
    let summary = console::summary(&results, Style::default());
    let (training, _) = summary.split_once("Inference Performance").expect("both tables");
    for why in ["no counter here", "none there"] {
        assert_eq!(training.matches(why).count(), 1, "{training}");
    }
}

#[test]
fn columns_are_named_by_what_tells_their_cells_apart() {
    let mut results = measured();
    results.plan[1].backend = "pytorch:eager".to_owned();
    results.example_model.cell = Some(results.plan[1].id());
    let headed = |results: &Results| {
        let summary = console::summary(results, Style::default());
        let line = summary.lines().find(|line| line.ends_with("change")).expect("a table");
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(headed(&results), ["flex/default", "pytorch:eager/example", "change"]);
    results.plan[1].variant = results.plan[0].variant.clone();
    results.example_model.cell = Some(results.plan[1].id());
    assert_eq!(headed(&results), ["flex", "pytorch:eager", "change"]);
}

#[test]
fn generation_alone_is_headed_by_its_own_sizes() {
    let mut results = planned();
    results.plan[0].workloads.training = None;
    results.plan[0].workloads.inference = None;
    let summary = console::summary(&results, Style::default());
    assert!(summary.contains(" · batch 1 · prompt 128 · 128 new tokens · "), "{summary}");
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
    let outcome = GateOutcome::Failed { report: report.clone() };
    insta::assert_snapshot!(verify::verification(&outcome, false).expect("checks"));
    assert!(verify::verification(&outcome, true).is_some_and(|shown| shown.contains("grad.a")));
    let failure = Failure::new(FailureKind::TimedOut, "not done within the limit");
    let cut = |report| verify::verification(&GateOutcome::Incomplete { failure: failure.clone(), report }, false);
    let verdict = "INCOMPLETE: 1 of 5 checks failed until then, against file\n";
    assert!(cut(Some(report)).is_some_and(|shown| shown.ends_with(verdict)));
    assert_eq!(cut(None), None);
}

#[test]
fn a_duration_has_the_unit_that_suits_its_size_whatever_its_sign() {
    let shown = [0.0, 0.05, 1.5, 178.0, 70_100.0].map(|ms| [units::time(ms), units::time(-ms)]);
    let expected = [
        ["0 ms", "0 ms"],
        ["50.0 µs", "-50.0 µs"],
        ["1.50 ms", "-1.50 ms"],
        ["178 ms", "-178 ms"],
        ["70.1 s", "-70.1 s"],
    ];
    assert_eq!(shown, expected);
}
