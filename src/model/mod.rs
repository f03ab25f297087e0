//! Models: the trait a workload runs, the registry that names them, and the built-in decoder.

mod backward;
mod cache;
mod decoder;
mod device_graph;
mod generation;
mod heads;
mod layers;
mod memory;
mod optimization;
pub(crate) mod plain;
mod registry;
mod replay;
mod shared;
mod weights;
pub mod work;

use std::collections::BTreeMap;

use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Gradients, Int, Tensor};

use crate::spec::Workload;

pub use optimization::{Optimization, Optimizations, decoder_variants};
pub use registry::{BuildError, BuildRequest, Family, Registry};
pub use replay::{Replay, Work};
pub use weights::{Array, Weights};

/// What a training step computes.
#[derive(Debug)]
pub struct TrainingStep {
    /// Mean next-token cross-entropy `[1]`.
    pub loss: Tensor<1>,
    /// Of every parameter.
    pub gradients: GradientsParams,
}

/// A causal language model as the workloads use it.
///
/// Implement it for a model of your own, register a [`Family`], and the same runner, gate and reports apply.
pub trait Model: Send + Sync {
    /// Logits `[batch, seq, vocabulary]` of `ids [batch, seq]`.
    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3>;

    /// Mean next-token cross-entropy `[1]`: position `i` predicts `ids[.., i + 1]`, the last position nothing.
    fn loss(&self, ids: Tensor<2, Int>) -> Tensor<1>;

    /// Starts generation with an empty cache for `batch` sequences of at most `capacity` tokens.
    fn session(&self, batch: usize, capacity: usize) -> Box<dyn Session + '_>;

    /// The forward pass on sequences of `seq` tokens as work that can be recorded: what it needs from the host is made
    /// now.
    fn recordable(&self, seq: usize) -> Work<'_, Tensor<3>> {
        let _ = seq;
        Box::new(|ids, _| self.forward(ids))
    }

    /// As [`Self::session`], its prefill and its decode steps recorded and replayed; `None` if the shapes of this
    /// model's decode steps change from token to token.
    fn replayed_session(&self, batch: usize, capacity: usize) -> Option<Box<dyn Session + '_>> {
        let _ = (batch, capacity);
        None
    }

    /// What must be among the kernels of a workload's step if the model's optimisations do what they are named for: the
    /// name of an optimisation, and kernels of which at least one was launched. Asked only of devices that tell their
    /// kernels.
    fn own_kernels(&self, workload: Workload) -> Vec<(String, &'static [&'static str])> {
        let _ = workload;
        Vec::new()
    }

    /// Training on sequences of `seq` tokens without autodiff, as work that can be recorded: what it needs from the host
    /// is made now. `None` if this model leaves its backward pass to autodiff; see [`Family::training_by_hand`].
    fn training_step(&self, seq: usize) -> Option<Work<'_, TrainingStep>> {
        let _ = seq;
        None
    }

    /// What autodiff computed, by parameter: `GradientsParams::from_grads(gradients, self)` for a Burn module.
    fn collect(&self, gradients: Gradients) -> GradientsParams;

    /// Gradients under their Hugging Face names and shapes, however this model lays its weights out.
    fn gradients(&self, gradients: &GradientsParams) -> BTreeMap<String, Array<f64>>;

    /// Lets `optimizer` update the weights with a step's gradients.
    fn apply(&mut self, optimizer: &mut ModuleOptimizer, learning_rate: f64, gradients: GradientsParams);
}

/// Generation in progress: a model and its key-value cache.
pub trait Session: Send {
    /// Appends `ids [batch, count]`; logits `[batch, vocabulary]` of the last of them.
    fn feed(&mut self, ids: Tensor<2, Int>) -> Tensor<2>;

    /// Forgets every token; memory is kept.
    fn restart(&mut self);

    /// Whether the device replays its steps as graphs.
    fn is_replayed(&self) -> bool {
        false
    }
}
