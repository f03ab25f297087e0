use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{World, ran, repository};

fn quick() -> String {
    repository("configs/quick.toml")
}

#[test]
fn a_small_experiment_end_to_end() {
    let world = World::new();
    let (code, out, err) = ran(&mut world.burnmark(&["--config", &quick(), "--output", "r.json"]));
    assert_eq!((code, err.as_str()), (0, ""), "quiet when piped");
    for part in ["Training Performance", "Inference Performance", "Generation Latency", "verified:"] {
        assert!(out.contains(part), "{out}");
    }
    assert!(!out.contains('\u{1b}') && !out.contains("n/a"), "{out}");

    let results = world.json("r.json");
    assert_eq!(results["comparison"]["verified"], true);
    for cell in results["cells"].as_array().expect("cells") {
        assert_eq!(cell["outcome"]["status"], "measured");
        assert_eq!(cell["applied"]["execution"], "eager");
        let workloads = &cell["outcome"]["workloads"];
        for (workload, samples, warmup) in [("training", 10, 2), ("inference", 10, 2), ("generation", 3, 1)] {
            let observation = &workloads[workload]["rounds"][0];
            let count = |name: &str| observation[name].as_array().map(Vec::len);
            assert_eq!((count("samples_ns"), count("warmup_ns")), (Some(samples), Some(warmup)), "{workload}");
            plausible(workload, &observation["memory"]);
        }
        let gaps = workloads["generation"]["rounds"][0]["generation"]["per_token_ns"][0].as_array();
        assert_eq!(gaps.map(Vec::len), Some(7));
    }
}

fn bytes(memory: &Value, name: &str) -> u64 {
    memory[name]["bytes"].as_u64().expect("the counting allocator is installed")
}

fn plausible(workload: &str, memory: &Value) {
    assert!(bytes(memory, "peak") > bytes(memory, "start"), "{workload}: {memory}");
    assert!(bytes(memory, "current") <= bytes(memory, "peak"), "{workload}: {memory}");
    assert!(memory["reserved"]["source"] == "resident set" && bytes(memory, "reserved") > 0);
}

/// Weights, activations and caches of a workload must not outlive it; 64 KiB of growing tables may. The first workload
/// also leaves what the thread pool and the matrix library keep. A thread that gets its first product later leaves its
/// buffer then: that is chance and does not happen in every run, as a leak would.
#[test]
fn nothing_outlives_its_workload() {
    let world = World::new();
    let leaves = || {
        let (code, _, err) = ran(&mut world.burnmark(&["--config", &quick(), "--output", "r.json"]));
        assert_eq!(code, 0, "{err}");
        let results = world.json("r.json");
        let cells = results["cells"].as_array().expect("cells").iter();
        let kept = cells.flat_map(|cell| {
            ["training", "inference", "generation"].map(|workload| {
                let memory = &cell["outcome"]["workloads"][workload]["rounds"][0]["memory"];
                let start = bytes(memory, "start");
                let allowed = if workload == "training" { bytes(memory, "current") - start } else { 64 << 10 };
                (bytes(memory, "after_release").saturating_sub(start), allowed)
            })
        });
        kept.filter(|(kept, allowed)| kept >= allowed).collect::<Vec<_>>()
    };
    let runs: Vec<_> = (0..5).map(|_| leaves()).take_while(|left| !left.is_empty()).collect();
    assert!(runs.len() < 5, "bytes left and allowed in each run: {runs:?}");
}

#[test]
fn what_is_printed_can_be_chosen() {
    let world = World::new();
    let base = ["--config", &quick(), "--workloads", "inference", "--output", "r.json"];
    let with = |flag: &str| ran(&mut world.burnmark(&[&base[..], &[flag]].concat()));
    let (code, out, err) = with("--quiet");
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    let (code, out, err) = with("--json");
    assert_eq!((code, err.as_str()), (0, ""));
    let printed: Value = serde_json::from_str(&out).expect("JSON on standard output");
    assert_eq!(printed, world.json("r.json"));
    let (code, _, err) = with("--verbose");
    assert_eq!(code, 0);
    for part in ["burn 0.22.1", "device flex (", "inference: warm-up, 2 steps", "inference: measure 10/10"] {
        assert!(err.contains(part), "{err}");
    }
    let (code, _, err) = ran(&mut world.burnmark(&[&base[..], &["--quiet", "--verbose"]].concat()));
    assert!(code == 2 && err.contains("cannot be used with"), "{err}");
}

#[test]
fn an_optimiser_is_a_phase_of_its_own() {
    let world = World::new();
    let arguments = ["--config", &quick(), "--workloads", "training", "--optimizer", "adamw", "--output", "r.json"];
    let (code, out, err) = ran(&mut world.burnmark(&arguments));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("of it optimiser"), "{out}");
    let observation = &world.json("r.json")["cells"][0]["outcome"]["workloads"]["training"]["rounds"][0];
    for (total, optimizer) in observation["samples_ns"]
        .as_array()
        .expect("samples")
        .iter()
        .zip(observation["optimizer_ns"].as_array().expect("the optimiser's part"))
    {
        assert!(optimizer.as_u64() > Some(0) && optimizer.as_u64() < total.as_u64());
    }
}

#[test]
fn a_mode_that_the_backend_lacks_is_told() {
    let world = World::new();
    let arguments =
        ["--config", &quick(), "--workloads", "inference", "--compile-mode", "reduce-overhead", "--output", "r.json"];
    assert_eq!(ran(&mut world.burnmark(&arguments)).0, 0);
    let applied = &world.json("r.json")["cells"][0]["applied"];
    assert_eq!((&applied["requested_mode"], &applied["execution"]), (&"reduce-overhead".into(), &"eager".into()));
    assert_eq!(applied["notes"].as_array().map(Vec::len), Some(3));
}

#[test]
fn resuming_runs_only_what_is_missing() {
    let world = World::new();
    let base = ["--config", &quick(), "--workloads", "inference", "--output", "r.json"];
    assert_eq!(ran(&mut world.burnmark(&base)).0, 0);
    let first = world.json("r.json");
    let (code, _, err) = ran(&mut world.burnmark(&[&base[..], &["--resume", "-v"]].concat()));
    assert_eq!(code, 0);
    assert!(err.contains("resuming: 2 of 2 cells"), "{err}");
    assert_eq!(world.json("r.json")["cells"], first["cells"], "raw samples are those of the first run");
    // Another seed is another cell.
    let (code, _, err) = ran(&mut world.burnmark(&[&base[..], &["--resume", "-v", "--seed", "1"]].concat()));
    assert_eq!(code, 0);
    assert!(err.contains("resuming: 0 of 2 cells"), "{err}");
    world.write("r.json", "{\"schema_version\": 1,");
    let (code, _, err) = ran(&mut world.burnmark(&[&base[..], &["--resume"]].concat()));
    assert!(code == 2 && err.contains("cut off"), "{err}");
}

/// How many samples of inference a backend took of 200, and what ended them. Disturbed ones count, so that other load does
/// not move the end.
fn ended(backend: &str, stopping: &str) -> (usize, Value) {
    let world = World::new();
    let quick = std::fs::read_to_string(quick()).expect("it is there");
    let quick = quick.replace("[steps]", "[steps]\nredo_disturbed = false");
    world.write("stopping.toml", &format!("{quick}\n[stopping]\n{stopping}\n"));
    let arguments = ["--config", "stopping.toml", "--workloads", "inference", "--variants", "default"];
    let further = ["--rounds", "1", "--benchmark-steps", "200", "--output", "r.json", "--backend", backend];
    let (code, _, err) = ran(&mut world.burnmark(&[&arguments[..], &further[..]].concat()));
    assert_eq!(code, 0, "{err}");
    let results = world.json("r.json");
    let cells = results["cells"].as_array().expect("cells").iter();
    let cell = cells.last().expect("a cell");
    let round = &cell["outcome"]["workloads"]["inference"]["rounds"][0];
    (round["samples_ns"].as_array().expect("samples").len(), round["ended_by"].clone())
}

/// On a busy machine the first twenty may differ too much, two hundred do not.
pub fn samples_end_by_count_width_or_time(backend: &str) {
    assert_eq!(ended(backend, ""), (200, "count".into()));
    let (count, by) = ended(backend, "half_width_percent = 100");
    assert!((20..200).contains(&count) && by == "narrow enough", "{count} {by}");
    assert_eq!(ended(backend, "max_seconds = 1e-9"), (1, "time".into()));
}

#[test]
fn samples_end_once_their_interval_is_narrow_enough_or_time_is_up() {
    samples_end_by_count_width_or_time("flex");
}

/// Threads of this program are other load to the one that measures. Where they may not use a fifth of the machine's
/// processors, as in a small container on a large machine, they are too little of it to be told.
#[test]
fn samples_that_other_load_disturbs_are_taken_again_with_all_that_belongs_to_them() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let processors = stat.lines().filter(|line| line.starts_with("cpu")).count().saturating_sub(1);
    if processors == 0 || 5 * threads < processors {
        return;
    }
    let world = World::new();
    let quick = std::fs::read_to_string(quick()).expect("it is there");
    world.write("many.toml", &quick.replace("\niterations = 3", "\niterations = 200"));
    let (stop, latest) = (AtomicBool::new(false), Instant::now() + Duration::from_mins(2));
    let spin = || {
        while !stop.load(Ordering::Relaxed) && Instant::now() < latest {
            std::hint::spin_loop();
        }
    };
    let run = || {
        let arguments = ["--config", "many.toml", "--workloads", "training,generation", "--variants", "default"];
        let further = ["--optimizer", "adamw", "--benchmark-steps", "300", "--rounds", "1", "--output", "r.json"];
        let ran = ran(&mut world.burnmark(&[&arguments[..], &further[..]].concat()));
        stop.store(true, Ordering::Relaxed);
        ran
    };
    let (code, out, err) = std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(spin);
        }
        run()
    });
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("were taken again: at worst other programs used"), "{out}");
    let workloads = &world.json("r.json")["cells"][0]["outcome"]["workloads"];
    let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
    for (workload, samples) in [("training", 300), ("generation", 200)] {
        let round = &workloads[workload]["rounds"][0];
        let first = &round["disturbances"][0];
        assert!(first["redone"] == true && !list(&first["samples_ns"]).is_empty(), "{workload}: {first}");
        for name in ["samples_ns", "samples_at_ns", "memory_by_step"] {
            assert_eq!(list(&round[name]).len(), samples, "{workload}: {name}");
        }
    }
    let sum = |of: &Value| list(of).iter().filter_map(Value::as_u64).sum::<u64>();
    assert_eq!(list(&workloads["training"]["rounds"][0]["optimizer_ns"]).len(), 300);
    let round = &workloads["generation"]["rounds"][0];
    let tokens = |index: usize| {
        let first = &round["generation"]["first_token_ns"][index];
        first.as_u64().map(|first| first + sum(&round["generation"]["per_token_ns"][index]))
    };
    for (index, total) in list(&round["samples_ns"]).iter().enumerate() {
        assert_eq!(total.as_u64(), tokens(index), "sample {index}");
    }
}
