use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{World, ran, repository};

/// Runs the faulty family with the variants, without a gate.
fn run(world: &World, variants: &str, more: &[&str]) -> (i32, Value, String) {
    let text = std::fs::read_to_string(repository("configs/quick.toml")).expect("the quick experiment");
    world.write("faulty.toml", &format!("{text}\n[verify]\nenabled = false\n"));
    let base = ["--config", "faulty.toml", "--model", "faulty", "--variants", variants, "--output", "r.json"];
    let (code, out, err) = ran(&mut world.example("faulty_models", &[&base[..], more].concat()));
    (code, world.json("r.json"), out + &err)
}

/// Kind and message of a cell's failure.
fn failure(results: &Value, cell: usize) -> (String, String) {
    let failure = &results["cells"][cell]["outcome"]["failure"];
    let text = |name: &str| failure[name].as_str().unwrap_or_default().to_owned();
    (text("kind"), text("message"))
}

#[test]
fn each_fault_is_typed_and_the_other_cells_run() {
    let world = World::new();
    let (code, results, text) = run(&world, "sound,panic,abort,killed,same", &["--workloads", "inference"]);
    assert_eq!(code, 1, "{text}");
    let statuses: Vec<&Value> =
        results["cells"].as_array().expect("cells").iter().map(|cell| &cell["outcome"]["status"]).collect();
    assert_eq!(statuses, ["measured", "failed", "failed", "failed", "measured"]);
    for (cell, kind, message) in
        [(1, "crashed", "never wanted to be built"), (2, "crashed", "SIGABRT"), (3, "crashed", "SIGKILL")]
    {
        let (found, told) = failure(&results, cell);
        assert!(found == kind && told.contains(message), "{found}: {told}");
    }
    assert!(text.contains("never wanted to be built"), "the summary tells: {text}");
    assert_eq!(results["comparison"]["inference"]["speedup"], Value::Null);
    let last = &results["comparisons"][3]["comparison"]["inference"]["speedup"];
    assert!(last.is_number(), "the sound pair is compared: {last}");
}

#[test]
fn a_cell_that_hangs_is_stopped() {
    let world = World::new();
    let start = Instant::now();
    let (code, results, _) = run(&world, "hang,sound", &["--workloads", "inference", "--timeout", "1"]);
    assert_eq!(code, 1);
    assert!(start.elapsed() < Duration::from_secs(30));
    let (kind, message) = failure(&results, 0);
    assert!(kind == "timed_out" && message.contains("--timeout"), "{kind}: {message}");
    assert_eq!(results["cells"][1]["outcome"]["status"], "measured");
}

#[test]
fn a_cell_that_eats_memory_is_stopped() {
    let world = World::new();
    let (code, results, _) = run(&world, "allocate,sound", &["--workloads", "inference", "--memory-mb", "300"]);
    assert_eq!(code, 1);
    let (kind, message) = failure(&results, 0);
    assert!(kind == "out_of_memory" && message.contains("--memory-mb"), "{kind}: {message}");
    assert_eq!(results["cells"][1]["outcome"]["status"], "measured");
}

#[test]
fn rubbish_on_standard_output_does_not_reach_the_events() {
    let world = World::new();
    let (code, results, text) = run(&world, "sound,print", &["--workloads", "inference"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(results["cells"][1]["outcome"]["status"], "measured");
}

#[test]
fn what_was_measured_before_a_fault_is_kept() {
    let world = World::new();
    let (code, results, _) = run(&world, "sound,late-panic", &[]);
    assert_eq!(code, 1);
    let workloads = &results["cells"][1]["outcome"]["workloads"];
    assert!(workloads["training"].is_object() && workloads["inference"].is_null());
    assert!(results["comparison"]["training"]["speedup"].is_number());
    assert!(results["comparison"]["inference"]["reason"].as_str().is_some_and(|why| why.contains("after training")));
}

#[test]
fn a_wrong_model_gets_no_ratio() {
    let world = World::new();
    let config = repository("configs/quick.toml");
    let arguments = ["--config", &config, "--model", "faulty", "--variants", "sound,wrong", "--output", "r.json"];
    let (code, out, _) = ran(&mut world.example("faulty_models", &arguments));
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("verification failed") && out.contains("FAIL"), "{out}");
    let comparison = &world.json("r.json")["comparison"];
    assert_eq!((&comparison["verified"], &comparison["training"]["speedup"]), (&false.into(), &Value::Null));
}

#[test]
fn a_verification_that_breaks_off_keeps_the_checks_it_made() {
    let world = World::new();
    let config = repository("configs/quick.toml");
    let of = |variants| ["verify", "--config", &config, "--model", "faulty", "--variants", variants, "-o", "v.json"];
    let (code, out, err) = ran(&mut world.example("faulty_models", &of("sound,panic,same")));
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("INCOMPLETE") && err.contains("never wanted to be built"), "{out}{err}");
    let gate = &world.json("v.json")["gates"][0];
    assert_eq!((&gate["outcome"]["status"], &gate["device"]["backend"]), (&"incomplete".into(), &"flex".into()));
    let checks = gate["outcome"]["report"]["checks"].as_array().expect("checks");
    assert!(!checks.is_empty() && checks.iter().all(|check| check["variant"] == "sound"), "{checks:?}");
    // What was found to be wrong outranks that something is missing.
    let (code, out, err) = ran(&mut world.example("faulty_models", &of("sound,wrong,panic")));
    assert_eq!(code, 3, "{out}{err}");
}

/// The faulty family with the variants, stopped by Ctrl-C as soon as one hangs.
fn stopped(world: &World, variants: &str) -> Value {
    let text = std::fs::read_to_string(repository("configs/quick.toml")).expect("the quick experiment");
    world.write("faulty.toml", &format!("{text}\n[verify]\nenabled = false\n"));
    let program = Path::new(env!("CARGO_BIN_EXE_burnmark")).parent().expect("a folder").join("examples/faulty_models");
    let mut child = std::process::Command::new(program)
        .args(["--config", "faulty.toml", "--model", "faulty", "--variants", variants, "--output", "r.json"])
        .current_dir(world.folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let start = Instant::now();
    while !world.path("hangs").exists() {
        assert!(start.elapsed() < Duration::from_mins(1), "nothing hangs");
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().expect("a process id"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it is there");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    world.json("r.json")
}

#[test]
fn control_c_keeps_what_is_done() {
    let results = stopped(&World::new(), "sound,hang");
    assert_eq!(results["cells"][0]["outcome"]["status"], "measured");
    assert_eq!(failure(&results, 1).0, "interrupted");
}

#[test]
fn control_c_in_a_later_round_keeps_the_complete_ones() {
    let world = World::new();
    let results = stopped(&world, "sound,hang-later");
    for (cell, least) in [(0, 1..=2), (1, 1..=1)] {
        let cell = &results["cells"][cell];
        assert_eq!(cell["outcome"]["status"], "measured", "{cell}");
        let rounds = cell["rounds"].as_u64().expect("a number");
        assert!(least.contains(&rounds), "{rounds} rounds");
        for workload in ["training", "inference", "generation"] {
            let kept = cell["outcome"]["workloads"][workload]["rounds"].as_array().map(Vec::len);
            assert_eq!(kept, Some(rounds as usize), "{workload}");
        }
    }
    assert!(results["comparison"]["training"]["speedup"].is_number(), "complete rounds are compared");
}

#[test]
fn a_backend_whose_program_is_not_there_is_told_and_the_others_run() {
    let world = World::new();
    let config = repository("configs/quick.toml");
    let arguments =
        ["--config", &config, "--backend", "flex,pytorch:eager", "--workloads", "inference", "--output", "r.json"];
    let (code, out, _) = ran(world.burnmark(&arguments).env("BURNMARK_PYTHON", "no-such-python"));
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("no-such-python"), "{out}");
    let results = world.json("r.json");
    assert!(results["comparison"]["inference"]["speedup"].is_number(), "flex is compared all the same");
    assert_eq!(results["cells"][2]["outcome"]["status"], "failed");
    assert_eq!(results["comparisons"][1]["comparison"]["inference"]["speedup"], Value::Null);
}
