//! Expected numbers from a safetensors file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::{Array, Weights};
use crate::spec::ModelConfig;

/// Numbers a model must reproduce.
pub(super) struct Reference {
    pub config: ModelConfig,
    pub batch: usize,
    pub seq: usize,
    pub weights: Weights,
    /// `[batch, seq]`, row-major.
    pub ids: Vec<i64>,
    /// `[batch, seq, vocabulary]`, row-major.
    pub logits: Vec<f64>,
    pub loss: f64,
    pub gradients: BTreeMap<String, Array<f64>>,
    /// `[batch, count]`, row-major.
    pub greedy: Vec<i64>,
}

/// Why a reference file cannot be used.
#[derive(Debug, Error)]
pub(super) enum ReferenceError {
    #[error("cannot read it: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("it is not a complete safetensors file: {0}; was it cut off while it was copied?")]
    Malformed(#[from] safetensors::SafeTensorError),
    #[error("its metadata has no `config`; it must hold the sizes as a JSON object")]
    NoConfig,
    #[error("the `config` in its metadata is malformed: {0}")]
    BadConfig(#[from] serde_json::Error),
    #[error("{0}")]
    Content(String),
}

/// The `config` entry of the metadata.
#[derive(Serialize, Deserialize)]
struct Metadata {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    rope_theta: f64,
    rms_norm_eps: f64,
}

impl Reference {
    /// Writes a file that [`Self::load`] reads.
    pub fn save(&self, path: &Path) -> Result<(), ReferenceError> {
        let Self { config, batch, seq, weights, .. } = self;
        let new_tokens = self.greedy.len() / batch;
        let mut arrays = vec![
            ("input_ids".to_owned(), Dtype::I64, vec![*batch, *seq], bytes(&self.ids, i64::to_le_bytes)),
            ("greedy_ids".to_owned(), Dtype::I64, vec![*batch, new_tokens], bytes(&self.greedy, i64::to_le_bytes)),
            ("loss".to_owned(), Dtype::F64, Vec::new(), bytes(&[self.loss], f64::to_le_bytes)),
            (
                "logits".to_owned(),
                Dtype::F64,
                vec![*batch, *seq, config.vocab_size],
                bytes(&self.logits, f64::to_le_bytes),
            ),
        ];
        for (name, weight) in &weights.0 {
            arrays.push((name.clone(), Dtype::F32, weight.shape.clone(), bytes(&weight.values, f32::to_le_bytes)));
        }
        for (name, gradient) in &self.gradients {
            let values = bytes(&gradient.values, f64::to_le_bytes);
            arrays.push((format!("grad.{name}"), Dtype::F64, gradient.shape.clone(), values));
        }
        let views: Vec<(&str, TensorView)> = arrays
            .iter()
            .map(|(name, dtype, shape, bytes)| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?)))
            .collect::<Result<_, ReferenceError>>()?;
        let metadata = serde_json::to_string(&Metadata::from_config(config))?;
        Ok(safetensors::serialize_to_file(views, Some(HashMap::from([("config".to_owned(), metadata)])), path)?)
    }

    /// Reads `path`; every array is checked against the sizes in the metadata.
    pub fn load(path: &Path) -> Result<Self, ReferenceError> {
        let bytes = std::fs::read(path)?;
        let file = SafeTensors::deserialize(&bytes)?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let text = header.metadata().as_ref().and_then(|entries| entries.get("config"));
        let metadata: Metadata = serde_json::from_str(text.ok_or(ReferenceError::NoConfig)?)?;

        let ids = array(&file, "input_ids")?;
        let [batch, seq] = ids.shape[..] else {
            return Err(content(format!("`input_ids` must be [batch, seq], it is {:?}", ids.shape)));
        };
        let greedy = array(&file, "greedy_ids")?;
        let new_tokens = greedy.values.len() / batch.max(1);
        let config = metadata.into_config(seq + new_tokens)?;
        if seq < 2 || batch == 0 {
            return Err(content(format!("`input_ids` is [{batch}, {seq}]; a loss needs at least two positions")));
        }
        if let Some(id) =
            ids.values.iter().chain(&greedy.values).find(|id| !(0.0..config.vocab_size as f64).contains(*id))
        {
            return Err(content(format!("token id {id} is outside the vocabulary of {}", config.vocab_size)));
        }
        let logits = shaped(&file, "logits", &[batch, seq, config.vocab_size])?;
        let loss = array(&file, "loss")?;
        let [loss] = loss.values[..] else {
            return Err(content(format!("`loss` must be one number, it is {:?}", loss.shape)));
        };
        let (mut weights, mut gradients) = (BTreeMap::new(), BTreeMap::new());
        for (name, shape) in Weights::layout(&config) {
            let weight = shaped(&file, &name, &shape)?;
            let values = weight.values.into_iter().map(|value| value as f32).collect();
            gradients.insert(name.clone(), shaped(&file, &format!("grad.{name}"), &shape)?);
            weights.insert(name, Array { shape, values });
        }
        Ok(Self {
            config,
            batch,
            seq,
            weights: Weights(weights),
            ids: integers(ids),
            logits: logits.values,
            loss,
            gradients,
            greedy: integers(greedy),
        })
    }
}

impl Metadata {
    fn from_config(config: &ModelConfig) -> Self {
        Self {
            vocab_size: config.vocab_size,
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            rope_theta: config.rope_theta,
            rms_norm_eps: config.rms_norm_eps,
        }
    }

    fn into_config(self, positions: usize) -> Result<ModelConfig, ReferenceError> {
        let config = ModelConfig {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            max_position_embeddings: positions,
            rope_theta: self.rope_theta,
            rms_norm_eps: self.rms_norm_eps,
        };
        let heads = (config.num_attention_heads, config.num_key_value_heads);
        let fits = heads.0 > 0
            && heads.1 > 0
            && heads.0.is_multiple_of(heads.1)
            && config.hidden_size.is_multiple_of(2 * heads.0);
        if fits {
            return Ok(config);
        }
        Err(content(format!(
            "hidden_size {} with {} heads and {} key-value heads does not divide evenly",
            config.hidden_size, heads.0, heads.1
        )))
    }
}

fn bytes<T: Copy, const N: usize>(values: &[T], encode: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| encode(*value)).collect()
}

fn content(message: String) -> ReferenceError {
    ReferenceError::Content(message)
}

fn integers(array: Array<f64>) -> Vec<i64> {
    array.values.into_iter().map(|value| value as i64).collect()
}

fn shaped(file: &SafeTensors, name: &str, shape: &[usize]) -> Result<Array<f64>, ReferenceError> {
    let array = array(file, name)?;
    if array.shape == shape {
        return Ok(array);
    }
    Err(content(format!("`{name}` has shape {:?}, its metadata calls for {shape:?}", array.shape)))
}

fn array(file: &SafeTensors, name: &str) -> Result<Array<f64>, ReferenceError> {
    let view = file.tensor(name).map_err(|_| content(format!("array `{name}` is missing")))?;
    let values = match view.dtype() {
        Dtype::F32 => elements(&view, |bytes| f64::from(f32::from_le_bytes(bytes))),
        Dtype::F64 => elements(&view, f64::from_le_bytes),
        Dtype::I32 => elements(&view, |bytes| f64::from(i32::from_le_bytes(bytes))),
        Dtype::I64 => elements(&view, |bytes| i64::from_le_bytes(bytes) as f64),
        other => return Err(content(format!("array `{name}` is {other:?}; use F32, F64, I32 or I64"))),
    };
    Ok(Array { shape: view.shape().to_vec(), values })
}

fn elements<const N: usize>(view: &TensorView, convert: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    view.data().chunks_exact(N).map(|bytes| convert(bytes.try_into().expect("chunks of the array's length"))).collect()
}
