use burn::backend::LibTorch;
use burn::backend::tensor::FloatTensor;
use tch::Tensor;

use super::SwigluOps;

impl SwigluOps for LibTorch {
    fn swiglu(gate_up: FloatTensor<Self>) -> FloatTensor<Self> {
        let (gate, up) = halves(&gate_up.tensor);
        FloatTensor::<Self>::new(gate.silu() * up)
    }

    fn swiglu_backward(gate_up: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let (gate, up) = halves(&gate_up.tensor);
        let d_gate = gate.silu_backward(&(&gradient.tensor * up));
        let d_up = &gradient.tensor * gate.silu();
        FloatTensor::<Self>::new(Tensor::cat(&[d_gate, d_up], -1))
    }
}

fn halves(gate_up: &Tensor) -> (Tensor, Tensor) {
    let n = gate_up.size().last().copied().unwrap_or(0) / 2;
    (gate_up.narrow(-1, 0, n), gate_up.narrow(-1, n, n))
}
