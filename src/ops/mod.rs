//! The optimised model's operations, one folder each: `mod.rs` has the formula, the contract and the function models
//! call; `generic.rs` the composition every backend has; `flex.rs` the CPU kernels; `cube.rs` those for CubeCL devices; `libtorch.rs` calls of
//! PyTorch's; `autodiff.rs` the hand-written backward.
//!
//! A backend without kernels of its own gets the composition, so a model that calls these runs everywhere.

// Burn marks its LibTorch backend deprecated; it is what holds ours against PyTorch's own kernels.
#![cfg_attr(feature = "tch", expect(deprecated))]

pub mod attention;
pub mod cache;
#[cfg(feature = "tch")]
mod composed;
#[cfg(feature = "cubecl")]
mod cube;
pub mod embedding;
#[cfg(feature = "flex")]
mod flex;
pub mod folded_norm;
pub mod fused_linear;
pub mod linear;
pub mod linear_cross_entropy;
pub(crate) mod precision;
mod primitive;
pub mod recorded_input;
pub mod rms_norm;
pub mod rope;
pub mod swiglu;
#[cfg(all(test, feature = "flex"))]
pub(crate) mod testing;

pub use attention::{attention, attention_at, cached_attention};
pub use linear::{Products, linear, linear_add};
pub use linear_cross_entropy::linear_cross_entropy;
pub use recorded_input::RecordedInput;
pub use rms_norm::rms_norm;
pub use rope::rope;
pub use swiglu::swiglu;
