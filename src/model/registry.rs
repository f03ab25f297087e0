use burn::tensor::{DType, Device};
use thiserror::Error;

use super::decoder::Decoder;
use super::memory::predicted_peak_bytes;
use super::{Model, Optimization, Optimizations, Weights, decoder_variants};
use crate::spec::{CellSpec, ModelConfig, Optimizer, Workload};

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

type OfVariant = dyn Fn(&str) -> bool + Send + Sync;
type Build = dyn Fn(&BuildRequest) -> Result<Box<dyn Model>, BuildError> + Send + Sync;

/// A model with its variants, which compute the same in different ways.
pub struct Family {
    name: String,
    variants: Vec<String>,
    build: Box<Build>,
    by_hand: Box<OfVariant>,
    generation_replayed: Box<OfVariant>,
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
            generation_replayed: Box::new(|_| false),
            memory: None,
        }
    }

    /// The variants that `is_by_hand` is true for are trained through [`Model::training_step`], on a device without
    /// autodiff.
    #[must_use]
    pub fn training_by_hand(self, is_by_hand: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self { by_hand: Box::new(is_by_hand), ..self }
    }

    /// The variants that `is_replayed` is true for have a [`Model::replayed_session`].
    #[must_use]
    pub fn generation_replayed(self, is_replayed: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self { generation_replayed: Box::new(is_replayed), ..self }
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
        let has = |optimization: Optimization| {
            move |variant: &str| Optimizations::of_variant(variant).is_some_and(|all| all.has(optimization))
        };
        let decoder = decoder.training_by_hand(has(Optimization::Backward));
        let decoder = decoder.generation_replayed(has(Optimization::KvCache));
        Self(vec![decoder.with_memory(predicted_peak_bytes)])
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
        self.family(family).is_some_and(|family| (family.by_hand)(variant))
    }

    /// Whether every step that a cell asks for is replayed where its mode records and its device can.
    #[must_use]
    pub fn replays_all(&self, cell: &CellSpec) -> bool {
        let (training, generation) = (&cell.workloads.training, &cell.workloads.generation);
        let training = training.as_ref().is_none_or(|training| {
            training.optimizer == Optimizer::None && self.trains_by_hand(&cell.family, &cell.variant)
        });
        let replays = |family: &Family| (family.generation_replayed)(&cell.variant);
        training && (generation.is_none() || self.family(&cell.family).is_some_and(replays))
    }

    /// Predicted peak memory of a workload of a cell, in bytes; `None` if its family predicts none.
    #[must_use]
    pub fn predicted_peak_bytes(&self, cell: &CellSpec, workload: Workload) -> Option<u64> {
        self.family(&cell.family)?.memory?(cell, workload)
    }

    fn family(&self, name: &str) -> Option<&Family> {
        self.0.iter().find(|family| family.name == name)
    }

    /// Builds a variant of a family.
    pub fn build(&self, family: &str, request: &BuildRequest) -> Result<Box<dyn Model>, BuildError> {
        let found = self.family(family).ok_or_else(|| {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixtures::planned;
    use crate::spec::Workloads;

    #[test]
    fn a_cell_is_replayed_if_each_of_its_steps_is() {
        let cell = planned().plan[0].clone();
        let replayed = |variant: &str, change: fn(&mut Workloads)| {
            let mut cell = CellSpec { variant: variant.to_owned(), ..cell.clone() };
            change(&mut cell.workloads);
            Registry::default().replays_all(&cell)
        };
        assert!(replayed("example", |_| ()));
        assert!(!replayed("default", |_| ()));
        assert!(replayed("default", |asked| (asked.training, asked.generation) = (None, None)));
        assert!(!replayed("example-without-backward", |_| ()));
        assert!(replayed("example-without-backward", |asked| asked.training = None));
        assert!(!replayed("example-without-kv-cache", |_| ()));
        assert!(replayed("example-without-kv-cache", |asked| asked.generation = None));
        let with_optimizer =
            |asked: &mut Workloads| asked.training.as_mut().expect("asked for").optimizer = Optimizer::Adamw;
        assert!(!replayed("example", with_optimizer));
    }
}
