//! What backends have no kernels for: there an operation is the composition.

#[cfg(feature = "cubecl")]
use super::attention::{AttentionOps, CachedAttentionOps};
use super::linear::LinearOps;
use super::linear_cross_entropy::LinearCrossEntropyOps;
use super::rms_norm::RmsNormOps;
use super::rope::RopeOps;
use super::swiglu::SwigluOps;

macro_rules! composed {
    ($backend:ty: $($operation:ident),+) => { $(impl $operation for $backend {})+ };
}

#[cfg(feature = "cubecl")]
composed!(burn::backend::Cube: AttentionOps, CachedAttentionOps);
#[cfg(feature = "cubecl")]
composed!(burn::backend::Cube: LinearOps, LinearCrossEntropyOps, RmsNormOps, RopeOps, SwigluOps);
#[cfg(feature = "tch")]
composed!(burn::backend::LibTorch: LinearOps, LinearCrossEntropyOps, RmsNormOps, RopeOps, SwigluOps);
