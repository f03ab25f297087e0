//! What LibTorch has no fused call for: there an operation is the composition.

use burn::backend::LibTorch;

use super::rope::RopeOps;

impl RopeOps for LibTorch {}
