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
    caches: Caches,
    length: usize,
    capacity: usize,
    prefill: Option<Replay<'a, Tensor<2>>>,
    decode: Replay<'a, Tensor<2>>,
}

impl<'a> ReplayedGeneration<'a> {
    pub fn new(decoder: &'a Decoder, batch: usize, capacity: usize) -> Self {
        let shared = &decoder.shared;
        let caches = Caches(Arc::new(Mutex::new(decoder.caches(batch, capacity))));
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

/// Caches that recorded work and its owner share.
#[derive(Clone)]
struct Caches(Arc<Mutex<Vec<LayerCache>>>);

impl Caches {
    fn lock(&self) -> MutexGuard<'_, Vec<LayerCache>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{DType, Device, Tensor};

    use super::*;
    use crate::model::{BuildRequest, Model, Registry, Weights};
    use crate::ops::fused_linear::MOST_ROWS;
    use crate::ops::testing::{assert_close, devices};
    use crate::spec::ModelConfig;

    /// Positions.
    const LONG: usize = 12;

    fn model(variant: &str, dtype: DType, device: &Device) -> Box<dyn Model> {
        let config = ModelConfig {
            vocab_size: 50,
            hidden_size: 32,
            intermediate_size: 48,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            max_position_embeddings: LONG,
            ..ModelConfig::default()
        };
        let weights = Weights::seeded(&config, 1);
        let (config, weights) = (&config, &weights);
        let request = BuildRequest { variant, config, weights, weight_dtype: dtype, dtype, trained: false, device };
        Registry::default().build("decoder", &request).expect("a built-in variant")
    }

    fn ids(batch: usize, shift: i64, device: &Device) -> Tensor<2, Int> {
        let ids = Tensor::<1, Int>::arange(0..(batch * LONG) as i64, device).reshape([batch, LONG]);
        (ids * 7 + shift).remainder_scalar(50)
    }

    /// Logits of the last of each run of tokens, the first run `prompt` long, all later ones one token.
    fn each_position(session: &mut dyn Session, ids: &Tensor<2, Int>, prompt: usize) -> Vec<(usize, Vec<f64>)> {
        let counts = std::iter::once(prompt).chain(std::iter::repeat_n(1, LONG - prompt));
        let mut done = 0;
        counts
            .map(|count| {
                let logits = host(session.feed(ids.clone().narrow(1, done, count)));
                done += count;
                (done - 1, logits)
            })
            .collect()
    }

    fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
        tensor.into_data().iter::<f64>().collect()
    }

    fn at(full: &Tensor<3>, position: usize) -> Vec<f64> {
        host(full.clone().narrow(1, position, 1))
    }

    /// Flex records no graphs: what is replayed there runs again, through the same code and on the same buffers.
    #[test]
    fn replayed_work_computes_what_plain_work_does_at_every_position() {
        let device = Device::flex();
        for variant in ["example", "example-without-attention", "example-without-rope", "default"] {
            let model = model(variant, DType::F64, &device);
            let mut forward = Replay::new(&device, model.recordable(LONG));
            for shift in 0..2 {
                let ids = ids(2, shift, &device);
                assert_close(&host(forward.run(ids.clone(), 0).clone()), &host(model.forward(ids)), 1e-12);
            }
            let Some(mut session) = model.replayed_session(2, LONG) else {
                assert_eq!(variant, "default", "only a growing cache cannot be recorded");
                continue;
            };
            for (prompt, shift) in [(5, 0), (5, 1), (1, 2)] {
                session.restart();
                let (ids, full) = (ids(2, shift, &device), model.forward(ids(2, shift, &device)));
                for (position, logits) in each_position(session.as_mut(), &ids, prompt) {
                    assert_close(&logits, &at(&full, position), 1e-12);
                }
            }
        }
    }

    /// More sequences than kernels for few rows take: there norms are folded where the device says that it spares launches.
    #[test]
    fn many_sequences_decode_on_every_device_as_the_whole_pass_computes() {
        let batch = MOST_ROWS + 1;
        for tested in devices() {
            let (model, ids) = (model("example", DType::F32, &tested.device), ids(batch, 0, &tested.device));
            let full = model.forward(ids.clone());
            // Launched one by one: a device that records allows no other thread to wait for it meanwhile, and tests run beside
            // one another.
            let mut session = model.session(batch, LONG);
            for (position, logits) in each_position(session.as_mut(), &ids, 5) {
                assert_close(&logits, &at(&full, position), 10.0 * tested.tolerance(DType::F32, true));
            }
        }
    }
}
