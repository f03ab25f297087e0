use burn::backend::tensor::FloatTensor;
use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, unary};

use super::{RopeOps, Turn};

#[derive(Debug)]
struct Rope;

impl<B: RopeOps> Backward<B, 1> for Rope {
    type State = (FloatTensor<B>, FloatTensor<B>, usize, usize, Turn);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (cos, sin, heads, first, turn) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |gradient| B::rope(gradient, cos, sin, heads, first, turn));
    }
}

impl<B: RopeOps, C: CheckpointStrategy> RopeOps for Autodiff<B, C> {
    fn rope(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        heads: usize,
        first: usize,
        turn: Turn,
    ) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        match Rope.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = (cos.clone(), sin.clone(), heads, first, turn.reversed());
                prep.finish(state, B::rope(x, cos, sin, heads, first, turn))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::rope(x, cos, sin, heads, first, turn)),
        }
    }
}
