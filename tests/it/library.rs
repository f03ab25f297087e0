use crate::support::{World, ran};

#[test]
fn a_model_of_ones_own_is_measured_like_the_built_in_one() {
    let world = World::new();
    let arguments = [
        "--model",
        "bigram",
        "--variants",
        "plain,fused",
        "--batch-size",
        "1",
        "--seq-length",
        "16",
        "--warmup-steps",
        "1",
        "--benchmark-steps",
        "3",
        "--output",
        "own.json",
        "--workloads",
        "training,inference",
    ];
    let (code, out, err) = ran(&mut world.example("own_model", &arguments));
    assert_eq!(code, 0, "{out}{err}");
    let results = world.json("own.json");
    assert_eq!(results["comparison"]["verified"], true);
    assert!(results["comparison"]["inference"]["speedup"].is_number());
    let (code, out, _) = ran(&mut world.example("own_model", &["plan", "--model", "bigram", "--variants", "plain"]));
    assert!(code == 0 && out.contains("flex/plain/"), "{out}");
}
