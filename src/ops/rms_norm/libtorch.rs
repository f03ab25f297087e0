use burn::backend::LibTorch;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{RmsNormOps, generic};

impl RmsNormOps for LibTorch {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        if x.dtype() != weight.dtype() {
            return generic::forward::<Self>(x, weight, eps);
        }
        let columns = weight.tensor.size();
        FloatTensor::<Self>::new(x.tensor.rms_norm(columns, Some(&weight.tensor), eps))
    }
}
