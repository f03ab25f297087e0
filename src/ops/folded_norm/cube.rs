//! The kernels of what reads the product, told of the rows.

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;

use super::{FoldedNormOps, Heads, Turn};
use crate::ops::{cache, rope, swiglu};

impl FoldedNormOps for CubeBackend {
    fn normed_rope(
        qkv: FloatTensor<Self>,
        x: FloatTensor<Self>,
        eps: f64,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        heads: usize,
        first: usize,
    ) -> FloatTensor<Self> {
        rope::cube::rotate(qkv, [cos, sin], heads, first, Turn::Forward, Some((x, eps)))
    }

    fn normed_turn_and_put(
        qkv: FloatTensor<Self>,
        x: FloatTensor<Self>,
        eps: f64,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        first: usize,
        heads: Heads,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        cache::cube::turn_and_put(qkv, [cos, sin], [keys, values], first, heads, Some((x, eps)))
    }

    fn normed_swiglu(gate_up: FloatTensor<Self>, x: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        swiglu::cube::forward(gate_up, Some((x, eps)))
    }
}
