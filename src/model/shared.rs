//! What all layers of the decoder use: sizes, switches, and the operations that they choose.

use std::ops::Range;

use burn::tensor::{DType, Device, Int, Tensor};

use super::layers::{Linear, Norm};
use super::{Optimization, Optimizations, plain};
use crate::ops;
use crate::ops::Products;
use crate::ops::attention::Heads;
use crate::ops::rope::RopeTables;
use crate::spec::ModelConfig;

/// What all layers use.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub config: ModelConfig,
    pub optimizations: Optimizations,
    /// Whether the layers' norms have no scale, and the weights behind them what it was.
    pub folds: bool,
    pub heads: Heads,
    pub tables: Option<RopeTables>,
    pub dtype: DType,
    pub device: Device,
}

/// Where a forward pass stands in its sequences.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub first: First,
    pub tables: RopeTables,
    /// Row of the tables that the first position uses; not looked at where [`Shared::turns_into_cache`].
    pub row: usize,
}

/// The first position of a forward pass.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one lives for each pass")]
pub(super) enum First {
    /// This one.
    Known(usize),
    /// The only one of the pass, its number in a tensor `[1]`: replaying a recording moves on.
    InTensor(Tensor<1, Int>),
}

impl Shared {
    pub fn has(&self, optimization: Optimization) -> bool {
        self.optimizations.has(optimization)
    }

    /// Who makes the products that the model does not leave to Burn.
    pub fn products(&self) -> Products {
        if self.has(Optimization::VendorProducts) { Products::Vendor } else { Products::Tuned }
    }

    /// Who makes the products of linear layers, if they go through our operation.
    pub fn linear(&self) -> Option<Products> {
        (self.has(Optimization::Linear) || self.has(Optimization::VendorProducts)).then(|| self.products())
    }

    pub fn norm(&self, norm: &Norm, x: Tensor<3>) -> Tensor<3> {
        let (weight, eps) = (norm.weight.val(), self.config.rms_norm_eps);
        if self.has(Optimization::RmsNorm) { ops::rms_norm(x, weight, eps) } else { plain::rms_norm(x, weight, eps) }
    }

    /// Products of `x`, normalised, with each of `linears`. In generation, where launches are what costs, each is one
    /// operation.
    pub fn normed(&self, norm: &Norm, linears: &[Linear], x: Tensor<3>, generates: bool) -> Vec<Tensor<3>> {
        let by = self.products();
        if generates && self.has(Optimization::Linear) && self.has(Optimization::RmsNorm) {
            let (scale, eps) = (norm.weight.val(), self.config.rms_norm_eps);
            let product = |linear: &Linear| {
                ops::fused_linear::rms_norm_linear(x.clone(), scale.clone(), linear.weight(), eps, by)
            };
            return linears.iter().map(product).collect();
        }
        let h = self.norm(norm, x);
        linears.iter().map(|linear| linear.forward(h.clone(), self.linear())).collect()
    }

    /// Gate and up-projection as [`Self::swiglu`] wants them: side by side in one tensor, or in two.
    pub fn gate_up(&self, mut projected: Vec<Tensor<3>>) -> Vec<Tensor<3>> {
        let width = self.config.intermediate_size;
        match (projected.len(), self.has(Optimization::Swiglu)) {
            (2, true) => vec![Tensor::cat(projected, 2)],
            (1, false) => {
                let both = projected.remove(0);
                vec![both.clone().narrow(2, 0, width), both.narrow(2, width, width)]
            }
            _ => projected,
        }
    }

    /// The gated block of [`Self::gate_up`], `[batch, seq, intermediate]`.
    pub fn swiglu(&self, mut gate_up: Vec<Tensor<3>>) -> Tensor<3> {
        let first = gate_up.remove(0);
        if self.has(Optimization::Swiglu) { ops::swiglu(first) } else { plain::swiglu(first, gate_up.remove(0)) }
    }

    /// Gradients of gate and up-projection, in as many tensors as there are projections.
    pub fn swiglu_backward(
        &self,
        mut gate_up: Vec<Tensor<3>>,
        gradient: Tensor<3>,
        projections: usize,
    ) -> Vec<Tensor<3>> {
        let (width, first) = (self.config.intermediate_size, gate_up.remove(0));
        if self.has(Optimization::Swiglu) {
            let both = ops::swiglu::swiglu_backward(first, gradient);
            if projections == 1 {
                return vec![both];
            }
            return vec![both.clone().narrow(2, 0, width), both.narrow(2, width, width)];
        }
        let (d_gate, d_up) = plain::swiglu_backward(first, gate_up.remove(0), gradient);
        if projections == 1 { vec![Tensor::cat(vec![d_gate, d_up], 2)] } else { vec![d_gate, d_up] }
    }

    /// Whether queries and keys are turned on their way into the cache.
    pub fn turns_into_cache(&self) -> bool {
        [Optimization::Attention, Optimization::KvCache, Optimization::Rope].into_iter().all(|step| self.has(step))
    }

    /// `residual` plus the product of `x`.
    pub fn added(&self, linear: &Linear, x: Tensor<3>, residual: Tensor<3>, generates: bool) -> Tensor<3> {
        if generates && self.has(Optimization::Linear) {
            return ops::fused_linear::linear_add(x, linear.weight(), residual, self.products());
        }
        linear.forward_add(x, residual, self.linear())
    }

    /// The plain way makes its tables anew in every forward pass, as `transformers` does.
    pub fn place(&self, first: usize, seq: usize) -> Place {
        let (tables, row) = match &self.tables {
            Some(tables) => (tables.clone(), first),
            None => (self.tables(first..first + seq), 0),
        };
        Place { first: First::Known(first), tables, row }
    }

    pub fn tables(&self, positions: Range<usize>) -> RopeTables {
        let (head_dim, theta) = (self.config.head_dim(), self.config.rope_theta);
        RopeTables::new(positions, head_dim, theta, table_dtype(self.dtype), &self.device)
    }
}

/// Positions are turned in at least 32 bits.
pub(super) fn table_dtype(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}
