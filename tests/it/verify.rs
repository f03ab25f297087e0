use std::collections::HashMap;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::support::{World, ran, repository};

fn golden() -> String {
    repository("tests/golden/decoder_small.safetensors")
}

/// The golden file with its metadata and arrays changed.
fn changed(world: &World, name: &str, change: impl Fn(&mut Value), keep: impl Fn(&str) -> bool) -> String {
    let bytes = std::fs::read(golden()).expect("the golden file");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("its header");
    let file = SafeTensors::deserialize(&bytes).expect("its arrays");
    let metadata = header.metadata().clone().expect("its metadata");
    let mut config: Value = serde_json::from_str(&metadata["config"]).expect("its config");
    change(&mut config);
    let metadata = HashMap::from([("config".to_owned(), config.to_string())]);
    let arrays: Vec<(String, TensorView)> = file.tensors().into_iter().filter(|(name, _)| keep(name)).collect();
    let path = world.path(name);
    let text = safetensors::serialize(arrays, Some(metadata)).expect("serialised");
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

#[test]
fn the_golden_numbers_are_reproduced() {
    let world = World::new();
    let (code, out, err) = ran(&mut world.burnmark(&["verify", "--reference", &golden(), "--json", "-o", "v.json"]));
    assert_eq!(code, 0, "{err}");
    let results: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(results, world.json("v.json"));
    assert!(results["environment"]["versions"]["burn"].is_string());
    assert_eq!(results["gates"][0]["device"]["backend"], "flex");
    let outcome = &results["gates"][0]["outcome"];
    assert_eq!(outcome["status"], "passed");
    let checks = outcome["report"]["checks"].as_array().expect("checks");
    // Two variants: logits, loss, 21 gradients, greedy continuation, cached decode.
    assert_eq!(checks.len(), 2 * 25);
    for check in checks {
        let limit = match check["what"].as_str().expect("a name") {
            what if what.starts_with("grad.") => 1e-4,
            "greedy continuation" => 0.0,
            _ => 1e-5,
        };
        assert!(check["error"].as_f64().is_some_and(|error| error <= limit), "{check}");
        assert_eq!(check["tolerance"].as_f64(), Some(limit), "{check}");
    }
    let (code, out, _) = ran(&mut world.burnmark(&["verify", "--reference", &golden(), "--precision", "f64", "-v"]));
    assert!(code == 0 && out.contains("PASS") && out.contains("grad.model.embed_tokens.weight"), "{out}");
}

#[test]
fn variants_are_held_against_each_other_at_any_size() {
    let world = World::new();
    // One key-value head, as many as query heads, sequences of odd lengths, longer than what is decoded one by one.
    for (heads, kv_heads, seq, theta, eps) in
        [(4, 1, 7, 10_000.0, 1e-6), (4, 4, 70, 500_000.0, 1e-3), (6, 3, 33, 100.0, 1e-5)]
    {
        let config = format!(
            "[model]\nvocab_size = 53\nhidden_size = {}\nintermediate_size = 50\nnum_hidden_layers = 3\n\
             num_attention_heads = {heads}\nnum_key_value_heads = {kv_heads}\nmax_position_embeddings = 90\n\
             rope_theta = {theta:?}\nrms_norm_eps = {eps:?}\n[axes]\nbatch_sizes = [3]\nseq_lengths = [{seq}]\n\
             [generation]\nprompt_tokens = 8\nnew_tokens = 8\n",
            heads * 10
        );
        world.write("c.toml", &config);
        for precision in ["f32", "f64"] {
            let (code, out, err) =
                ran(&mut world.burnmark(&["verify", "--config", "c.toml", "--precision", precision]));
            assert_eq!(code, 0, "{config}\n{out}{err}");
        }
    }
}

#[test]
fn every_optimisation_alone_computes_the_same() {
    let world = World::new();
    let names = [
        "fused-weights",
        "linear",
        "vendor-products",
        "rms-norm",
        "folded-norms",
        "rope",
        "swiglu",
        "attention",
        "kv-cache",
        "loss",
        "backward",
        "last-logits",
    ];
    let both = names.iter().flat_map(|name| [format!("example-without-{name}"), format!("default-with-{name}")]);
    let variants = ["default".to_owned()].into_iter().chain(both).collect::<Vec<_>>().join(",");
    let (code, out, err) = ran(&mut world.burnmark(&["verify", "--reference", &golden(), "--variants", &variants]));
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn wrong_numbers_fail() {
    let world = World::new();
    for (key, value) in
        [("rope_theta", json!(9000.0)), ("rms_norm_eps", json!(1e-2)), ("num_key_value_heads", json!(2))]
    {
        let path = changed(&world, "changed.safetensors", |config| config[key] = value.clone(), |_| true);
        let (code, out, err) = ran(&mut world.burnmark(&["verify", "--reference", &path]));
        // Two key-value heads are what the file has: the unchanged file passes.
        let expected = if key == "num_key_value_heads" { 0 } else { 3 };
        assert_eq!(code, expected, "{key}: {out}{err}");
        assert_eq!(out.contains("FAIL"), expected == 3, "{out}");
    }
}

#[test]
fn files_that_cannot_be_used_are_told() {
    let world = World::new();
    let bytes = std::fs::read(golden()).expect("the golden file");
    std::fs::write(world.path("cut.safetensors"), &bytes[..bytes.len() / 2]).expect("written");
    world.write("text.safetensors", "not a tensor in sight");
    let path = |name: &str| world.path(name).display().to_string();
    let cases = [
        (path("none.safetensors"), "cannot read it"),
        (world.folder.path().display().to_string(), "cannot read it"),
        (path("cut.safetensors"), "cut off"),
        (path("text.safetensors"), "not a complete safetensors file"),
        (changed(&world, "a", |_| {}, |name| name != "loss"), "array `loss` is missing"),
        (changed(&world, "b", |_| {}, |name| name != "grad.lm_head.weight"), "`grad.lm_head.weight` is missing"),
        (changed(&world, "c", |config| config["hidden_size"] = json!(32), |_| true), "calls for"),
        (changed(&world, "d", |config| config["num_attention_heads"] = json!(0), |_| true), "does not divide"),
        (changed(&world, "e", |config| config["vocab_size"] = json!("many"), |_| true), "`config` in its metadata"),
        (changed(&world, "f", |config| config["vocab_size"] = json!(10), |_| true), "outside the vocabulary"),
    ];
    for (path, expected) in cases {
        let (code, _, err) = ran(&mut world.burnmark(&["verify", "--reference", &path]));
        assert!(code == 2 && err.contains(expected), "{path}: {code} {err}");
    }
}

#[test]
fn modes_and_backends_are_held_against_the_same_numbers() {
    let world = World::new();
    let quick = std::fs::read_to_string(repository("configs/quick.toml")).expect("the quick experiment");
    let modes = quick.replace("[axes]", "[axes]\nmodes = [\"default\", \"no-compile\"]");
    world.write("modes.toml", &modes);
    let arguments = ["--config", "modes.toml", "--workloads", "inference", "--output", "r.json"];
    let (code, out, err) = ran(&mut world.burnmark(&arguments));
    assert_eq!(code, 0, "{out}{err}");
    let results = world.json("r.json");
    let gates = results["gates"].as_array().expect("gates");
    assert_eq!(gates.len(), 2);
    // The second gate's first variant is checked as well, against what the first gate's computed.
    assert_eq!(gates[0]["spec"]["export"], gates[1]["spec"]["reference"]);
    let against = |gate: &Value| gate["outcome"]["report"]["checks"][0]["against"].clone();
    assert_eq!(against(&gates[1]), "reference");
    assert_eq!(results["comparisons"].as_array().map(Vec::len), Some(4));
    for pair in results["comparisons"].as_array().expect("pairs") {
        assert!(pair["comparison"]["inference"]["speedup"].is_number(), "{pair}");
    }
}
