//! burnmark: is the optimised transformer really faster and leaner than the plain one, and still correct?
//!
//! Data flows one way:
//!
//! ```text
//! Experiment (TOML + flags) -> Plan (cells) -> one child process per cell -> Observations (raw samples)
//!                                                                        -> Results (versioned JSON) -> reports
//! ```

pub mod app;
pub mod backends;
pub mod cell;
mod cli;
mod cmd;
pub mod compare;
pub mod config;
pub mod fit;
pub mod history;
pub mod measure;
pub mod model;
pub mod ops;
pub mod plan;
pub mod record;
pub mod report;
pub mod runner;
pub mod spec;
pub mod stats;

#[cfg(feature = "flex")]
pub use burnmark_backend_flex::CountingAllocator;
