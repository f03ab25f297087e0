use burn::backend::tensor::FloatTensor;
use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, unary};

use super::{AttentionOps, Heads};

#[derive(Debug)]
struct Attention;

impl<B: AttentionOps> Backward<B, 1> for Attention {
    /// The packed input, the result, and what the backend saves.
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, Heads);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (qkv, out, saved, heads) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |gradient| {
            B::packed_attention_backward(qkv, out, saved, gradient, heads)
        });
    }
}

impl<B: AttentionOps, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn packed_attention(qkv: FloatTensor<Self>, heads: Heads) -> FloatTensor<Self> {
        let (qkv, node) = qkv.into_parts();
        match Attention.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (out, saved) = B::packed_attention_saving(qkv.clone(), heads);
                prep.finish((qkv, out.clone(), saved, heads), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::packed_attention(qkv, heads)),
        }
    }
}
