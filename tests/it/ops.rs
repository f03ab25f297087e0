use serde_json::Value;

use crate::support::{World, ran, repository};

#[test]
fn operations_are_measured_beside_their_references_and_agree() {
    let world = World::new();
    let quick = repository("configs/quick.toml");
    let base = ["ops", "--backend", "flex", "--config", &quick, "--benchmark-steps", "2"];
    let (code, out, err) = ran(&mut world.burnmark(&[&base[..], &["--output", "ops.json"]].concat()));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for part in ["rms-norm, forward + backward", "decode, forward", "cross-entropy, forward", "peaks:"] {
        assert!(out.contains(part), "{out}");
    }
    let results = world.json("ops.json");
    let observations = results["records"][0]["observations"].as_array().expect("observations");
    // Seven operations, six of them with gradients.
    assert_eq!(observations.len(), 13);
    for observation in observations {
        let error = observation["error"].as_f64().expect("a number");
        assert!(error <= observation["tolerance"].as_f64().expect("a number"), "{observation}");
        for side in ["reference", "fused"] {
            assert_eq!(observation[side]["samples_ns"].as_array().map(Vec::len), Some(2), "{observation}");
            assert!(observation[side]["memory"]["bytes"].is_u64(), "{observation}");
        }
    }
    assert!(results["records"][0]["peaks"]["flops_per_s"].as_f64() > Some(0.0));
    assert!(results["environment"]["versions"]["burn"].is_string());
}

#[test]
fn some_operations_can_be_chosen_and_wrong_names_are_told() {
    let world = World::new();
    let quick = repository("configs/quick.toml");
    let with = |names: &str| {
        let arguments = ["ops", "--backend", "flex", "--config", &quick, "--ops", names, "--json"];
        ran(&mut world.burnmark(&arguments))
    };
    let (code, out, _) = with("decode,rope");
    assert_eq!(code, 0);
    let results: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(results["records"][0]["observations"].as_array().map(Vec::len), Some(3));
    let (code, _, err) = with("rop");
    assert!(code == 2 && err.contains("rope"), "{err}");
    let (code, _, err) = ran(&mut world.burnmark(&["ops", "--backend", "flex", "--output", "no/such/folder.json"]));
    assert!(code != 0 && err.contains("no/such"), "{err}");
}
