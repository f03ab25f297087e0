use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::Shape;
use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};

use super::LinearCrossEntropyOps;
use crate::ops::linear::Products;
use crate::ops::primitive::rounded;

#[derive(Debug)]
struct LinearCrossEntropy;

impl<B: LinearCrossEntropyOps> Backward<B, 2> for LinearCrossEntropy {
    /// The gradients for a loss whose own gradient is one.
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let factor = B::float_reshape(grads.consume::<B>(&ops.node), Shape::new([1, 1]));
        let (d_hidden, d_weight) = ops.state;
        for (node, gradient) in ops.parents.into_iter().zip([d_hidden, d_weight]) {
            if let Some(node) = node {
                let factor = rounded::<B>(factor.clone(), gradient.dtype());
                grads.register::<B>(node.id, B::float_mul(gradient, factor));
            }
        }
    }
}

impl<B: LinearCrossEntropyOps, C: CheckpointStrategy> LinearCrossEntropyOps for Autodiff<B, C> {
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        count: usize,
        by: Products,
    ) -> FloatTensor<Self> {
        let ((hidden, hidden_node), (weight, weight_node)) = (hidden.into_parts(), weight.into_parts());
        match LinearCrossEntropy.prepare::<C>([hidden_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (loss, d_hidden, d_weight) =
                    B::linear_cross_entropy_with_gradients(hidden, weight, targets, count, by);
                debug_assert_eq!(loss.shape().num_elements(), 1);
                prep.finish((d_hidden, d_weight), loss)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::linear_cross_entropy(hidden, weight, targets, count, by)),
        }
    }
}
