//! What backends have no kernels for: there an operation is the composition.

#[cfg(feature = "cubecl")]
use super::linear::LinearOps;
#[cfg(feature = "tch")]
use super::{linear_cross_entropy::LinearCrossEntropyOps, rope::RopeOps};

macro_rules! composed {
    ($backend:ty: $($operation:ident),+) => { $(impl $operation for $backend {})+ };
}

#[cfg(feature = "cubecl")]
composed!(burn_cubecl::CubeBackend: LinearOps);
#[cfg(feature = "tch")]
composed!(burn::backend::LibTorch: LinearCrossEntropyOps, RopeOps);
