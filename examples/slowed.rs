//! The built-in decoder with a delay in every step, to see what `burnmark compare` makes of a regression.
//!
//! ```sh
//! cargo run --release --example slowed -- --output before.json
//! BURNMARK_SLOWED_PERCENT=10 cargo run --release --example slowed -- --output after.json
//! burnmark compare before.json after.json --fail-on 'training>3%'
//! ```
//!
//! The delay is this share of what the step takes: the model runs, and then the thread spins.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Gradients, Int, Tensor};
use burnmark::model::{Array, Family, Model, Registry, Session, decoder_variants};

#[global_allocator]
static HEAP: burnmark::CountingAllocator = burnmark::CountingAllocator;

fn main() -> ExitCode {
    let variants = decoder_variants();
    let names: Vec<&str> = variants.iter().map(String::as_str).collect();
    let percent = std::env::var("BURNMARK_SLOWED_PERCENT").ok().and_then(|percent| percent.parse().ok());
    let share = percent.unwrap_or(0.0) / 100.0;
    let slowed = Family::new("decoder", &names, move |request| {
        let model = Registry::default().build("decoder", request)?;
        Ok(Box::new(Slowed { model, share }))
    });
    burnmark::app::main(&Registry::default().with(slowed))
}

struct Slowed {
    model: Box<dyn Model>,
    share: f64,
}

/// Runs `work` and then spins for `share` of the time it took.
fn slowed<R>(share: f64, work: impl FnOnce() -> R) -> R {
    let begin = Instant::now();
    let result = work();
    let end = begin + begin.elapsed().mul_f64(1.0 + share);
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    result
}

impl Model for Slowed {
    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        slowed(self.share, || self.model.forward(ids))
    }

    fn loss(&self, ids: Tensor<2, Int>) -> Tensor<1> {
        slowed(self.share, || self.model.loss(ids))
    }

    fn session(&self, batch: usize, capacity: usize) -> Box<dyn Session + '_> {
        Box::new(SlowedSession { session: self.model.session(batch, capacity), share: self.share })
    }

    fn collect(&self, gradients: Gradients) -> GradientsParams {
        self.model.collect(gradients)
    }

    fn gradients(&self, gradients: &GradientsParams) -> BTreeMap<String, Array<f64>> {
        self.model.gradients(gradients)
    }

    fn apply(&mut self, optimizer: &mut ModuleOptimizer, learning_rate: f64, gradients: GradientsParams) {
        self.model.apply(optimizer, learning_rate, gradients);
    }
}

struct SlowedSession<'a> {
    session: Box<dyn Session + 'a>,
    share: f64,
}

impl Session for SlowedSession<'_> {
    fn feed(&mut self, ids: Tensor<2, Int>) -> Tensor<2> {
        let share = self.share;
        slowed(share, || self.session.feed(ids))
    }

    fn restart(&mut self) {
        self.session.restart();
    }
}
