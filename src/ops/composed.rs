//! What LibTorch has no fused call for: there an operation is the composition.

use burn::backend::LibTorch;

use super::linear_cross_entropy::LinearCrossEntropyOps;
use super::rope::RopeOps;

impl LinearCrossEntropyOps for LibTorch {}

impl RopeOps for LibTorch {}
