use std::path::Path;

use proptest::prelude::*;

use super::file::parse;
use super::resolve::resolve;
use super::*;

fn from(text: &str, flags: &Flags) -> Result<Resolved, ConfigError> {
    let (entries, faults) = parse("x.toml", text);
    resolve("x.toml", entries, faults, flags)
}

fn faults(text: &str) -> String {
    from(text, &Flags::default()).expect_err("the file is wrong").to_string()
}

#[test]
fn an_empty_file_is_the_default_experiment() {
    let resolved = from("", &Flags::default()).expect("nothing is wrong");
    assert_eq!(resolved.experiment, Experiment::default());
    assert!(resolved.origins.is_empty());
}

#[test]
fn later_layers_win_and_are_remembered() {
    let text = "seed = 7\n[axes]\nbatch_sizes = [1, 4]\nseq_lengths = [64]\n";
    let flags = Flags { seq_length: Some(128), no_compile: true, ..Flags::default() };
    let resolved = from(text, &flags).expect("nothing is wrong");
    let axes = &resolved.experiment.axes;
    assert_eq!((resolved.experiment.seed, &axes.batch_sizes[..], &axes.seq_lengths[..]), (7, &[1, 4][..], &[128][..]));
    assert_eq!(axes.modes, [crate::spec::Mode::NoCompile]);
    assert_eq!(resolved.origins["seed"], "x.toml:1");
    assert_eq!(resolved.origins["axes.seq_lengths"], "--seq-length");
    assert_eq!(resolved.origins["axes.modes"], "--no-compile");
}

#[test]
fn every_fault_of_a_file_is_told_with_its_place() {
    let text = r#"
sede = 1
[model]
hidden_size = "wide"
num_attention_heads = 0
vocab_sise = 5
[axes]
modes = ["defualt"]
batch_sizes = [2, 2]
precisions = ["f16"]
[steps]
benchmark = 1000000000000
[verify]
logits_tolerance = -1.0
[[exclude]]
batch = 3
"#;
    insta::assert_snapshot!(faults(text), @r#"
    x.toml:2:1: unknown key `sede`; did you mean `seed`?
    x.toml:4:15: `model.hidden_size` is the text "wide"; allowed is a whole number from 1 to 1000000
    x.toml:5:23: `model.num_attention_heads` is 0; allowed is a whole number from 1 to 1000
    x.toml:6:1: unknown key `model.vocab_sise`; did you mean `model.vocab_size`?
    x.toml:8:9: `axes.modes` is the list ["defualt"]; allowed is a list of one or more of: one of "no-compile", "default", "reduce-overhead", "max-autotune"; did you mean "default"?
    x.toml:9:15: `axes.batch_sizes` is the list [2,2] (2 stands twice); allowed is a list of one or more of: a whole number from 1 to 1000000
    x.toml:10:14: `axes.precisions` is the list ["f16"]; allowed is a list of: one of "f32", "f64", "bf16", "mixed"; did you mean "bf16"?
    x.toml:12:13: `steps.benchmark` is 1000000000000; allowed is a whole number from 1 to 1000000
    x.toml:14:20: `verify.logits_tolerance` is -1.0; allowed is a number above 0 and up to 1
    x.toml:16:1: unknown key `batch`; did you mean `batch_size`?
    "#);
}

#[test]
fn values_that_do_not_fit_together_are_told() {
    let text =
        "[model]\nhidden_size = 100\nnum_attention_heads = 8\nnum_key_value_heads = 3\nmax_position_embeddings = 200\n";
    insta::assert_snapshot!(faults(text), @r"
    x.toml:3:23: `model.hidden_size` 100 does not divide into `model.num_attention_heads` 8; make it a multiple
    x.toml:4:23: `model.num_attention_heads` 8 does not divide into `model.num_key_value_heads` 3; query heads share key-value heads evenly
    x.toml:5:27: sequences of 512 tokens exceed `model.max_position_embeddings` 200; shorten them or raise it
    x.toml:5:27: 128 prompt tokens and 128 new ones exceed `model.max_position_embeddings` 200; shorten them or raise it
    ");
    insta::assert_snapshot!(faults("[model]\nhidden_size = 24\n"), @"x.toml:2:15: heads of 3 features are odd; rotary embedding pairs them up, make `model.hidden_size` a multiple of 16");
    insta::assert_snapshot!(
        faults("[training]\nenabled = false\n[inference]\nenabled = false\n[generation]\nenabled = false\n"),
        @"x.toml:2:11: training, inference and generation are all disabled; enable at least one"
    );
    let huge = "[model]\nmax_position_embeddings = 1000000\n[axes]\nbatch_sizes = [1000000]\nseq_lengths = [1000000]\n";
    assert!(faults(huge).contains("make batch, sequence or model smaller"), "{}", faults(huge));
}

#[test]
fn broken_toml_is_told_with_its_place() {
    assert!(faults("[model\n").starts_with("x.toml:1:"), "{}", faults("[model\n"));
    insta::assert_snapshot!(faults("model = 3\n"), @"x.toml:1:1: `model` is 3; allowed is a section `[model]`");
}

#[test]
fn faults_of_flags_name_the_flag() {
    let flags = Flags { batch_size: Some(0), ..Flags::default() };
    let error = from("", &flags).expect_err("zero sequences").to_string();
    insta::assert_snapshot!(error, @"--batch-size: [0] is not allowed; allowed is a list of one or more of: a whole number from 1 to 1000000");
    let flags = Flags { seq_length: Some(4096), ..Flags::default() };
    let error = from("", &flags).expect_err("too long").to_string();
    assert!(error.starts_with("--seq-length: sequences of 4096 tokens exceed"), "{error}");
    let flags = Flags { no_compile: true, compile_mode: Some(crate::spec::Mode::MaxAutotune), ..Flags::default() };
    let error = from("", &flags).expect_err("contradiction").to_string();
    insta::assert_snapshot!(error, @"--no-compile: contradicts `--compile-mode max-autotune`; give one of the two");
}

#[test]
fn unreadable_files_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let told = |path: &Path| load(Some(path), &Flags::default()).expect_err("unreadable").to_string();
    assert!(told(&folder.path().join("no.toml")).contains("there is no such file"));
    assert!(told(folder.path()).contains("it is a folder"));
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, [b'a', 0xff]).expect("written");
    assert!(told(&binary).contains("not UTF-8"));
}

#[test]
fn what_is_shown_can_be_read_back() {
    let text = "description = \"a \\\"quoted\\\" # word\"\n[limits]\nmemory_mb = 9\n[model]\nrms_norm_eps = 1e-6\n[[exclude]]\nbatch_size = 2\nmode = \"default\"\n";
    let resolved = from(text, &Flags { seed: Some(1), ..Flags::default() }).expect("nothing is wrong");
    let shown = show(&resolved);
    assert!(shown.contains("# x.toml:3") && shown.contains("# --seed") && shown.contains("# default"), "{shown}");
    assert_eq!(from(&shown, &Flags::default()).expect("valid").experiment, resolved.experiment);
}

#[test]
fn the_schema_knows_every_key() {
    let schema = schema();
    assert_eq!(schema["properties"]["model"]["properties"]["hidden_size"]["default"], 512);
    assert_eq!(schema["properties"]["axes"]["properties"]["modes"]["items"]["enum"][0], "no-compile");
    let tree = serde_json::to_value(Experiment::default()).expect("serialises");
    for (section, value) in tree.as_object().expect("an object") {
        let names: Vec<&String> = value.as_object().map(|table| table.keys().collect()).unwrap_or_default();
        let known = &schema["properties"][section];
        assert!(known.is_object(), "{section}");
        for name in names {
            assert!(known["properties"][name].is_object(), "{section}.{name}");
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,80}") {
        let _ = from(&text, &Flags::default());
    }

    #[test]
    fn whole_numbers_are_accepted_within_bounds_alone(value in any::<i64>()) {
        let result = from(&format!("[model]\nvocab_size = {value}\n"), &Flags::default());
        prop_assert_eq!(result.is_ok(), (2..=1_000_000).contains(&value));
    }
}
