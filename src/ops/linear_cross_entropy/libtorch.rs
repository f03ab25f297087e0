//! The sweep of [`super::generic`] with PyTorch's own log-softmax and negative log-likelihood.

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{LibTorch, TensorMetadata};
use tch::{Kind, Reduction, Tensor};

use super::generic::{Chunk, forward_in_chunks, gradients_in_chunks, grown};
use super::{CHUNK_ELEMENTS, LinearCrossEntropyOps, chunk_rows};
use crate::ops::linear::Products;

/// What PyTorch is told of a target that does not count.
const UNCOUNTED: i64 = -1;

impl LinearCrossEntropyOps for LibTorch {
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        count: usize,
        _: Products,
    ) -> FloatTensor<Self> {
        let rows = rows_at_once(&weight);
        forward_in_chunks::<Self>(hidden, weight, targets, rows, Self::float_matmul, |logits, targets| {
            Rows::new(&logits, &targets, count).loss()
        })
    }

    fn linear_cross_entropy_with_gradients(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        count: usize,
        _: Products,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let rows = rows_at_once(&weight);
        gradients_in_chunks::<Self>(
            hidden,
            weight,
            targets,
            rows,
            Self::float_matmul,
            grown::<Self>,
            |logits, targets| {
                let rows = Rows::new(&logits, &targets, count);
                Chunk { loss: rows.loss(), d_logits: rows.gradient() }
            },
        )
    }
}

fn rows_at_once(weight: &FloatTensor<LibTorch>) -> usize {
    chunk_rows(CHUNK_ELEMENTS, weight.shape()[1])
}

/// A chunk's rows: their log-probabilities and targets, and what one row counts.
struct Rows {
    log_probabilities: Tensor,
    targets: Tensor,
    share: Tensor,
}

impl Rows {
    fn new(logits: &FloatTensor<LibTorch>, targets: &IntTensor<LibTorch>, count: usize) -> Self {
        let logits = &logits.tensor;
        let wide = if logits.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        Self {
            log_probabilities: logits.log_softmax(1, wide),
            targets: targets.tensor.clamp_min(UNCOUNTED),
            share: Tensor::full([], 1.0 / count as f64, (wide, logits.device())),
        }
    }

    fn loss(&self) -> FloatTensor<LibTorch> {
        let sum = self.log_probabilities.g_nll_loss(&self.targets, None::<Tensor>, Reduction::Sum, UNCOUNTED);
        FloatTensor::<LibTorch>::new((sum * &self.share).reshape([1]))
    }

    /// The gradient of the logits. The total weight is asked for, but not used by a sum.
    fn gradient(&self) -> FloatTensor<LibTorch> {
        let (rows, share) = (&self.log_probabilities, &self.share);
        let none = None::<Tensor>;
        let gradient = rows.nll_loss_backward(share, &self.targets, none, Reduction::Sum, UNCOUNTED, share);
        let of_logits = Tensor::internal_log_softmax_backward_data(&gradient, rows, 1, rows.kind());
        FloatTensor::<LibTorch>::new(of_logits)
    }
}
