//! The one table of keys an experiment file may hold: what each means and may be. Validation, suggestions, the schema
//! and `config show` all read it.

use serde_json::{Value, json};

/// What a key may hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// True or false.
    Switch,
    /// A whole number within bounds.
    Whole(u64, u64),
    /// A number above the first bound and up to the second.
    Real(f64, f64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of different values, with at least so many of them.
    List(&'static Kind, usize),
}

/// One key.
pub(super) struct Key {
    /// Dotted path.
    pub path: &'static str,
    pub kind: Kind,
    /// Whether it may be absent from the effective experiment.
    pub optional: bool,
    pub meaning: &'static str,
}

pub(super) const MODES: &[&str] = &["no-compile", "default", "reduce-overhead", "max-autotune"];
pub(super) const TUNING_CACHES: &[&str] = &["kept", "cold", "warm", "off"];
pub(super) const PRECISIONS: &[&str] = &["f32", "f64", "bf16", "mixed"];

/// Largest value of any size: a million. Their products are checked apart.
const SIZE: Kind = Kind::Whole(1, 1_000_000);
const COUNT: Kind = Kind::Whole(0, 1_000_000);
const NAME: Kind = Kind::Text;
const TUNING_CACHE: Kind = Kind::Word(TUNING_CACHES);
const MODE: Kind = Kind::Word(MODES);
const PRECISION: Kind = Kind::Word(PRECISIONS);

const fn key(path: &'static str, kind: Kind, meaning: &'static str) -> Key {
    Key { path, kind, optional: false, meaning }
}

const fn optional(path: &'static str, kind: Kind, meaning: &'static str) -> Key {
    Key { path, kind, optional: true, meaning }
}

/// Every key, in the order they are shown.
pub(super) const KEYS: &[Key] = &[
    key("name", Kind::Text, "Name, for reports."),
    key("description", Kind::Text, "The question the experiment answers."),
    key("seed", Kind::Whole(0, i64::MAX as u64), "Seed of weights and token ids."),
    key("output", Kind::Text, "Results file; relative to the working folder."),
    key(
        "rounds",
        Kind::Whole(1, 1000),
        "Processes each cell is measured in, the other cells between; from two on ratios have intervals.",
    ),
    key("model.family", Kind::Text, "Model family in the registry."),
    key("model.vocab_size", Kind::Whole(2, 1_000_000), "Number of token ids."),
    key("model.hidden_size", SIZE, "Width of the residual stream; a multiple of twice num_attention_heads."),
    key("model.intermediate_size", SIZE, "Width of the gated feed-forward block."),
    key("model.num_hidden_layers", Kind::Whole(1, 1000), "Number of decoder layers."),
    key("model.num_attention_heads", Kind::Whole(1, 1000), "Number of query heads."),
    key("model.num_key_value_heads", Kind::Whole(1, 1000), "Number of key-value heads; divides num_attention_heads."),
    key("model.max_position_embeddings", SIZE, "Longest sequence, prompt and generated tokens together."),
    key("model.rope_theta", Kind::Real(1.0, 1e12), "Base of the rotary frequencies."),
    key("model.rms_norm_eps", Kind::Real(0.0, 1.0), "Added to the mean square inside RMSNorm."),
    key("axes.backends", Kind::List(&NAME, 0), "Backends and devices, such as flex; empty for the best compiled in."),
    key("axes.variants", Kind::List(&NAME, 1), "Variants of the family; the first is the baseline."),
    key(
        "axes.ladder",
        Kind::Switch,
        "Whether each optimisation is also added alone to the variants (X-with-Y) and left out alone (X-without-Y).",
    ),
    key("axes.modes", Kind::List(&MODE, 1), "Execution modes."),
    key(
        "axes.tuning_caches",
        Kind::List(&TUNING_CACHE, 1),
        "What a process finds of earlier tuning: kept from run to run, cold, warm, off.",
    ),
    key(
        "axes.precisions",
        Kind::List(&PRECISION, 0),
        "Element types of weights and activations; empty for mixed if the first backend is cuda, else f32.",
    ),
    key("axes.batch_sizes", Kind::List(&SIZE, 1), "Sequences per training and inference step."),
    key(
        "axes.seq_lengths",
        Kind::List(&Kind::Whole(2, 1_000_000), 1),
        "Tokens per sequence of a training and inference step.",
    ),
    key("tuning.cold_repeats", Kind::Whole(1, 1000), "Fresh caches a cold cell is repeated in."),
    key("steps.warmup", COUNT, "Steps of training and inference before the first sample."),
    key("steps.benchmark", SIZE, "Samples of training and inference."),
    key(
        "steps.redo_disturbed",
        Kind::Switch,
        "Whether samples that other load, heat or a lowered clock disturbed are taken again.",
    ),
    optional(
        "stopping.half_width_percent",
        Kind::Real(0.0, 100.0),
        "Half of the 95 % interval of a workload's mean, in percent of it, at which a round's samples are enough.",
    ),
    optional(
        "stopping.max_seconds",
        Kind::Real(0.0, 31_536_000.0),
        "Seconds after which a round takes no more samples of a workload.",
    ),
    key("training.enabled", Kind::Switch, "Whether training is measured."),
    key("training.optimizer", Kind::Word(&["none", "adamw"]), "What happens to the gradients."),
    key("inference.enabled", Kind::Switch, "Whether inference is measured."),
    key("generation.enabled", Kind::Switch, "Whether generation is measured."),
    key("generation.batch_size", SIZE, "Sequences generated side by side."),
    key("generation.prompt_tokens", SIZE, "Tokens in the prompt."),
    key("generation.new_tokens", Kind::Whole(2, 1_000_000), "Tokens produced, the first by the prefill."),
    key("generation.warmup_iterations", COUNT, "Iterations of generation before the first sample."),
    key("generation.iterations", SIZE, "Samples of generation."),
    key("limits.timeout_s", Kind::Whole(1, 31_536_000), "Seconds a cell may take."),
    optional(
        "limits.memory_mb",
        Kind::Whole(1, 1 << 30),
        "Memory a cell may use, in MB of 2^20 bytes; 90 % of the machine's if absent.",
    ),
    key("verify.enabled", Kind::Switch, "Whether the variants are proven equal before they are compared."),
    optional(
        "verify.logits_tolerance",
        Kind::Real(0.0, 1.0),
        "Largest relative L2 of logits and loss; by precision if absent.",
    ),
    optional(
        "verify.gradients_tolerance",
        Kind::Real(0.0, 1.0),
        "Largest relative L2 of a gradient; by precision if absent.",
    ),
];

/// Keys of one `[[exclude]]` entry.
pub(super) const EXCLUDE_KEYS: &[Key] = &[
    optional("backend", NAME, "A value of axes.backends."),
    optional("variant", NAME, "A value of axes.variants."),
    optional("mode", MODE, "A value of axes.modes."),
    optional("tuning_cache", TUNING_CACHE, "A value of axes.tuning_caches."),
    optional("precision", PRECISION, "A value of axes.precisions."),
    optional("batch_size", SIZE, "A value of axes.batch_sizes."),
    optional("seq_length", SIZE, "A value of axes.seq_lengths."),
];

impl Kind {
    /// What is allowed, in words.
    pub fn allowed(self) -> String {
        match self {
            Self::Text => "a text in quotes".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Whole(least, most) => format!("a whole number from {least} to {most}"),
            Self::Real(above, most) => format!("a number above {above} and up to {most}"),
            Self::Word(words) => {
                format!("one of {}", words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", "))
            }
            Self::List(item, least) => {
                let some = if least > 0 { "a list of one or more of" } else { "a list of" };
                format!("{some}: {}", item.allowed())
            }
        }
    }

    /// Whether `value` is allowed.
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Switch => value.is_boolean(),
            Self::Whole(least, most) => value.as_u64().is_some_and(|value| (least..=most).contains(&value)),
            Self::Real(above, most) => value.as_f64().is_some_and(|value| value > above && value <= most),
            Self::Word(words) => value.as_str().is_some_and(|word| words.contains(&word)),
            Self::List(item, least) => value.as_array().is_some_and(|values| {
                let distinct = values.iter().enumerate().all(|(i, value)| !values[..i].contains(value));
                values.len() >= least && distinct && values.iter().all(|value| item.accepts(value))
            }),
        }
    }

    /// The closest allowed word to one that is not allowed.
    pub fn nearest(self, value: &Value) -> Option<String> {
        match (self, value) {
            (Self::Word(words), Value::String(word)) if !words.contains(&word.as_str()) => {
                nearest(word, words.iter().copied())
            }
            (Self::List(item, _), Value::Array(values)) => values.iter().find_map(|value| item.nearest(value)),
            _ => None,
        }
    }

    /// JSON Schema of the values.
    pub fn schema(self) -> Value {
        match self {
            Self::Text => json!({"type": "string"}),
            Self::Switch => json!({"type": "boolean"}),
            Self::Whole(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
            Self::Real(above, most) => json!({"type": "number", "exclusiveMinimum": above, "maximum": most}),
            Self::Word(words) => json!({"type": "string", "enum": words}),
            Self::List(item, least) => {
                json!({"type": "array", "items": item.schema(), "minItems": least, "uniqueItems": true})
            }
        }
    }
}

/// The candidate closest to `name`, if one is close.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}
