use proptest::prelude::*;

use super::*;
use crate::record::fixtures::{observations, planned};
use crate::runner::{Script, ScriptedExecutor};
use crate::spec::Event;

/// The largest size by search where all up to `limit` fit, and how many were tried.
fn found(guess: usize, up_to: usize, limit: usize) -> (Option<usize>, usize) {
    let mut tried = Vec::new();
    let found = largest::<()>(guess, up_to, |size| {
        assert!((1..=up_to).contains(&size) && !tried.contains(&size), "{size} after {tried:?}");
        tried.push(size);
        Ok(size <= limit)
    });
    (found.expect("no size fails otherwise"), tried.len())
}

proptest! {
    #[test]
    fn the_largest_size_is_found_from_any_guess(guess in 0_usize..5000, up_to in 1_usize..5000, limit in 0_usize..6000) {
        let (largest, tried) = found(guess, up_to, limit);
        prop_assert_eq!(largest, Some(limit.min(up_to)).filter(|size| *size > 0));
        prop_assert!(tried <= 26, "{} tries", tried);
    }
}

#[test]
fn a_good_guess_saves_tries_and_without_one_sizes_double() {
    assert_eq!(found(1000, 1 << 20, 1003), (Some(1003), 8));
    let mut tried = Vec::new();
    let largest = largest::<()>(1, 100, |size| {
        tried.push(size);
        Ok(size <= 11)
    });
    assert_eq!((largest, tried), (Ok(Some(11)), vec![1, 2, 4, 8, 16, 12, 10, 11]));
}

const SEARCH: Search =
    Search { grown: Grown::Batch, workload: Workload::Training, up_to: 64, memory_limit_bytes: Some(1 << 30) };

fn record(scripts: Vec<Script>, predict: impl Fn(&CellSpec) -> Option<u64>) -> (FitRecord, Vec<Job>) {
    let executor = ScriptedExecutor::new(scripts);
    let job = |cell| Job::Measure { cell, cache: None, once: true };
    let record = SEARCH.run(&planned().plan[0], &executor, predict, job, |_| {});
    (record, executor.jobs())
}

fn step() -> Script {
    Script { events: vec![Event::Observed(observations(10, 100).remove(0)), Event::Finished], ..Script::default() }
}

fn failing(kind: FailureKind) -> Script {
    Script { failure: Some(Failure::new(kind, "so it is")), ..Script::default() }
}

#[test]
fn memory_ends_the_growth_and_every_try_is_kept() {
    let no_memory = || failing(FailureKind::OutOfMemory);
    let (record, jobs) = record(vec![step(), step(), no_memory(), step()], |_| None);
    assert_eq!((record.largest, record.limited_by_memory, record.predicted_largest), (Some(3), true, None));
    let tried: Vec<_> = record.probes.iter().map(|probe| (probe.size, probe.fits, probe.peak.is_some())).collect();
    assert_eq!(tried, [(1, true, true), (2, true, true), (4, false, false), (3, true, true)]);
    assert_eq!(record.cell.batch_size, 3);
    let Job::Measure { cell, once: true, .. } = &jobs[2] else { panic!("one step is measured") };
    assert_eq!(
        (cell.batch_size, cell.workloads.inference.is_some(), cell.workloads.generation.is_some()),
        (4, false, false)
    );
}

#[test]
fn the_search_begins_where_the_prediction_ends() {
    let predict = |cell: &CellSpec| Some(cell.batch_size as u64 * (100 << 20));
    let (record, _) = record(vec![step(), failing(FailureKind::OutOfMemory)], predict);
    assert_eq!((record.predicted_largest, record.largest), (Some(10), Some(10)));
    assert_eq!(record.probes.iter().map(|probe| probe.size).collect::<Vec<_>>(), [10, 11]);
    assert_eq!(record.probes[1].predicted_peak_bytes, Some(1100 << 20));
}

#[test]
fn what_is_not_memory_ends_the_search_with_its_reason() {
    let (record, jobs) = record(vec![step(), failing(FailureKind::TimedOut)], |_| None);
    assert_eq!((record.largest, record.limited_by_memory, jobs.len()), (None, false, 2));
    assert_eq!(record.failure.map(|failure| failure.kind), Some(FailureKind::TimedOut));
}

#[test]
fn where_not_even_one_fits_there_is_no_largest_and_where_all_fit_memory_is_no_limit() {
    let (none, _) = record(vec![failing(FailureKind::OutOfMemory)], |_| None);
    assert_eq!((none.largest, none.limited_by_memory), (None, true));
    let (all, _) = record(vec![step(); 8], |_| None);
    assert_eq!((all.largest, all.limited_by_memory), (Some(64), false));
}

#[test]
fn generation_grows_in_its_own_batch_and_prompt() {
    let cell = &planned().plan[0];
    let search = |grown| Search { grown, workload: Workload::Generation, ..SEARCH };
    let sized = |grown| search(grown).sized(cell, 5).workloads.generation.expect("it was asked for");
    assert_eq!((sized(Grown::Batch).batch_size, sized(Grown::Batch).prompt_tokens), (5, 128));
    assert_eq!((sized(Grown::Sequence).batch_size, sized(Grown::Sequence).prompt_tokens), (1, 5));
}
