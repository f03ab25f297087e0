use serde_json::Value;

use crate::support::{World, ran, repository};

/// A quick run of the decoder, each step this many per cent longer.
fn measured(world: &World, slowed_percent: &str, output: &str) {
    let quick = repository("configs/quick.toml");
    let arguments =
        ["--config", &quick, "--rounds", "6", "--variants", "example", "--workloads", "inference", "--output", output];
    let (code, _, err) = ran(world.example("slowed", &arguments).env("BURNMARK_SLOWED_PERCENT", slowed_percent));
    assert_eq!(code, 0, "{err}");
}

/// The results in `from` as if each inference step had taken some `ns`, so that no other load on the machine decides.
fn as_if(world: &World, from: &str, ns: u64, to: &str) {
    let mut results = json(&std::fs::read_to_string(world.path(from)).expect("read"));
    let inference = &mut results["cells"][0]["outcome"]["workloads"]["inference"];
    let mut all = Vec::new();
    for (round, it) in inference["rounds"].as_array_mut().expect("rounds").iter_mut().enumerate() {
        for (step, sample) in it["samples_ns"].as_array_mut().expect("samples").iter_mut().enumerate() {
            let time = ns + ns / 1000 * ((round * 7 + step * 3) % 20) as u64;
            all.push(time as f64 / 1e6);
            *sample = time.into();
        }
    }
    inference["figures"]["wall_clock_time"]["mean_ms"] = (all.iter().sum::<f64>() / all.len() as f64).into();
    world.write(to, &results.to_string());
}

#[test]
fn a_slowed_run_breaks_the_rule_and_a_run_against_itself_does_not() {
    let world = World::new();
    measured(&world, "0", "measured.json");
    as_if(&world, "measured.json", 1_000_000, "before.json");
    as_if(&world, "measured.json", 1_100_000, "after.json");
    let rule = ["--fail-on", "inference>3%"];
    let compare = |other: &str| ran(&mut world.burnmark(&[&["compare", "before.json", other], &rule[..]].concat()));
    let (code, out, err) = compare("after.json");
    assert_eq!(code, 4, "{out}{err}");
    assert!(out.contains("slower") && err.contains("regression: ") && err.contains("inference"), "{out}{err}");
    let (code, out, err) = compare("before.json");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("no difference shown") && out.contains("same environment"), "{out}");
}

#[test]
fn what_cannot_be_compared_says_why() {
    let world = World::new();
    measured(&world, "0", "a.json");
    world.write("broken.json", "{");
    let cases: [(&[&str], &str); 4] = [
        (&["a.json", "missing.json"], "does not exist"),
        (&["a.json", "broken.json"], "cut off"),
        (&["a.json", "a.json", "--fail-on", "speed>3%"], "training>3%"),
        (&["a.json", "a.json", "--fail-on", "training>3%"], "no compared cell has that figure"),
    ];
    for (arguments, reason) in cases {
        let (code, _, err) = ran(&mut world.burnmark(&[&["compare"], arguments].concat()));
        assert_eq!(code, 2, "{arguments:?}: {err}");
        assert!(err.contains(reason), "{arguments:?}: {err}");
    }
}

#[test]
fn a_results_file_becomes_a_report() {
    let world = World::new();
    measured(&world, "0", "a.json");
    for (format, part) in
        [("console", "Inference Performance"), ("markdown", "## Times"), ("csv", "mean_ms"), ("html", "<svg")]
    {
        let (code, out, err) = ran(&mut world.burnmark(&["report", "a.json", "--format", format]));
        assert_eq!((code, err.as_str()), (0, ""), "{format}");
        assert!(out.contains(part), "{format}: {out}");
    }
    let (code, out, _) = ran(&mut world.burnmark(&["report", "a.json", "--format", "html", "--output", "a.html"]));
    assert_eq!((code, out.as_str()), (0, ""));
    assert!(std::fs::read_to_string(world.path("a.html")).is_ok_and(|page| page.ends_with("</html>\n")));
    let (code, _, err) = ran(&mut world.burnmark(&["report", "a.json", "--output", "no/such/folder/a.html"]));
    assert_eq!(code, 2);
    assert!(err.contains("choose another path"), "{err}");
}

#[test]
fn shells_and_man_know_the_commands() {
    let world = World::new();
    for (arguments, part) in [(&["completions", "bash"][..], "peaks"), (&["man"][..], "burnmark\\-peaks")] {
        let (code, out, _) = ran(&mut world.burnmark(arguments));
        assert_eq!(code, 0);
        assert!(out.contains(part), "{arguments:?}");
    }
}

#[test]
fn runs_are_kept_and_drawn() {
    let world = World::new();
    measured(&world, "0", "a.json");
    let history =
        |arguments: &[&str]| ran(&mut world.burnmark(&[&["history", "--database", "history.db"], arguments].concat()));
    assert_eq!(history(&["add", "a.json"]), (0, "a.json: kept\n".to_owned(), String::new()));
    assert_eq!(history(&["add", "a.json"]).1, "a.json: was kept before\n");
    let (code, out, _) = history(&["show", "--metric", "inference", "--cell", "example"]);
    assert_eq!(code, 0);
    assert!(out.contains("flex/example") && out.contains('█'), "{out}");
    let (code, _, err) = history(&["add", "missing.json"]);
    assert!(code == 2 && err.contains("does not exist"), "{err}");
}

#[test]
fn every_committed_results_file_is_read_and_lifted() {
    let mut lifted = 0;
    for entry in std::fs::read_dir(repository("docs/results")).expect("the results") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("read");
        if path.extension().is_none_or(|extension| extension != "json") || !text.contains("\"cells\":") {
            continue;
        }
        let (code, out, err) = ran(World::new().burnmark(&["report", "--format", "json"]).arg(&path));
        assert_eq!(code, 0, "{}: {err}", path.display());
        let (old, new): (Value, Value) = (json(&text), json(&out));
        assert_eq!(new["schema_version"], 2);
        if old["schema_version"] == 2 {
            // Figures may have become more since, and reasons why one is missing; what was measured stays.
            for (old, new) in cells(&old).zip(cells(&new)) {
                let (old, new) = (&old["outcome"]["workloads"], &new["outcome"]["workloads"]);
                for workload in ["training", "inference", "generation"] {
                    let rounds = |of: &Value| of[workload]["rounds"].as_array().cloned().unwrap_or_default();
                    let (old, new) = (rounds(old), rounds(new));
                    assert_eq!(old.len(), new.len(), "{}: {workload}", path.display());
                    for (old, new) in old.iter().zip(&new) {
                        let mut measured = old.as_object().expect("a round").iter();
                        assert!(measured.all(|(name, value)| new[name] == *value), "{}: {workload}", path.display());
                    }
                }
            }
            continue;
        }
        for (old, new) in cells(&old).zip(cells(&new)) {
            let (old, new) = (&old["outcome"]["workloads"], &new["outcome"]["workloads"]);
            for workload in ["training", "inference", "generation"] {
                let first = &old[workload]["observation"]["samples_ns"];
                assert_eq!(&new[workload]["rounds"][0]["samples_ns"], first, "{}", path.display());
                lifted += usize::from(!first.is_null());
            }
        }
    }
    assert!(lifted > 100, "only {lifted} workloads");
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("it is JSON")
}

fn cells(results: &Value) -> impl Iterator<Item = &Value> {
    results["cells"].as_array().expect("cells").iter()
}
