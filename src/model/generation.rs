//! The decoder's generation: prefill, then one token at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::{Int, Tensor};

use super::cache::LayerCache;
use super::decoder::Decoder;
use super::shared::{First, Place};
use super::{Replay, Session, Work};

/// Generation with every operation launched.
pub(super) struct Generation<'a> {
    decoder: &'a Decoder,
    caches: Vec<LayerCache>,
    length: usize,
}

impl<'a> Generation<'a> {
    pub fn new(decoder: &'a Decoder, batch: usize, capacity: usize) -> Self {
        Self { decoder, caches: decoder.caches(batch, capacity), length: 0 }
    }
}

impl Session for Generation<'_> {
    fn feed(&mut self, ids: Tensor<2, Int>) -> Tensor<2> {
        let [_, count] = ids.dims();
        let place = self.decoder.shared.place(self.length, count);
        self.length += count;
        self.decoder.last_logits(ids, &place, &mut self.caches)
    }

    fn restart(&mut self) {
        self.caches.iter_mut().for_each(LayerCache::restart);
        self.length = 0;
    }
}

/// Generation whose prefill and decode steps are recorded and replayed.
pub(super) struct ReplayedGeneration<'a> {
    decoder: &'a Decoder,
    caches: Held<Vec<LayerCache>>,
    length: usize,
    capacity: usize,
    prefill: Option<Replay<'a, Tensor<2>>>,
    decode: Replay<'a, Tensor<2>>,
}

impl<'a> ReplayedGeneration<'a> {
    pub fn new(decoder: &'a Decoder, batch: usize, capacity: usize) -> Self {
        let shared = &decoder.shared;
        let caches = Held::new(decoder.caches(batch, capacity));
        let tables = match &shared.tables {
            Some(tables) => tables.clone(),
            None => shared.tables(0..capacity),
        };
        let held = caches.clone();
        let step: Work<'a, Tensor<2>> = Box::new(move |ids, position| {
            let tables = if shared.turns_into_cache() { tables.clone() } else { tables.at(position) };
            let place = Place { tables, first: First::InTensor(position.clone()), row: 0 };
            decoder.last_logits(ids, &place, &mut held.lock())
        });
        Self { decoder, caches, length: 0, capacity, prefill: None, decode: Replay::new(&shared.device, step) }
    }

    fn prefill(&mut self, ids: Tensor<2, Int>) -> Tensor<2> {
        let (decoder, [_, count]) = (self.decoder, ids.dims());
        let same = |prefill: &Replay<Tensor<2>>| !prefill.is_new(&ids);
        if !self.prefill.as_ref().is_some_and(same) {
            let (place, caches) = (decoder.shared.place(0, count), self.caches.clone());
            let work: Work<'a, Tensor<2>> =
                Box::new(move |ids, _| decoder.last_logits(ids, &place, &mut caches.lock()));
            self.prefill = Some(Replay::new(&decoder.shared.device, work));
        }
        self.prefill.as_mut().expect("made above").run(ids, 0).clone()
    }
}

impl Session for ReplayedGeneration<'_> {
    fn feed(&mut self, ids: Tensor<2, Int>) -> Tensor<2> {
        let [_, count] = ids.dims();
        let (length, capacity) = (self.length, self.capacity);
        // What is replayed writes where it is told to.
        assert!(length + count <= capacity, "generation: {count} positions after {length} in a cache of {capacity}");
        let logits = match (length, count) {
            (0, _) => self.prefill(ids),
            (length, 1) => self.decode.run(ids, length).clone(),
            (length, _) => {
                let place = self.decoder.shared.place(length, count);
                self.decoder.last_logits(ids, &place, &mut self.caches.lock())
            }
        };
        self.length += count;
        logits
    }

    fn restart(&mut self) {
        self.length = 0;
    }

    fn is_replayed(&self) -> bool {
        self.decode.is_hardware() && self.prefill.as_ref().is_none_or(Replay::is_hardware)
    }
}

/// A value that recorded work and its owner share.
struct Held<T>(Arc<Mutex<T>>);

impl<T> Held<T> {
    fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(value)))
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{DType, Device, Tensor};

    use super::*;
    use crate::model::{BuildRequest, Registry, Weights};
    use crate::spec::ModelConfig;

    fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
        tensor.into_data().iter::<f64>().collect()
    }

    /// Flex records no graphs: what is replayed there runs again, through the same code and on the same buffers.
    #[test]
    fn replayed_work_computes_what_plain_work_does_at_every_position() {
        let config = ModelConfig {
            vocab_size: 50,
            hidden_size: 32,
            intermediate_size: 48,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            max_position_embeddings: 12,
            ..ModelConfig::default()
        };
        let (weights, device) = (Weights::seeded(&config, 1), Device::flex());
        for variant in ["example", "example-without-attention", "example-without-rope", "default"] {
            let request = BuildRequest {
                variant,
                config: &config,
                weights: &weights,
                weight_dtype: DType::F64,
                dtype: DType::F64,
                trained: false,
                device: &device,
            };
            let model = Registry::default().build("decoder", &request).expect("a built-in variant");
            let ids = |shift: i64| {
                let ids = Tensor::<1, Int>::arange(0..24, &device).reshape([2, 12]);
                (ids * 7 + shift).remainder_scalar(50)
            };
            let mut forward = Replay::new(&device, model.recordable(12));
            let close = |a: Tensor<3>, b: Tensor<3>| {
                let worst = host(a - b).into_iter().fold(0.0, |worst, x| x.abs().max(worst));
                assert!(worst < 1e-12, "{variant}: {worst:e}");
            };
            for shift in 0..2 {
                close(forward.run(ids(shift), 0).clone(), model.forward(ids(shift)));
            }
            let Some(mut session) = model.replayed_session(2, 12) else {
                assert_eq!(variant, "default", "only a growing cache cannot be recorded");
                continue;
            };
            for (prompt, shift) in [(5, 0), (5, 1), (1, 2)] {
                session.restart();
                let full = model.forward(ids(shift));
                let mut done = 0;
                for count in std::iter::once(prompt).chain(std::iter::repeat_n(1, 12 - prompt)) {
                    let logits = session.feed(ids(shift).narrow(1, done, count));
                    done += count;
                    close(logits.unsqueeze_dim(1), full.clone().narrow(1, done - 1, 1));
                }
            }
        }
    }
}
