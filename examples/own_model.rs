//! A model of one's own, measured by burnmark's runner, gate and reports.
//!
//! The program is burnmark for its model: every command and flag works, and the children that measure are this very
//! program. Try it:
//!
//! ```sh
//! cargo run --release --example own_model -- --workloads inference,generation --output own.json
//! ```

use std::collections::BTreeMap;
use std::process::ExitCode;

use burn::module::{Module, Param};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Gradients, Int, Tensor, TensorData};
use burnmark::model::{Array, BuildRequest, Family, Model, Registry, Session};
use burnmark::ops;

#[global_allocator]
static HEAP: burnmark::CountingAllocator = burnmark::CountingAllocator;

/// A bigram model: the next token depends on the last one alone, `logits = embedding[id] head`.
#[derive(Module, Debug)]
struct Bigram {
    /// `[vocabulary, hidden]`.
    embedding: Param<Tensor<2>>,
    /// `[hidden, vocabulary]`.
    head: Param<Tensor<2>>,
    #[module(skip)]
    fused: bool,
}

impl Bigram {
    fn new(request: &BuildRequest) -> Self {
        let tensor = |name: &str| {
            let array = &request.weights.0[name];
            let data = TensorData::new(array.values.clone(), [array.shape[0], array.shape[1]]);
            Tensor::<2>::from_data(data, (request.device, request.dtype))
        };
        // A parameter is a tensor of its own, not a view of another: copy the transpose.
        let head = tensor("lm_head.weight").transpose();
        let [hidden, vocabulary] = head.dims();
        let head = Tensor::from_data(
            TensorData::new(head.into_data().iter::<f64>().collect(), [hidden, vocabulary]),
            (request.device, request.dtype),
        );
        Self {
            embedding: Param::from_tensor(tensor("model.embed_tokens.weight")),
            head: Param::from_tensor(head),
            fused: request.variant == "fused",
        }
    }

    fn hidden(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        let [_, hidden] = self.embedding.dims();
        self.embedding.val().select(0, ids.reshape([batch * seq])).reshape([batch, seq, hidden])
    }
}

impl Model for Bigram {
    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let hidden = self.hidden(ids);
        if self.fused {
            ops::linear(hidden, self.head.val(), ops::Products::Vendor)
        } else {
            hidden.matmul(self.head.val().unsqueeze())
        }
    }

    fn loss(&self, ids: Tensor<2, Int>) -> Tensor<1> {
        let [_, seq] = ids.dims();
        let log_probabilities = log_softmax(self.forward(ids.clone()).narrow(1, 0, seq - 1), 2);
        log_probabilities.gather(2, ids.narrow(1, 1, seq - 1).unsqueeze_dim(2)).mean().neg()
    }

    fn session(&self, _batch: usize, _capacity: usize) -> Box<dyn Session + '_> {
        struct Stateless<'a>(&'a Bigram);
        impl Session for Stateless<'_> {
            fn feed(&mut self, ids: Tensor<2, Int>) -> Tensor<2> {
                let [batch, count] = ids.dims();
                let logits = self.0.forward(ids.narrow(1, count - 1, 1));
                let [_, _, vocabulary] = logits.dims();
                logits.reshape([batch, vocabulary])
            }

            fn restart(&mut self) {}
        }
        Box::new(Stateless(self))
    }

    fn collect(&self, gradients: Gradients) -> GradientsParams {
        GradientsParams::from_grads(gradients, self)
    }

    fn gradients(&self, gradients: &GradientsParams) -> BTreeMap<String, Array<f64>> {
        let array = |tensor: Tensor<2>| {
            let shape = tensor.dims().to_vec();
            Array { shape, values: tensor.into_data().iter::<f64>().collect() }
        };
        let embedding = gradients.get::<2>(self.embedding.id).map(array);
        let head = gradients.get::<2>(self.head.id).map(|gradient| array(gradient.transpose()));
        [("model.embed_tokens.weight", embedding), ("lm_head.weight", head)]
            .into_iter()
            .filter_map(|(name, gradient)| Some((name.to_owned(), gradient?)))
            .collect()
    }

    fn apply(&mut self, optimizer: &mut ModuleOptimizer, learning_rate: f64, gradients: GradientsParams) {
        *self = optimizer.step(learning_rate, self.clone(), gradients);
    }
}

fn main() -> ExitCode {
    let bigram = Family::new("bigram", &["plain", "fused"], |request| Ok(Box::new(Bigram::new(request))));
    burnmark::app::main(&Registry::default().with(bigram))
}
