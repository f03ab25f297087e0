use serde_json::Value;

use crate::support::{World, ran, repository};

fn quick() -> String {
    repository("configs/quick.toml")
}

#[test]
fn the_largest_batch_fits_and_a_larger_one_does_not() {
    let world = World::new();
    let arguments =
        ["fit", "--config", &quick(), "--backend", "flex", "--memory-mb", "150", "--verbose", "--output", "fit.json"];
    let (code, out, err) = ran(&mut world.burnmark(&arguments));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("largest batch of one training step, resident set up to 150 MB"), "{out}");
    assert!(err.contains(": fits") && err.contains("out of memory"), "{err}");
    let results = world.json("fit.json");
    let largest = |cell: usize| {
        let record = &results["records"][cell];
        let largest = record["largest"].as_u64().expect("a size");
        assert_eq!((&record["limited_by_memory"], &record["cell"]["batch_size"]), (&true.into(), &largest.into()));
        let probe = |fits: bool| {
            let probes = record["probes"].as_array().expect("probes").iter();
            probes.filter(move |probe| probe["fits"] == fits).map(|probe| probe["size"].as_u64().expect("a size"))
        };
        assert_eq!((probe(true).max(), probe(false).min()), (Some(largest), Some(largest + 1)));
        let failed = record["probes"].as_array().expect("probes").iter().find(|probe| probe["fits"] == false);
        assert_eq!(failed.expect("one failed")["failure"]["kind"], "out_of_memory");
        largest
    };
    // The optimised decoder keeps less than half as much for backward.
    assert!(largest(1) > largest(0), "{results}");
}

#[test]
fn sequences_grow_up_to_the_models_positions() {
    let world = World::new();
    let arguments =
        ["fit", "--config", &quick(), "--backend", "flex", "--grow", "sequence", "--workload", "generation"];
    let (code, out, err) = ran(&mut world.burnmark(&[&arguments[..], &["--json"]].concat()));
    assert_eq!(code, 0, "{err}");
    let results: Value = serde_json::from_str(&out).expect("JSON");
    // 64 positions less 8 new tokens.
    assert_eq!((&results["records"][0]["largest"], &results["up_to"]), (&56.into(), &56.into()));
    assert_eq!(results["records"][0]["limited_by_memory"], false);
    assert!(ran(&mut world.burnmark(&arguments)).1.contains("≥ 56"), "{out}");
}

#[test]
fn what_is_not_memory_ends_the_search() {
    let world = World::new();
    let arguments = ["fit", "--config", &quick(), "--model", "faulty", "--variants", "panic,sound", "--up-to", "4"];
    let (code, out, _) = ran(&mut world.example("faulty_models", &arguments));
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("panic: crashed") && out.contains("≥ 4"), "{out}");
}
