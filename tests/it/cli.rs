use crate::support::{World, ran, repository};

#[test]
fn help_lists_every_flag_and_exit_code() {
    let (code, out, _) = ran(World::new().burnmark(&["--help"]).env("COLUMNS", "100"));
    assert_eq!(code, 0);
    insta::assert_snapshot!(out);
}

#[test]
fn the_plan_of_the_default_experiment() {
    let (code, out, _) = ran(&mut World::new().burnmark(&["plan", "--batch-size", "4", "--workloads", "inference"]));
    assert_eq!(code, 0);
    insta::assert_snapshot!(out);
}

#[test]
fn the_experiment_shown_says_where_values_come_from() {
    let world = World::new();
    world.write("mine.toml", "seed = 3\n");
    let (code, out, _) = ran(&mut world.burnmark(&["config", "show", "--config", "mine.toml", "--batch-size", "4"]));
    assert_eq!(code, 0);
    let line = |start: &str| out.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    assert!(line("seed = 3").ends_with("# mine.toml:1"), "{out}");
    assert!(line("batch_sizes = [4]").ends_with("# --batch-size"), "{out}");
    assert!(line("hidden_size = 512").ends_with("# default"), "{out}");
    let shown = world.write("shown.toml", &out);
    let (code, again, _) = ran(world.burnmark(&["config", "show", "--config"]).arg(shown));
    assert_eq!(code, 0);
    assert!(again.contains("batch_sizes = [4]") && again.contains("shown.toml:"), "{again}");
}

#[test]
fn the_schema_is_json() {
    let (code, out, _) = ran(&mut World::new().burnmark(&["config", "schema"]));
    assert_eq!(code, 0);
    let schema: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(schema["title"], "burnmark experiment");
}

#[test]
fn wrong_input_is_refused_before_anything_runs() {
    let world = World::new();
    world.write("wrong.toml", "[model]\nhiden_size = 4\nnum_attention_heads = \"eight\"\n");
    world.write("file", "");
    let cases: &[(&[&str], &str)] = &[
        (&["--config", "missing.toml"], "there is no such file"),
        (
            &["--config", "wrong.toml"],
            "wrong.toml:2:1: unknown key `model.hiden_size`; did you mean `model.hidden_size`?",
        ),
        (&["--config", "wrong.toml"], "wrong.toml:3:23: `model.num_attention_heads` is the text \"eight\""),
        (&["--batch-size", "0"], "--batch-size: [0] is not allowed"),
        (&["--batch-size", "1000000000000"], "--batch-size: [1000000000000] is not allowed"),
        (&["--batch-size", "many"], "invalid value 'many'"),
        (&["--seq-length", "100000"], "exceed `model.max_position_embeddings` 2048"),
        (&["--compile-mode", "fastest"], "max-autotune"),
        (&["--no-compile", "--compile-mode", "default"], "contradicts"),
        (&["--backend", "cuda"], "cargo run --release --features cuda"),
        (&["--backend", "felx"], "did you mean `flex`?"),
        (&["--backend", "flex:7"], "no device `7`"),
        (&["--variants", "default,exampel"], "did you mean `example`?"),
        (&["--output", "nowhere/results.json"], "does not exist; create it"),
        (&["--output", "."], "is a folder"),
        (&["--output", "file/results.json"], "error:"),
        (&["--benchmark-stesp", "3"], "--benchmark-steps"),
    ];
    for (arguments, expected) in cases {
        let (code, _, err) = ran(&mut world.burnmark(arguments));
        let runs = expected.contains("no device");
        assert_eq!(code, if runs { 3 } else { 2 }, "{arguments:?}: {err}");
        let told = if runs { ran(&mut world.burnmark(arguments)).1 } else { err };
        assert!(told.contains(expected), "{arguments:?}: {told}");
    }
}

#[test]
fn every_shipped_experiment_is_planned_or_says_what_it_needs() {
    let mut planned = 0;
    for entry in std::fs::read_dir(repository("configs")).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let (code, _, err) = ran(World::new().burnmark(&["plan", "--config"]).arg(&path));
            // Some name backends that this program may be built without.
            let lacks = code == 2 && err.contains("is not compiled in") && err.contains("--features");
            assert!(code == 0 || lacks, "{}: {err}", path.display());
            planned += usize::from(code == 0);
        }
    }
    assert!(planned >= 8, "only {planned} experiments are planned");
}
