use burn::tensor::{DType, Device};
use thiserror::Error;

use super::decoder::Decoder;
use super::memory::predicted_peak_bytes;
use super::{Model, Optimization, Optimizations, Weights, decoder_variants};
use crate::spec::{CellSpec, ModelConfig, Workload};

/// What a family gets to build a model from.
#[derive(Clone, Copy, Debug)]
pub struct BuildRequest<'a> {
    /// Name of the variant.
    pub variant: &'a str,
    /// Sizes.
    pub config: &'a ModelConfig,
    /// Weights under their Hugging Face names.
    pub weights: &'a Weights,
    /// Element type the weights are kept in.
    pub weight_dtype: DType,
    /// Element type of activations and matrix products; weights of another type are converted in every pass.
    pub dtype: DType,
    /// Whether gradients are wanted.
    pub trained: bool,
    /// Where the model lives; with autodiff if it is to be trained, and not by hand.
    pub device: &'a Device,
}

/// Why a model could not be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The registry has no such family.
    #[error("unknown model family `{name}`; there are: {known}")]
    UnknownFamily {
        /// Asked for.
        name: String,
        /// Registered.
        known: String,
    },
    /// The family has no such variant.
    #[error("unknown variant `{variant}` of model family `{family}`; there are: {known}")]
    UnknownVariant {
        /// The family.
        family: String,
        /// Asked for.
        variant: String,
        /// Variants it has.
        known: String,
    },
    /// The weights do not fit the sizes.
    #[error("weights do not fit the model: {0}")]
    Weights(String),
}

type ByHand = dyn Fn(&str) -> bool + Send + Sync;
type Build = dyn Fn(&BuildRequest) -> Result<Box<dyn Model>, BuildError> + Send + Sync;

/// A model with its variants, which compute the same in different ways.
pub struct Family {
    name: String,
    variants: Vec<String>,
    build: Box<Build>,
    by_hand: Box<ByHand>,
    memory: Option<Predict>,
}

/// Predicts the peak memory of a workload of a cell, in bytes.
type Predict = fn(&CellSpec, Workload) -> Option<u64>;

impl Family {
    /// A family called `name`, of which `build` makes any of `variants`.
    pub fn new(
        name: &str,
        variants: &[&str],
        build: impl Fn(&BuildRequest) -> Result<Box<dyn Model>, BuildError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.to_owned(),
            variants: variants.iter().map(|&name| name.to_owned()).collect(),
            build: Box::new(build),
            by_hand: Box::new(|_| false),
            memory: None,
        }
    }

    /// The variants that `is_by_hand` is true for are trained through [`Model::training_step`], on a device without
    /// autodiff.
    #[must_use]
    pub fn training_by_hand(self, is_by_hand: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self { by_hand: Box::new(is_by_hand), ..self }
    }

    /// The same with a prediction of the peak memory of a workload of a cell, in bytes beyond what the process holds before;
    /// `None` where it cannot tell.
    #[must_use]
    pub fn with_memory(self, predict: fn(&CellSpec, Workload) -> Option<u64>) -> Self {
        Self { memory: Some(predict), ..self }
    }
}

/// The models a program can measure.
pub struct Registry(Vec<Family>);

impl Default for Registry {
    /// The built-in `decoder`.
    fn default() -> Self {
        let variants = decoder_variants();
        let names: Vec<&str> = variants.iter().map(String::as_str).collect();
        let decoder = Family::new("decoder", &names, |request| {
            let optimizations = Optimizations::of_variant(request.variant).expect("the registry checked the variant");
            Ok(Box::new(Decoder::new(request, optimizations)?))
        });
        let by_hand = |variant: &str| {
            Optimizations::of_variant(variant).is_some_and(|optimizations| optimizations.has(Optimization::Backward))
        };
        Self(vec![decoder.training_by_hand(by_hand).with_memory(predicted_peak_bytes)])
    }
}

impl Registry {
    /// Adds a family; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, family: Family) -> Self {
        self.0.retain(|other| other.name != family.name);
        self.0.push(family);
        self
    }

    /// Every family with its variants.
    #[must_use]
    pub fn families(&self) -> Vec<(String, Vec<String>)> {
        self.0.iter().map(|family| (family.name.clone(), family.variants.clone())).collect()
    }

    /// Whether a variant is trained through [`Model::training_step`].
    #[must_use]
    pub fn trains_by_hand(&self, family: &str, variant: &str) -> bool {
        self.0.iter().any(|candidate| candidate.name == family && (candidate.by_hand)(variant))
    }

    /// Predicted peak memory of a workload of a cell, in bytes; `None` if its family predicts none.
    #[must_use]
    pub fn predicted_peak_bytes(&self, cell: &CellSpec, workload: Workload) -> Option<u64> {
        let family = self.0.iter().find(|family| family.name == cell.family)?;
        family.memory?(cell, workload)
    }

    /// Builds a variant of a family.
    pub fn build(&self, family: &str, request: &BuildRequest) -> Result<Box<dyn Model>, BuildError> {
        let found = self.0.iter().find(|candidate| candidate.name == family).ok_or_else(|| {
            let known = self.0.iter().map(|family| family.name.as_str()).collect::<Vec<_>>().join(", ");
            BuildError::UnknownFamily { name: family.to_owned(), known }
        })?;
        if !found.variants.iter().any(|variant| variant == request.variant) {
            return Err(BuildError::UnknownVariant {
                family: family.to_owned(),
                variant: request.variant.to_owned(),
                known: found.variants.join(", "),
            });
        }
        (found.build)(request)
    }
}
