//! Backends without kernels of their own: every operation is the composition.

use super::attention::{AttentionOps, CachedAttentionOps};
use super::linear::LinearOps;
use super::linear_cross_entropy::LinearCrossEntropyOps;
use super::rms_norm::RmsNormOps;
use super::rope::RopeOps;
use super::swiglu::SwigluOps;

macro_rules! composed {
    ($backend:ty) => {
        impl AttentionOps for $backend {}
        impl CachedAttentionOps for $backend {}
        impl LinearOps for $backend {}
        impl LinearCrossEntropyOps for $backend {}
        impl RmsNormOps for $backend {}
        impl RopeOps for $backend {}
        impl SwigluOps for $backend {}
    };
}

#[cfg(feature = "cubecl")]
composed!(burn::backend::Cube);
#[cfg(feature = "tch")]
composed!(burn::backend::LibTorch);
