//! What no single key can say: how values must fit together.

use super::Experiment;

/// Most elements a tensor of a step may have: 2^40, four terabytes in single precision. Beyond it a number was mistyped.
const MOST_ELEMENTS: u128 = 1 << 40;

/// Every contradiction, with the keys that are part of it.
pub(super) fn faults(experiment: &Experiment) -> Vec<(Vec<&'static str>, String)> {
    let mut faults = Vec::new();
    let mut require = |holds: bool, keys: &[&'static str], message: String| {
        if !holds {
            faults.push((keys.to_vec(), message));
        }
    };
    let (model, axes, generation) = (&experiment.model, &experiment.axes, &experiment.generation);

    let (hidden, heads, kv_heads) = (model.hidden_size, model.num_attention_heads, model.num_key_value_heads);
    let head_keys = ["model.num_attention_heads", "model.hidden_size"];
    require(
        hidden.is_multiple_of(heads),
        &head_keys,
        format!(
            "`model.hidden_size` {hidden} does not divide into `model.num_attention_heads` {heads}; make it a multiple"
        ),
    );
    require(
        !hidden.is_multiple_of(heads) || (hidden / heads).is_multiple_of(2),
        &head_keys,
        format!(
            "heads of {} features are odd; rotary embedding pairs them up, make `model.hidden_size` a multiple of {}",
            hidden / heads,
            2 * heads
        ),
    );
    require(
        heads.is_multiple_of(kv_heads),
        &["model.num_key_value_heads", "model.num_attention_heads"],
        format!(
            "`model.num_attention_heads` {heads} does not divide into `model.num_key_value_heads` {kv_heads}; query heads share key-value heads evenly"
        ),
    );
    let positions = model.max_position_embeddings;
    if let Some(longest) = axes.seq_lengths.iter().max() {
        require(
            *longest <= positions,
            &["axes.seq_lengths", "model.max_position_embeddings"],
            format!(
                "sequences of {longest} tokens exceed `model.max_position_embeddings` {positions}; shorten them or raise it"
            ),
        );
    }
    let generated = generation.prompt_tokens + generation.new_tokens;
    require(
        !generation.enabled || generated <= positions,
        &["generation.new_tokens", "generation.prompt_tokens", "model.max_position_embeddings"],
        format!(
            "{} prompt tokens and {} new ones exceed `model.max_position_embeddings` {positions}; shorten them or raise it",
            generation.prompt_tokens, generation.new_tokens
        ),
    );
    require(
        experiment.training.enabled || experiment.inference.enabled || generation.enabled,
        &["training.enabled", "inference.enabled", "generation.enabled"],
        "training, inference and generation are all disabled; enable at least one".to_owned(),
    );
    let widest = (2 * model.intermediate_size).max(model.vocab_size).max(2 * hidden) as u128;
    let largest = |values: &[usize]| values.iter().max().copied().unwrap_or(1) as u128;
    let step = largest(&axes.batch_sizes) * largest(&axes.seq_lengths) * widest;
    require(
        step <= MOST_ELEMENTS,
        &["axes.batch_sizes", "axes.seq_lengths", "model.vocab_size", "model.intermediate_size", "model.hidden_size"],
        format!(
            "a step would hold a tensor of {step} elements, more than the {MOST_ELEMENTS} that any machine here takes; make batch, sequence or model smaller"
        ),
    );
    let weights = model.sizes().parameter_count() as u128;
    require(
        weights <= MOST_ELEMENTS,
        &["model.num_hidden_layers", "model.hidden_size", "model.intermediate_size", "model.vocab_size"],
        format!("the model would have {weights} parameters, more than {MOST_ELEMENTS}; make it smaller"),
    );
    require(!experiment.output.as_os_str().is_empty(), &["output"], "`output` is empty; name a file".to_owned());
    faults
}
