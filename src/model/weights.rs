use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Normal};

use crate::spec::ModelConfig;

/// An array on the host, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<T> {
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// Elements; as many as the product of the sizes.
    pub values: Vec<T>,
}

/// Weights under their Hugging Face names; matrices are `[out, in]`, the embedding `[vocabulary, hidden]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights(pub BTreeMap<String, Array<f32>>);

/// Standard deviation of fresh matrices, as in GPT-2 and Llama.
const INITIAL_DEVIATION: f32 = 0.02;

impl Weights {
    /// Names and shapes of a decoder's parameters.
    #[must_use]
    pub fn layout(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
        let (hidden, kv, mlp) = (config.hidden_size, config.kv_size(), config.intermediate_size);
        let mut layout = vec![("model.embed_tokens.weight".to_owned(), vec![config.vocab_size, hidden])];
        for layer in 0..config.num_hidden_layers {
            let parameters = [
                ("input_layernorm", vec![hidden]),
                ("self_attn.q_proj", vec![hidden, hidden]),
                ("self_attn.k_proj", vec![kv, hidden]),
                ("self_attn.v_proj", vec![kv, hidden]),
                ("self_attn.o_proj", vec![hidden, hidden]),
                ("post_attention_layernorm", vec![hidden]),
                ("mlp.gate_proj", vec![mlp, hidden]),
                ("mlp.up_proj", vec![mlp, hidden]),
                ("mlp.down_proj", vec![hidden, mlp]),
            ];
            layout.extend(
                parameters.into_iter().map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)),
            );
        }
        layout.push(("model.norm.weight".to_owned(), vec![hidden]));
        layout.push(("lm_head.weight".to_owned(), vec![config.vocab_size, hidden]));
        layout
    }

    /// Fresh weights, the same for a seed on every machine and backend: matrices normal, norm scales around one.
    #[must_use]
    pub fn seeded(config: &ModelConfig, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let normal = Normal::new(0.0, INITIAL_DEVIATION).expect("a positive deviation");
        let array = |(name, shape): (String, Vec<usize>)| {
            let mean = if shape.len() == 1 { 1.0 } else { 0.0 };
            let count = shape.iter().product();
            let values = normal.sample_iter(&mut random).take(count).map(|x: f32| mean + x).collect();
            (name, Array { shape, values })
        };
        Self(Self::layout(config).into_iter().map(array).collect())
    }

    /// Checks that every parameter of `config` is there with its shape.
    pub fn check(&self, config: &ModelConfig) -> Result<(), String> {
        for (name, shape) in Self::layout(config) {
            match self.0.get(&name) {
                None => return Err(format!("parameter `{name}` is missing")),
                Some(array) if array.shape != shape => {
                    return Err(format!(
                        "parameter `{name}` has shape {:?}, the sizes call for {shape:?}",
                        array.shape
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}
