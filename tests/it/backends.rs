use std::time::Duration;

use assert_cmd::Command;
use serde_json::Value;

use crate::support::{World, ran, repository};

/// `burnmark` with the time that compiling kernels for Vulkan on a processor takes.
fn patient(world: &World, arguments: &[&str]) -> Command {
    let mut command = world.burnmark(arguments);
    command.timeout(Duration::from_mins(15));
    command
}

fn golden() -> String {
    repository("tests/golden/decoder_small.safetensors")
}

/// A shipped experiment with fewer steps, its results in `r.json`.
fn experiment(world: &World, name: &str, further: &[&str]) -> Value {
    let config = repository(&format!("configs/{name}.toml"));
    let steps = ["--rounds", "1", "--warmup-steps", "2", "--benchmark-steps", "3", "--output", "r.json"];
    let (code, out, err) = ran(&mut patient(world, &[&["--config", &config], &steps[..], further].concat()));
    assert_eq!(code, 0, "{out}{err}");
    world.json("r.json")
}

#[test]
fn devices_are_found_and_what_is_missing_is_explained() {
    let world = World::new();
    let (code, out, err) = ran(&mut world.burnmark(&["devices", "--json"]));
    assert_eq!(code, 0, "{err}");
    let reports: Value = serde_json::from_str(&out).expect("JSON");
    let report = |name: &str| {
        let reports = reports.as_array().expect("a list").iter();
        reports.clone().find(|report| report["backend"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    assert_eq!(report("vulkan")["devices"][0]["device"], "vulkan:0");
    assert_eq!(report("vulkan")["capabilities"]["fusion"], true);
    assert!(report("vulkan")["lacks"].as_str().is_some_and(|why| why.contains("graphs")));
    let libtorch = report("tch")["devices"][0]["driver"].as_str().map(str::to_owned);
    assert!(libtorch.is_some_and(|driver| driver.starts_with("LibTorch 2.9")), "{}", report("tch"));
    let pytorch = report("pytorch")["devices"][0]["device"].as_str().map(str::to_owned);
    assert!(pytorch.is_some_and(|device| device.starts_with("pytorch:")), "{}", report("pytorch"));
    assert_eq!(report("cuda")["missing"]["reason"], "not compiled in");
    assert!(report("cuda")["missing"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("--features cuda")));
}

#[test]
fn every_backend_reproduces_the_golden_numbers() {
    let world = World::new();
    // Without fusion and with the cheapest tuning, which on a processor takes minutes at these sizes otherwise.
    for backend in ["vulkan", "tch:cpu", "pytorch:eager"] {
        let arguments = ["verify", "--no-compile", "--backend", backend, "--reference", &golden(), "-o", "v.json"];
        let (code, out, err) = ran(&mut patient(&world, &arguments));
        assert_eq!(code, 0, "{backend}: {out}{err}");
    }
    let library = &world.json("v.json")["gates"][0]["device"]["driver"];
    assert!(library.as_str().is_some_and(|library| library.starts_with("PyTorch 2")), "{library}");
}

#[test]
fn backends_are_compared_with_the_first_and_agree() {
    let world = World::new();
    let results = experiment(&world, "backends", &[]);
    let cells = results["cells"].as_array().expect("cells");
    assert_eq!(cells.len(), 8);
    assert!(cells.iter().all(|cell| cell["outcome"]["status"] == "measured"));
    let agreements = results["agreements"].as_array().expect("agreements");
    assert!(agreements.len() >= 7 && agreements.iter().all(|agreement| agreement["passed"] == true), "{agreements:?}");
    for pair in results["comparisons"].as_array().expect("pairs") {
        assert!(pair["comparison"]["training"]["speedup"].as_f64().is_some_and(|ratio| ratio > 0.0), "{pair}");
    }
    let cell = |backend: &str| cells.iter().find(|cell| cell["spec"]["backend"] == backend).expect(backend);
    assert_eq!(cell("vulkan")["applied"]["execution"], "fusion + autotune");
    assert_eq!(cell("flex")["applied"]["execution"], "eager");
    let library = cell("tch:cpu")["device"]["driver"].as_str();
    assert!(
        library.is_some_and(|library| library.starts_with("LibTorch 2.9") && !library.contains('/')),
        "{library:?}"
    );
    // What Burn's fusion made is told from what burnmark's own kernels are called.
    let generations = cells.iter().map(|cell| &cell["outcome"]["workloads"]["generation"]["rounds"][0]["launches"]);
    let kernels: Vec<&Value> = generations.filter_map(|launches| launches["kernels"].as_array()).flatten().collect();
    for (name, fused) in [("ElemwiseFuse", true), ("FusedLinear", false)] {
        let mut named = kernels.iter().filter(|kernel| kernel["kernel"] == name).peekable();
        assert!(named.peek().is_some() && named.all(|kernel| kernel["fused"] == fused), "{name}: {kernels:?}");
    }
    let launches = &cell("vulkan")["outcome"]["workloads"]["training"]["figures"]["execution"]["launches"];
    assert!(launches.as_u64().is_some_and(|count| count > 20), "{launches}");
    let pool = &cell("vulkan")["outcome"]["workloads"]["training"]["rounds"][0]["memory"]["current"];
    assert!(pool["bytes"].as_u64().is_some_and(|bytes| bytes > 0) && pool["source"] == "device memory pools", "{pool}");
}

#[test]
fn samples_of_pytorch_end_as_those_of_burn_do() {
    // A Burn backend before it leaves the numbers that PyTorch is verified against.
    crate::run::samples_end_by_count_width_or_time("flex,pytorch:eager");
}

#[test]
fn the_ledger_tells_cold_from_warm() {
    let world = World::new();
    let results = experiment(&world, "tuning", &["--variants", "example"]);
    let cells = results["cells"].as_array().expect("cells");
    let ledgers = |cache: &str| -> Vec<Value> {
        let cells = cells.iter().filter(|cell| cell["spec"]["tuning_cache"] == cache);
        cells.map(|cell| cell["tuning"].clone()).collect()
    };
    for cold in ledgers("cold") {
        assert!(cold["keys_tuned"].as_u64() > Some(0) && cold["keys_known"] == 0, "{cold}");
        let tuned = &cold["events"]["tuned"][0];
        assert!(tuned["candidates"].as_u64() > Some(0) && tuned["wall_ns"].as_u64() > Some(0), "{tuned}");
    }
    for warm in ledgers("warm") {
        assert!(warm["keys_tuned"] == 0 && warm["keys_known"].as_u64() > Some(0), "{warm}");
    }
    assert!(ledgers("off").iter().all(|off| off["keys_known"] == 0));
    assert!(results["break_evens"].as_array().is_some_and(|evens| !evens.is_empty()));
    // Each cold cell ran in two caches: what differs between tunings is told apart from noise within one.
    let spreads = results["tuning_spreads"].as_array().expect("spreads");
    assert!(spreads.iter().all(|spread| spread["means_ms"].as_array().map(Vec::len) == Some(2)), "{spreads:?}");
    assert_eq!(spreads.len(), 2);
}

#[test]
fn a_cell_that_is_cut_short_tells_what_it_had_tuned() {
    let world = World::new();
    let config = repository("configs/quick.toml");
    let tuned = ["--backend", "vulkan", "--variants", "default", "--workloads", "training", "--tuning-cache", "cold"];
    // More steps than the limit leaves time for.
    let cut = ["--rounds", "1", "--warmup-steps", "1000000", "--timeout", "30", "--output", "r.json"];
    let (code, out, err) = ran(&mut patient(&world, &[&["--config", &config], &tuned[..], &cut].concat()));
    assert_ne!(code, 0, "{out}{err}");
    let cell = &world.json("r.json")["cells"][0];
    assert_eq!(cell["outcome"]["failure"]["kind"], "timed_out", "{cell}");
    let compiled = cell["tuning"]["events"]["compiled"].as_array().expect("kernels");
    let limit_ns = 30_000_000_000;
    assert!(!compiled.is_empty() && compiled.iter().all(|kernel| kernel["at_ns"].as_u64() < Some(limit_ns)), "{cell}");
    assert!(out.contains("Tuning"), "{out}");
}

#[test]
fn the_kept_cache_can_be_shown_exported_and_cleared() {
    let world = World::new();
    let cache = world.path("cache");
    let with = |arguments: &[&str]| {
        let mut command = patient(&world, arguments);
        ran(command.env("BURNMARK_TUNING_CACHE", &cache))
    };
    let config = repository("configs/tuning.toml");
    let cell = ["--tuning-cache", "kept", "--no-compile", "--variants", "example", "--output", "r.json"];
    let (code, out, err) =
        with(&[&["--config", &config, "--warmup-steps", "1", "--benchmark-steps", "1"], &cell[..]].concat());
    assert_eq!(code, 0, "{out}{err}");
    let (code, shown, _) = with(&["tuning", "show"]);
    assert!(code == 0 && shown.contains("matmul") && !shown.contains("\n0 answers"), "{shown}");
    let to = world.path("exported").display().to_string();
    assert_eq!(with(&["tuning", "export", &to]).0, 0);
    let (code, _, err) = with(&["tuning", "export", &to]);
    assert!(code != 0 && err.contains("name another folder"), "{err}");
    assert_eq!(with(&["tuning", "clear"]).0, 0);
    assert!(with(&["tuning", "show"]).1.contains("\n0 answers"));
}
