use serde_json::Value;

use super::fixtures::{gate, measured, observations, planned, record, with_policy};
use super::*;
use crate::runner::Collected;
use crate::spec::{Failure, FailureKind, PathProof, Reading};

fn json(results: &Results) -> Value {
    serde_json::to_value(results).expect("results serialise")
}

/// Every path that scripts rely on.
fn contract() -> Vec<String> {
    let mut paths: Vec<String> =
        ["timestamp", "config", "default_model", "example_model", "comparison", "cells", "environment"]
            .map(|name| format!("/{name}"))
            .to_vec();
    let mut add = |prefix: &str, names: &str| paths.extend(names.split(' ').map(|name| format!("{prefix}/{name}")));
    add("/comparison/training", "speedup time_reduction_percent memory_reduction_mb memory_reduction_percent");
    add("/comparison/inference", "speedup time_reduction_percent memory_reduction_mb memory_reduction_percent");
    add("/comparison/generation", "speedup latency_reduction_percent first_token_speedup");
    for model in ["default_model", "example_model"] {
        for workload in ["training", "inference"] {
            let at = format!("/{model}/{workload}");
            add(&format!("{at}/wall_clock_time"), "mean_ms std_ms median_ms min_ms max_ms p95_ms p99_ms");
            add(&format!("{at}/memory"), "peak_mb final_mb reserved_mb");
            add(&format!("{at}/throughput"), "samples_per_sec tokens_per_sec");
        }
        let at = format!("/{model}/generation");
        for latency in ["first_token_latency", "per_token_latency"] {
            add(&format!("{at}/{latency}"), "mean_ms std_ms median_ms p95_ms p99_ms");
        }
        add(&format!("{at}/total_generation"), "mean_ms std_ms output_tokens");
        add(&format!("{at}/memory"), "peak_mb final_mb");
        add(&format!("{at}/throughput"), "tokens_per_sec");
    }
    add(
        "/config",
        "batch_size seq_length vocab_size hidden_size num_hidden_layers num_warmup_steps num_benchmark_steps \
         use_compile compile_mode device",
    );
    paths
}

#[test]
fn every_path_of_the_contract_holds_a_value_once_measured() {
    let results = json(&measured());
    for path in contract() {
        assert!(results.pointer(&path).is_some_and(|value| !value.is_null()), "{path}");
    }
}

#[test]
fn every_path_of_the_contract_is_there_before_anything_is_measured() {
    let results = json(&planned());
    for path in contract() {
        assert!(results.pointer(&path).is_some(), "{path}");
    }
    assert_eq!(results["comparison"]["training"]["speedup"], Value::Null);
    assert!(results["comparison"]["training"]["reason"].is_string());
    assert_eq!(results["default_model"]["training"]["wall_clock_time"]["reason"], "not measured yet");
}

#[test]
fn figures_follow_their_formulas() {
    let results = json(&measured());
    let number = |path: &str| results.pointer(path).and_then(Value::as_f64).expect("a number");
    let close = |path: &str, expected: f64| {
        let actual = number(path);
        assert!((actual - expected).abs() < 1e-9, "{path}: {actual} instead of {expected}");
    };
    close("/comparison/training/speedup", 1.5);
    close("/comparison/training/time_reduction_percent", 100.0 / 3.0);
    close("/comparison/training/memory_reduction_mb", 25.0);
    close("/comparison/training/memory_reduction_percent", 25.0);
    close("/comparison/generation/speedup", 1.5);
    close("/comparison/generation/first_token_speedup", 1.5);
    close("/default_model/training/wall_clock_time/std_ms", 1.0);
    close("/default_model/training/wall_clock_time/p95_ms", 30.9);
    close("/default_model/training/throughput/tokens_per_sec", 1024.0 / 0.03);
    close("/default_model/training/memory/final_mb", 50.0);
    close("/default_model/training/memory/reserved_mb", 200.0);
    close("/default_model/training/warmup/first_step_ms", 150.0);
    close("/default_model/generation/total_generation/output_tokens", 4.0);
}

#[test]
fn without_a_passed_gate_there_is_no_ratio() {
    let mut results = planned();
    results.finish_cell(record(&results, 0, observations(30, 100), None));
    results.finish_cell(record(&results, 1, observations(20, 75), None));
    assert_eq!(results.comparison.training.speedup, None, "no gate has run");
    results.finish_gate(gate(&results, 0.5));
    assert_eq!((results.comparison.verified, results.comparison.training.speedup), (false, None));
    assert!(results.comparison.reason.as_deref().is_some_and(|reason| reason.contains("1 of 1 checks of `example`")));
}

#[test]
fn a_gate_that_broke_off_holds_for_the_variants_that_were_through() {
    let mut results = planned();
    let complete = gate(&results, 1e-7);
    let mut report = complete.outcome.report().cloned().expect("checks");
    report.checks.retain(|check| check.variant != "example-without-loss");
    let failure = Failure::new(FailureKind::TimedOut, "not done within the limit");
    results.finish_gate(GateRecord { outcome: GateOutcome::Incomplete { failure, report: Some(report) }, ..complete });
    for (cell, step_ms) in [(0, 30), (1, 20), (2, 25)] {
        results.finish_cell(record(&results, cell, observations(step_ms, 100), None));
    }
    assert_eq!(results.comparison.training.speedup, Some(1.5));
    let ratios = |pair: &PairRecord| (pair.comparison.training.speedup, pair.comparison.reason.clone());
    let (ratio, reason) = ratios(results.comparisons.last().expect("a pair"));
    assert!(ratio.is_none() && reason.is_some_and(|why| why.contains("not done within the limit")));
}

#[test]
fn a_gate_that_the_user_disabled_leaves_ratios_unverified() {
    let mut results = with_policy(GatePolicy::Disabled);
    results.finish_cell(record(&results, 0, observations(30, 100), None));
    results.finish_cell(record(&results, 1, observations(20, 75), None));
    assert!(!results.comparison.verified);
    assert_eq!(results.comparison.training.speedup, Some(1.5));
}

#[test]
fn a_failed_cell_keeps_what_was_measured() {
    let results = measured();
    let cell = &results.cells[2];
    assert_eq!(cell.failure().map(|failure| failure.kind), Some(FailureKind::Crashed));
    assert!(cell.workloads().training.is_some() && cell.workloads().inference.is_none());
    let pair = &results.comparisons[1].comparison;
    assert_eq!((pair.training.speedup, pair.inference.speedup), (Some(1.2), None));
    let why = cell.failure().map(ToString::to_string);
    assert!(why.as_deref().is_some_and(|reason| reason.contains("SIGABRT")));
    assert_eq!(pair.inference.reason, why);
}

#[test]
fn a_cell_without_all_its_workloads_is_a_failure() {
    let results = planned();
    let observed = observations(30, 100).into_iter().take(2).collect();
    let failure = record(&results, 0, observed, None).failure().cloned();
    assert_eq!(failure, Some(Failure::new(FailureKind::Protocol, "the child finished without reporting generation")));
}

#[test]
fn resuming_takes_over_complete_cells_alone() {
    let earlier = measured();
    let mut results = planned();
    assert_eq!(results.take_over(&earlier), 2);
    assert!(results.completed(&results.plan[0].id(), 1).is_some());
    assert!(results.cell(&results.plan[2].id()).is_none());
}

#[test]
fn a_cell_whose_optimisation_did_not_run_counts_for_nothing() {
    let mut results = planned();
    results.finish_gate(gate(&results, 1e-7));
    results.finish_cell(record(&results, 0, observations(30, 100), None));
    let proof =
        |launched| PathProof { optimization: "rope".to_owned(), kernels: vec!["RopeRotate".to_owned()], launched };
    let seen = |launched: bool| {
        let mut observations = observations(20, 75);
        observations[0].paths = Reading::Read(vec![proof(launched)]);
        observations
    };
    results.finish_cell(record(&results, 1, seen(true), None));
    assert!(results.comparison.training.speedup.is_some());
    results.finish_cell(record(&results, 1, seen(false), None));
    assert_eq!(results.comparison.training.speedup, None);
    assert_eq!(results.ladder[0].last.as_ref().expect("the plan has it").comparison.training.speedup, None);
    let failure = results.cells[1].failure().expect("it is marked");
    assert_eq!(failure.kind, FailureKind::Unproven);
    assert!(failure.message.contains("RopeRotate"), "{failure}");
    assert!(results.comparison.reason.as_ref().is_some_and(|reason| reason.contains("`rope` did not run")));
}

#[test]
fn rounds_are_pooled_and_carry_the_interval() {
    let mut results = planned();
    results.finish_gate(gate(&results, 1e-7));
    let round = |step_ms| Collected { observations: observations(step_ms, 100), ..Collected::default() };
    let after = |results: &Results, cell: usize, times: &[u64]| {
        let first = record(results, cell, observations(times[0], 100), None);
        times[1..].iter().fold(first, |record, step_ms| record.with_round(round(*step_ms)))
    };
    results.finish_cell(after(&results, 0, &[30]));
    results.finish_cell(after(&results, 1, &[20]));
    assert_eq!(results.comparison.training.speedup_interval, None, "one round tells nothing of other processes");
    results.finish_cell(after(&results, 0, &[30, 31, 32]));
    results.finish_cell(after(&results, 1, &[20, 21, 20]));
    let training = results.cells[0].workloads().training.as_ref().expect("it was measured");
    assert_eq!((training.figures.wall_clock_time.count, training.rounds.len()), (6, 3));
    assert_eq!(training.figures.wall_clock_time.mean_ms, Some(31.0));
    let comparison = &results.comparison.training;
    let interval = comparison.speedup_interval.expect("three rounds");
    assert!(
        interval.low < comparison.speedup.expect("a ratio") && comparison.speedup.expect("a ratio") < interval.high
    );
    assert_eq!(comparison.verdict, Some(crate::stats::Verdict::Faster));
    assert!(results.completed(&results.plan[0].id(), 3).is_some());
    assert!(results.completed(&results.plan[0].id(), 4).is_none());
    results.finish_cell(after(&results, 1, &[20, 60, 29]));
    assert_eq!(results.comparison.training.verdict, Some(crate::stats::Verdict::NoDifferenceShown));
}

#[test]
fn a_round_that_failed_fails_the_cell_and_keeps_the_others() {
    let results = planned();
    let failure = Failure::new(FailureKind::Crashed, "killed");
    let done = Collected { failure: Some(failure), ..Collected::default() };
    let cell = record(&results, 0, observations(30, 100), None).with_round(done);
    assert!(cell.failure().is_some());
    assert_eq!(cell.workloads().training.as_ref().map(|record| record.rounds.len()), Some(1));
}
