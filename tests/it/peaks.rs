use serde_json::Value;

use crate::support::{World, ran, repository};

#[test]
fn peaks_are_measured_once_and_kept_for_every_verb() {
    let world = World::new();
    let burnmark = |arguments: &[&str]| {
        let (code, out, err) = ran(world.burnmark(arguments).env("BURNMARK_PEAKS_CACHE", world.path("kept")));
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}: {out}");
        out
    };
    let quick = repository("configs/quick.toml");
    burnmark(&["ops", "--backend", "flex", "--config", &quick, "--ops", "rope", "--output", "ops.json", "--quiet"]);
    let measured = world.json("ops.json")["peaks"][0].clone();
    assert!(measured["flops"]["value"].as_f64() > Some(0.0), "{measured}");

    let base = ["peaks", "--backend", "flex", "--output", "peaks.json"];
    let shown = burnmark(&base);
    let kept = world.json("peaks.json")["records"][0].clone();
    assert_eq!(kept["peaks"], measured);
    let file = kept["file"].as_str().expect("a path");
    assert!(file.starts_with(&*world.path("kept").to_string_lossy()) && file.contains("flex"), "{file}");
    for part in [file, measured["timestamp"].as_str().expect("a time"), "square matrices", "f32"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    let anew: Value =
        serde_json::from_str(&burnmark(&["peaks", "--backend", "flex", "--refresh", "--json"])).expect("JSON");
    assert_ne!(anew["records"][0]["peaks"]["timestamp"], measured["timestamp"]);
    burnmark(&base);
    assert_eq!(world.json("peaks.json")["records"], anew["records"]);
}

#[test]
fn a_device_without_peaks_says_why() {
    let (code, out, err) = ran(&mut World::new().burnmark(&["peaks", "--backend", "flex:7"]));
    assert!(code == 1 && err.contains("no device `7`") && out.contains("n/a"), "{code}: {out}{err}");
}
