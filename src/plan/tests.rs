use super::*;
use crate::config::{Flags, load};
use crate::model::Registry;

fn available() -> Available {
    Available {
        backends: vec!["flex".to_owned()],
        external: vec!["pytorch".to_owned()],
        tf32: Vec::new(),
        mixed: Vec::new(),
        tuned: Vec::new(),
        families: Registry::default().families(),
    }
}

fn default_with(change: impl FnOnce(&mut Experiment)) -> Result<Plan, PlanError> {
    let mut experiment = Experiment::default();
    change(&mut experiment);
    plan(&experiment, &available())
}

#[test]
fn the_default_experiment_is_one_comparison() {
    let plan = default_with(|_| {}).expect("it plans");
    assert_eq!((plan.cells.len(), plan.gates.len()), (2, 1));
    assert_eq!(plan.pairs, [Pair { baseline: 0, candidate: 1 }]);
    insta::assert_snapshot!(plan.describe(), @r"
    cell                             parameters  training       inference      generation
    flex/default/default/f32/b2s512  12.10 M     10 + 50 steps  10 + 50 steps  3 + 20 x (128 -> 128 tokens)
    flex/example/default/f32/b2s512  12.10 M     10 + 50 steps  10 + 50 steps  3 + 20 x (128 -> 128 tokens)

    2 cells, 1 comparisons, 1 verifications before them; nothing was run
    ");
}

#[test]
fn axes_multiply_and_exclusions_take_away() {
    let plan = default_with(|experiment| {
        experiment.axes.batch_sizes = vec![1, 2, 4];
        experiment.axes.seq_lengths = vec![64, 128];
        experiment.exclude =
            vec![crate::config::Exclude { batch_size: Some(4), seq_length: Some(128), ..Default::default() }];
    });
    let plan = plan.expect("it plans");
    assert_eq!((plan.cells.len(), plan.pairs.len(), plan.gates.len()), (10, 5, 1));
    assert_eq!((plan.gates[0].batch_size, plan.gates[0].seq_length), (1, 64));
    for pair in &plan.pairs {
        let (baseline, candidate) = (&plan.cells[pair.baseline], &plan.cells[pair.candidate]);
        assert_eq!((baseline.batch_size, baseline.seq_length), (candidate.batch_size, candidate.seq_length));
        assert_eq!((baseline.variant.as_str(), candidate.variant.as_str()), ("default", "example"));
    }
}

#[test]
fn a_ladder_adds_each_optimisation_alone_and_leaves_each_out_alone() {
    let plan = default_with(|experiment| experiment.axes.ladder = true).expect("it plans");
    let variants: Vec<&str> = plan.cells.iter().map(|cell| cell.variant.as_str()).collect();
    assert_eq!(variants[..2], ["default", "example"]);
    assert_eq!(variants.len(), 2 + 2 * crate::model::Optimization::ALL.len());
    assert!(variants.contains(&"default-with-rope") && variants.contains(&"example-without-rope"));
    assert_eq!(plan.gates[0].variants, variants, "every step of it is verified");
    let only = default_with(|experiment| {
        experiment.axes.ladder = true;
        experiment.axes.variants = vec!["example".to_owned()];
    });
    assert!(only.expect("it plans").cells.iter().all(|cell| cell.variant.starts_with("example")));
}

#[test]
fn cell_ids_are_distinct_and_stable() {
    let ids = |change: fn(&mut Experiment)| -> Vec<String> {
        default_with(change).expect("it plans").cells.iter().map(CellSpec::id).collect()
    };
    let usual = ids(|_| {});
    assert_eq!(usual, ids(|_| {}));
    assert_ne!(usual[0], usual[1]);
    assert_ne!(usual[0], ids(|experiment| experiment.seed = 1)[0]);
}

#[test]
fn stopping_reaches_every_cell() {
    let mut experiment = Experiment::default();
    let fixed = plan(&experiment, &available()).expect("it plans").cells.remove(0);
    experiment.stopping.half_width_percent = Some(1.0);
    let cell = plan(&experiment, &available()).expect("it plans").cells.remove(0);
    assert_eq!(cell.stopping.half_width_percent, Some(1.0));
    assert_ne!(cell.id(), fixed.id());
}

#[test]
fn taking_samples_again_is_usual_and_leaves_the_ids_of_earlier_results() {
    let usual = default_with(|_| {}).expect("it plans").cells.remove(0);
    let once = default_with(|experiment| experiment.steps.redo_disturbed = false).expect("it plans").cells.remove(0);
    assert!(usual.redo_disturbed && !once.redo_disturbed);
    assert_ne!(usual.id(), once.id());
    let text = |cell: &CellSpec| serde_json::to_string(cell).expect("it serialises");
    assert!(!text(&usual).contains("redo_disturbed"));
    for cell in [usual, once] {
        assert_eq!(serde_json::from_str::<CellSpec>(&text(&cell)).expect("it was just written"), cell);
    }
}

#[test]
fn what_this_program_lacks_is_told_with_the_remedy() {
    let told = |change: fn(&mut Experiment)| default_with(change).expect_err("it cannot be planned").to_string();
    insta::assert_snapshot!(
        told(|experiment| experiment.axes.backends = vec!["cuda:0".to_owned()]),
        @"backend `cuda` is not compiled in; this program has: flex. Build it with `cargo run --release --features cuda`"
    );
    insta::assert_snapshot!(
        told(|experiment| experiment.axes.backends = vec!["felx".to_owned()]),
        @"there is no backend `felx`; did you mean `flex`?; this program has: flex"
    );
    assert!(
        told(|experiment| experiment.axes.variants = vec!["exampel".to_owned()]).contains("did you mean `example`?")
    );
    assert!(told(|experiment| experiment.model.family = "decodr".to_owned()).contains("did you mean `decoder`?"));
    let useless = |experiment: &mut Experiment| {
        experiment.exclude = vec![crate::config::Exclude { batch_size: Some(99), ..Default::default() }];
    };
    insta::assert_snapshot!(told(useless), @r#"[[exclude]] entry 1 ({"batch_size":99}) matches no cell; check its values against the axes"#);
    let all = |experiment: &mut Experiment| {
        experiment.exclude = vec![crate::config::Exclude { batch_size: Some(2), ..Default::default() }];
    };
    assert_eq!(default_with(all).expect_err("nothing is left"), PlanError::Empty);
    let nothing = Available { backends: Vec::new(), ..available() };
    assert_eq!(plan(&Experiment::default(), &nothing).expect_err("no backend"), PlanError::NoBackend);
}

#[test]
fn every_shipped_experiment_plans() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/configs");
    let files = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let experiments: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    assert!(experiments.len() >= 6, "{experiments:?}");
    // An experiment may name backends that this program was built without.
    let backends = KNOWN_BACKENDS.iter().map(|&name| name.to_owned()).collect();
    let everything = Available { backends, ..available() };
    for path in experiments {
        let resolved = load(Some(&path), &Flags::default()).unwrap_or_else(|error| panic!("{error}"));
        plan(&resolved.experiment, &everything).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!resolved.experiment.description.is_empty(), "{} says no question", path.display());
    }
}

#[test]
fn the_shipped_default_is_what_runs_without_a_file() {
    let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/configs/default.toml"));
    let shipped = load(Some(path), &Flags::default()).expect("it loads").experiment;
    assert_eq!(Experiment { description: String::new(), ..shipped }, Experiment::default());
}
