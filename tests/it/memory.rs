use crate::support::{World, ran};

/// Sizes of which another part decides each, and whether every variant is tried at them.
const SIZES: [(&str, bool, &str); 6] = [
    ("scores", false, "vocab_size = 500\nhidden_size = 128\nintermediate_size = 352\nnum_attention_heads = 8|1|1024"),
    ("gates", true, "vocab_size = 100\nhidden_size = 64\nintermediate_size = 4096\nnum_attention_heads = 4|8|128"),
    (
        "hidden states",
        true,
        "vocab_size = 100\nhidden_size = 256\nintermediate_size = 64\nnum_attention_heads = 4|16|256",
    ),
    ("logits", false, "vocab_size = 16000\nhidden_size = 128\nintermediate_size = 352\nnum_attention_heads = 4|2|256"),
    ("weights", false, "vocab_size = 4000\nhidden_size = 512\nintermediate_size = 2048\nnum_attention_heads = 8|1|16"),
    (
        "all of them",
        false,
        "vocab_size = 1000\nhidden_size = 256\nintermediate_size = 688\nnum_attention_heads = 8|2|256",
    ),
];

/// What the matrix library and the thread pool keep for themselves, which is no part of a prediction.
const LIBRARIES_MB_PER_THREAD: f64 = 1.5;

/// Counted bytes: the same on every machine but for the libraries' buffers.
#[test]
fn the_predicted_peak_is_what_is_counted() {
    let world = World::new();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for (decisive, every_variant, sizes) in SIZES {
        let [model, batch, seq] = sizes.split('|').collect::<Vec<_>>().try_into().expect("three parts");
        let text = format!(
            "name = \"memory\"\nrounds = 1\n[model]\n{model}\nnum_key_value_heads = 2\nnum_hidden_layers = 2\n\
             max_position_embeddings = 2048\n[axes]\nladder = {every_variant}\nbatch_sizes = [{batch}]\nseq_lengths = [{seq}]\n\
             [steps]\nwarmup = 1\nbenchmark = 1\n[generation]\nbatch_size = {batch}\nprompt_tokens = {seq}\n\
             new_tokens = 4\nwarmup_iterations = 1\niterations = 1\n[verify]\nenabled = false\n"
        );
        world.write("memory.toml", &text);
        let (code, _, err) =
            ran(&mut world.burnmark(&["--config", "memory.toml", "--backend", "flex", "--output", "r.json"]));
        assert_eq!(code, 0, "{err}");
        let results = world.json("r.json");
        let cells = results["cells"].as_array().expect("cells");
        assert!(cells.len() >= if every_variant { 22 } else { 2 }, "{} cells", cells.len());
        for cell in cells {
            for workload in ["training", "inference", "generation"] {
                let memory = &cell["outcome"]["workloads"][workload]["figures"]["memory"];
                let mb = |name: &str| memory[name].as_f64().expect("a figure");
                let (predicted, measured) = (mb("predicted_peak_mb"), mb("peak_mb") - mb("start_mb"));
                let variant = cell["spec"]["variant"].as_str().expect("a name");
                let share = if ["default", "example"].contains(&variant) { 0.05 } else { 0.12 };
                assert!(
                    (predicted - measured).abs() <= share * measured + LIBRARIES_MB_PER_THREAD * threads as f64,
                    "{decisive}, {}, {workload}: {predicted:.1} MB predicted, {measured:.1} MB measured",
                    cell["id"]
                );
            }
        }
    }
}
