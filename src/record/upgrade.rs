//! Results files of older versions become files of the present one, a version at a time.

use serde_json::{Map, Value, json};

use super::{Execution, SCHEMA_VERSION, Warmup};

/// What lifts a file of a version to the next; the first is for version 1.
const STEPS: [fn(&mut Map<String, Value>); SCHEMA_VERSION as usize - 1] = [rounds_are_one_list];

/// Lifts results of an older version to the present one; `None` if `version` is none of them.
pub(super) fn lifted(mut results: Map<String, Value>, version: u32) -> Option<Map<String, Value>> {
    for step in STEPS.get(version.checked_sub(1)? as usize..)? {
        step(&mut results);
    }
    results.insert("schema_version".to_owned(), SCHEMA_VERSION.into());
    Some(results)
}

/// Version 1 kept the first round as `observation` and the others as `further_rounds`; its first files derived nothing of
/// the warm-up and of how steps ran.
fn rounds_are_one_list(results: &mut Map<String, Value>) {
    for model in ["default_model", "example_model"] {
        for workload in ["training", "inference", "generation"] {
            complete(results.get_mut(model).and_then(|model| model.get_mut(workload)));
        }
    }
    let cells = results.get_mut("cells").and_then(Value::as_array_mut);
    for cell in cells.into_iter().flatten() {
        let workloads = cell.pointer_mut("/outcome/workloads").and_then(Value::as_object_mut);
        for record in workloads.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
            complete(record.get_mut("figures"));
            let first = record.shift_remove("observation");
            let further = record.shift_remove("further_rounds");
            let further = further.and_then(|rounds| rounds.as_array().cloned()).unwrap_or_default();
            record.insert("rounds".to_owned(), first.into_iter().chain(further).collect());
        }
    }
}

/// Adds the figures that the first files lack, as missing.
fn complete(figures: Option<&mut Value>) {
    const REASON: &str = "the program that wrote this file did not derive it";
    if let Some(figures) = figures.and_then(Value::as_object_mut) {
        figures.entry("warmup").or_insert_with(|| json!(Warmup::missing(REASON)));
        figures.entry("execution").or_insert_with(|| json!(Execution::missing(REASON)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_round_and_the_others_become_one_list() {
        let record = |record: Value| {
            let cell = json!({"outcome": {"workloads": {"training": record, "inference": null}}});
            let results = json!({"schema_version": 1, "cells": [cell]});
            let results = lifted(results.as_object().expect("an object").clone(), 1).expect("version 1 is known");
            assert_eq!(results["schema_version"], SCHEMA_VERSION);
            results["cells"][0]["outcome"]["workloads"]["training"].clone()
        };
        assert_eq!(record(json!({"figures": 1, "observation": "a"})), json!({"figures": 1, "rounds": ["a"]}));
        let three = json!({"figures": 1, "observation": "a", "further_rounds": ["b", "c"]});
        assert_eq!(record(three), json!({"figures": 1, "rounds": ["a", "b", "c"]}));
        assert_eq!(record(Value::Null), Value::Null);
    }

    #[test]
    fn versions_that_never_were_are_not_lifted() {
        assert_eq!(lifted(Map::new(), 0), None);
        assert_eq!(lifted(Map::new(), SCHEMA_VERSION + 1), None);
    }
}
