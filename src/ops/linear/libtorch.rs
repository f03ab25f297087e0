use burn::backend::LibTorch;
use burn::backend::tensor::FloatTensor;

use super::{LinearOps, Products};

impl LinearOps for LibTorch {
    fn packed_linear_add(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        _: Products,
    ) -> FloatTensor<Self> {
        let (shape, [input, output]) = (residual.tensor.size(), [weight.tensor.size()[0], weight.tensor.size()[1]]);
        let rows = residual.tensor.reshape([-1, output]);
        let sum = rows.addmm(&x.tensor.reshape([-1, input]), &weight.tensor);
        FloatTensor::<Self>::new(sum.reshape(shape))
    }
}
