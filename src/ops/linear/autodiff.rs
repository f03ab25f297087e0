use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};

use super::{LinearOps, Products};

/// `x` if the weight is trained, the weight if `x` needs a gradient, and who makes their products.
type Saved<B> = (Option<FloatTensor<B>>, Option<FloatTensor<B>>, Products);

#[derive(Debug)]
struct Linear;

impl<B: LinearOps> Backward<B, 2> for Linear {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        propagate::<B>(
            gradient,
            ops.state,
            [ops.parents[0].as_ref(), ops.parents[1].as_ref()].map(|n| n.map(|n| n.id)),
            grads,
        );
    }
}

#[derive(Debug)]
struct LinearAdd;

impl<B: LinearOps> Backward<B, 3> for LinearAdd {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let [x, weight, residual] = ops.parents.map(|node| node.map(|node| node.id));
        propagate::<B>(gradient.clone(), ops.state, [x, weight], grads);
        if let Some(residual) = residual {
            grads.register::<B>(residual, gradient);
        }
    }
}

fn propagate<B: LinearOps>(
    gradient: FloatTensor<B>,
    (x, weight, by): Saved<B>,
    [x_node, weight_node]: [Option<burn_autodiff::NodeId>; 2],
    grads: &mut Gradients,
) {
    if let (Some(node), Some(x)) = (weight_node, x) {
        let dtype = x.dtype();
        grads.register::<B>(node, B::linear_weight_gradient(gradient.clone(), x, dtype, by));
    }
    if let (Some(node), Some(weight)) = (x_node, weight) {
        grads.register::<B>(node, B::linear_input_gradient(gradient, weight, by));
    }
}

impl<B: LinearOps, C: CheckpointStrategy> LinearOps for Autodiff<B, C> {
    fn packed_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, by: Products) -> FloatTensor<Self> {
        let (x_tracked, weight_tracked) = (x.is_tracked(), weight.is_tracked());
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let state = (weight_tracked.then(|| x.clone()), x_tracked.then(|| weight.clone()), by);
        let output = B::packed_linear(x, weight, by);
        match Linear.prepare::<C>([x_node, weight_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn packed_linear_add(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        by: Products,
    ) -> FloatTensor<Self> {
        let (x_tracked, weight_tracked) = (x.is_tracked(), weight.is_tracked());
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let (residual, residual_node) = residual.into_parts();
        let state = (weight_tracked.then(|| x.clone()), x_tracked.then(|| weight.clone()), by);
        let output = B::packed_linear_add(x, weight, residual, by);
        match LinearAdd.prepare::<C>([x_node, weight_node, residual_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}
