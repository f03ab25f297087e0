//! The program as a user runs it.

#![expect(clippy::tests_outside_test_module, reason = "an integration test is one whole")]

/// Figures and text that depend on the machine do not; the rest is snapshot.
mod support;

/// Vulkan on the processor, LibTorch and PyTorch beside flex.
#[cfg(all(feature = "vulkan", feature = "tch"))]
mod backends;
/// HTML reports in a browser.
mod browser;
/// Help, versions, `config`, `plan`: nothing is measured.
mod cli;
/// Runs against runs, reports, and what else reads results.
mod compare;
/// Whatever a cell does, the others run and nothing is lost.
mod faults;
/// The largest size that fits.
mod fit;
/// Models of one's own through the library.
mod library;
/// Predicted memory against what is counted.
mod memory;
/// Operations beside their references.
mod ops;
/// What devices can do at most.
mod peaks;
/// A small experiment end to end.
mod run;
/// Proof of numbers, from files good and bad.
mod verify;
