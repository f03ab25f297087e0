//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864), rotate-half convention, on packed heads.
//!
//! ```text
//! [a, b] -> [a cos - b sin, b cos + a sin]      a, b: halves of one head; angle = position / theta^(2 i / head_dim)
//! ```
//!
//! The gradient is the rotation by the opposite angle. Nothing is saved for backward but the tables.

mod autodiff;
#[cfg(feature = "cubecl")]
pub(super) mod cube;
#[cfg(feature = "flex")]
mod flex;
mod generic;
#[cfg(all(test, feature = "flex"))]
mod tests;

use std::ops::Range;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// Which way [`RopeOps::rope`] turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// By the angle of the position.
    Forward,
    /// Back by it: the gradient.
    Back,
}

impl Turn {
    fn reversed(self) -> Self {
        match self {
            Self::Forward => Self::Back,
            Self::Back => Self::Forward,
        }
    }
}

/// What a backend provides for [`rope`].
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cubecl"),
    LibTorch: cfg(feature = "tch"),
    Fusion: cfg(feature = "cubecl"), Autodiff
)]
pub trait RopeOps: Backend {
    /// Rotates the first `heads` heads of `x [batch, seq, width]`; position `i` uses row `first + i` of the tables
    /// `[positions, head_dim / 2]`. Later features pass through.
    #[fusion(dtype = x, shape = x)]
    fn rope(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        heads: usize,
        first: usize,
        turn: Turn,
    ) -> FloatTensor<Self> {
        generic::rotate::<Self>(x, cos, sin, heads, first, turn)
    }
}

/// Cosine and sine of every position's angles, `[positions, head_dim / 2]` each.
#[derive(Clone, Debug)]
pub struct RopeTables {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl RopeTables {
    /// Tables for a range of positions, angles computed in double precision.
    #[must_use]
    pub fn new(positions: Range<usize>, head_dim: usize, theta: f64, dtype: DType, device: &Device) -> Self {
        let half = head_dim / 2;
        let frequencies: Vec<f64> = (0..half).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect();
        let shape = [positions.len(), half];
        let table = |f: fn(f64) -> f64| {
            let angles = positions.clone().flat_map(|position| frequencies.iter().map(move |x| position as f64 * x));
            Tensor::from_data(TensorData::new(angles.map(f).collect(), shape), (device, dtype))
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// The row of the one position whose number is in `position [1]`.
    #[must_use]
    pub fn at(&self, position: &Tensor<1, Int>) -> Self {
        let row = |table: &Tensor<2>| table.clone().select(0, position.clone());
        Self { cos: row(&self.cos), sin: row(&self.sin) }
    }

    /// Cosine and sine.
    #[must_use]
    pub fn into_parts(self) -> (Tensor<2>, Tensor<2>) {
        (self.cos, self.sin)
    }
}

/// `x [batch, seq, width]` with its first `heads` heads rotated to positions `first..first + seq`.
#[must_use]
pub fn rope(x: Tensor<3>, tables: &RopeTables, heads: usize, first: usize) -> Tensor<3> {
    turned(x, tables, heads, first, Turn::Forward)
}

/// Gradient of [`rope`]'s `x` from that of its result: the rotation back.
#[must_use]
pub fn rope_backward(gradient: Tensor<3>, tables: &RopeTables, heads: usize, first: usize) -> Tensor<3> {
    turned(gradient, tables, heads, first, Turn::Back)
}

fn turned(x: Tensor<3>, tables: &RopeTables, heads: usize, first: usize, turn: Turn) -> Tensor<3> {
    let (cos, sin) = tables.clone().into_parts();
    let (x, cos, sin) = (x.into_dispatch(), cos.into_dispatch(), sin.into_dispatch());
    Tensor::from_dispatch(<Dispatch as RopeOps>::rope(x, cos, sin, heads, first, turn))
}
