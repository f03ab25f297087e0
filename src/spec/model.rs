use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The sizes and constants of a Llama-style decoder, under their Hugging Face names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Number of token ids; the width of the logits.
    pub vocab_size: usize,
    /// Width of the residual stream. A multiple of twice `num_attention_heads`: rotary embedding pairs up features.
    pub hidden_size: usize,
    /// Width of the gated feed-forward block.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key-value heads; divides `num_attention_heads` (grouped-query attention, arXiv:2305.13245).
    pub num_key_value_heads: usize,
    /// Longest sequence the rotary tables are made for, prompt and generated tokens together.
    pub max_position_embeddings: usize,
    /// Base of the rotary frequencies (arXiv:2104.09864).
    pub rope_theta: f64,
    /// Added to the mean square inside RMSNorm (arXiv:1910.07467).
    pub rms_norm_eps: f64,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            vocab_size: 1000,
            hidden_size: 512,
            intermediate_size: 1376,
            num_hidden_layers: 4,
            num_attention_heads: 8,
            num_key_value_heads: 2,
            max_position_embeddings: 2048,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
        }
    }
}

impl ModelConfig {
    /// Width of one attention head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Width of all keys (or all values) of one position: `num_key_value_heads * head_dim`.
    #[must_use]
    pub fn kv_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim()
    }

    /// Number of trained values.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        let attention = 2 * self.hidden_size * (self.hidden_size + self.kv_size());
        let mlp = 3 * self.hidden_size * self.intermediate_size;
        let norms = 2 * self.hidden_size;
        2 * self.vocab_size * self.hidden_size + self.num_hidden_layers * (attention + mlp + norms) + self.hidden_size
    }
}
