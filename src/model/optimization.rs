use std::fmt;

use crate::spec::Workload;

/// One thing the optimised decoder does differently from the plain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimization {
    /// Query, key and value projections as one matrix, gate and up-projection as another.
    FusedWeights,
    /// Linear layers through [`crate::ops::linear`]; residuals added by the product itself.
    Linear,
    /// Products of linear layers by the vendor's library where there is one, see [`crate::ops::Products`].
    VendorProducts,
    /// RMSNorm through [`crate::ops::rms_norm()`].
    RmsNorm,
    /// Where nothing is trained: scales of the layers' norms multiplied into the weights behind them, rows divided by what reads the
    /// products, see [`crate::ops::folded_norm`]; wants everything that takes part in it, and a device that it spares launches.
    FoldedNorms,
    /// Rotary tables computed once, rotation through [`crate::ops::rope()`].
    Rope,
    /// SwiGLU through [`crate::ops::swiglu()`].
    Swiglu,
    /// Attention through [`crate::ops::attention()`]: no repeated heads, no scores of the whole sequence.
    Attention,
    /// Key-value cache allocated once and written in place.
    KvCache,
    /// Loss through [`crate::ops::linear_cross_entropy()`]: no logits of the whole batch.
    Loss,
    /// Training's backward pass by hand instead of by autodiff, so that a step can be recorded.
    Backward,
    /// Generation projects the last position alone to logits.
    LastLogits,
}

impl Optimization {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::FusedWeights,
        Self::Linear,
        Self::VendorProducts,
        Self::RmsNorm,
        Self::FoldedNorms,
        Self::Rope,
        Self::Swiglu,
        Self::Attention,
        Self::KvCache,
        Self::Loss,
        Self::Backward,
        Self::LastLogits,
    ];
}

impl Optimization {
    /// The CubeCL kernels it launches in a workload, of each set at least one; none if it has no kernel of its own.
    fn kernels(self, workload: Workload) -> &'static [&'static [&'static str]] {
        match (self, workload) {
            (Self::RmsNorm, Workload::Training) => &[&["RmsNormForward"], &["RmsNormGradients"]],
            (Self::RmsNorm, Workload::Inference) => &[&["RmsNormForward"]],
            (Self::RmsNorm, Workload::Generation) => &[&["RmsNormForward", "FusedLinear", "TransposedLinear"]],
            (Self::Rope, Workload::Generation) => &[&["RopeRotate", "CacheTurnPut", "AttentionDecodeTurnedAt"]],
            (Self::Rope, _) => &[&["RopeRotate"]],
            (Self::Swiglu, Workload::Training) => &[&["SwigluForward"], &["SwigluGradient"]],
            (Self::Swiglu, Workload::Inference) => &[&["SwigluForward"]],
            (Self::Swiglu, Workload::Generation) => &[&["SwigluForward", "FusedLinear", "TransposedLinear"]],
            (Self::Attention, Workload::Training) => &[
                &["AttentionForward", "MatrixForward"],
                &["AttentionQueryGradients", "MatrixQueryGradients"],
                &["AttentionKeyGradients", "MatrixKeyGradients"],
            ],
            (Self::Attention, Workload::Inference) => &[&["AttentionForward", "MatrixForward"]],
            (Self::Attention, Workload::Generation) => &[
                &["AttentionForward", "MatrixForward"],
                &["AttentionDecode", "AttentionDecodeAt", "AttentionDecodeTurnedAt"],
            ],
            (Self::Loss, Workload::Training) => &[&["CrossEntropyRows"]],
            (Self::KvCache, Workload::Generation) => {
                &[&["CachePut", "CachePutAt", "CacheTurnPut", "AttentionDecodeTurnedAt"]]
            }
            (
                Self::FusedWeights
                | Self::Linear
                | Self::VendorProducts
                | Self::FoldedNorms
                | Self::KvCache
                | Self::Loss
                | Self::Backward
                | Self::LastLogits,
                _,
            ) => &[],
        }
    }
}

impl fmt::Display for Optimization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FusedWeights => "fused-weights",
            Self::Linear => "linear",
            Self::VendorProducts => "vendor-products",
            Self::RmsNorm => "rms-norm",
            Self::FoldedNorms => "folded-norms",
            Self::Rope => "rope",
            Self::Swiglu => "swiglu",
            Self::Attention => "attention",
            Self::KvCache => "kv-cache",
            Self::Loss => "loss",
            Self::Backward => "backward",
            Self::LastLogits => "last-logits",
        })
    }
}

/// The optimisations of one variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Optimizations(Vec<Optimization>);

impl Optimizations {
    /// Whether `optimization` is on.
    #[must_use]
    pub fn has(&self, optimization: Optimization) -> bool {
        self.0.contains(&optimization)
    }

    /// Whether a layer's norm, its gate and up-projection and the gating are one operation in generation.
    pub(super) fn gate_at_once(&self) -> bool {
        use Optimization::{FusedWeights, Linear, RmsNorm, Swiglu};
        [FusedWeights, Linear, RmsNorm, Swiglu].into_iter().all(|step| self.has(step))
    }

    /// Whether all that takes part in folding norms is on.
    pub(super) fn fold_norms(&self) -> bool {
        self.gate_at_once() && self.has(Optimization::Rope) && self.has(Optimization::FoldedNorms)
    }

    /// Each optimisation with the kernels by which it is known to have run in a workload.
    pub(super) fn own_kernels(&self, workload: Workload) -> Vec<(String, &'static [&'static str])> {
        let of = |optimization: &Optimization| {
            let name = optimization.to_string();
            optimization.kernels(workload).iter().map(move |kernels| (name.clone(), *kernels))
        };
        self.0.iter().flat_map(of).collect()
    }

    /// The optimisations behind a variant's name: `default` has none, `example` all,
    /// `example-without-<optimisation>` all but one, `default-with-<optimisation>` one alone.
    #[must_use]
    pub fn of_variant(name: &str) -> Option<Self> {
        let named = |name: &str| Optimization::ALL.into_iter().find(|optimization| optimization.to_string() == name);
        let chosen = match name {
            "default" => Vec::new(),
            "example" => Optimization::ALL.to_vec(),
            _ => match (name.strip_prefix("example-without-"), name.strip_prefix("default-with-")) {
                (Some(left_out), _) => {
                    let left_out = named(left_out)?;
                    Optimization::ALL.into_iter().filter(|optimization| *optimization != left_out).collect()
                }
                (None, Some(alone)) => vec![named(alone)?],
                (None, None) => return None,
            },
        };
        Some(Self(chosen))
    }
}

/// Every variant name of the built-in decoder.
#[must_use]
pub fn decoder_variants() -> Vec<String> {
    let whole = ["default", "example"].map(str::to_owned);
    let without = Optimization::ALL.map(|optimization| format!("example-without-{optimization}"));
    let with = Optimization::ALL.map(|optimization| format!("default-with-{optimization}"));
    whole.into_iter().chain(without).chain(with).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_has_a_distinct_meaning() {
        let sets: Vec<_> = decoder_variants().iter().map(|name| Optimizations::of_variant(name).expect(name)).collect();
        for (i, set) in sets.iter().enumerate() {
            assert!(!sets[i + 1..].contains(set), "{set:?} stands twice");
        }
    }

    #[test]
    fn unknown_variants_are_refused() {
        for name in ["", "exampel", "example-without-", "example-without-everything", "default-with-magic"] {
            assert_eq!(Optimizations::of_variant(name), None);
        }
    }
}
