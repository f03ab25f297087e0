use std::path::Path;
use std::time::{Instant, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a cell's time axis begins: the moment its device was open.
pub type Origin = Instant;

/// One candidate's run within a tune.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trial {
    /// Name of the candidate.
    pub name: String,
    /// Compiling and timing it, in nanoseconds.
    pub wall_ns: u64,
}

/// One question that was tuned: candidates were timed, the fastest is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TunedKey {
    /// When it began, in nanoseconds since the device was open.
    pub at_ns: u64,
    /// From the question to its answer, in nanoseconds; compiling the candidates is part of it.
    pub wall_ns: u64,
    /// Operation it is for.
    pub table: String,
    /// The question: shapes, types, layouts.
    pub key: String,
    /// The candidate that is used from then on.
    pub winner: String,
    /// Candidates there are.
    pub candidates: usize,
    /// Those that were run, in order.
    pub trials: Vec<Trial>,
    /// Whether the answer was kept for later processes.
    pub stored: bool,
}

/// One kernel that was made ready to launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CompiledKernel {
    /// When it began, in nanoseconds since the device was open.
    pub at_ns: u64,
    /// What it took, in nanoseconds.
    pub wall_ns: u64,
    /// Name of the kernel.
    pub kernel: String,
    /// Whether it came from an earlier process instead of the compiler.
    pub loaded: bool,
}

/// What a process tuned and compiled, in the order it happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TuningEvents {
    /// Answers that were there when the device was opened.
    pub known_at_start: usize,
    /// Questions tuned.
    pub tuned: Vec<TunedKey>,
    /// Kernels made ready.
    pub compiled: Vec<CompiledKernel>,
}

/// A tuning cache at rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TuningContents {
    /// Answers it holds.
    pub answers: usize,
    /// Compiled kernels it holds.
    pub kernels: usize,
    /// What was tuned, as it was recorded; the last tune of each question.
    pub tuned: Vec<TunedKey>,
}

/// Reads and copies tuning caches.
pub trait TuningStore {
    /// What the cache in `folder` holds.
    fn contents(&self, folder: &Path) -> Result<TuningContents, String>;

    /// What a process tuned and compiled with its cache in `folder` from [`Backend::record_tuning`](crate::Backend::record_tuning)
    /// on, however it ended; or why that cannot be told. `process` is its id, which others have had that began before `since`.
    fn events(&self, folder: &Path, process: u32, since: SystemTime) -> Result<TuningEvents, String>;

    /// Copies the cache in `folder` to one in `to`, without the account of how it came to be.
    fn export(&self, folder: &Path, to: &Path) -> Result<(), String>;
}

/// The launches of one kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KernelUse {
    /// Name of the kernel.
    pub kernel: String,
    /// How often it was launched.
    pub launches: u64,
    /// Device time of all launches, in nanoseconds, where the device has a clock.
    pub device_ns: Option<u64>,
    /// Whether the fusion engine put it together.
    pub fused: bool,
}

/// Counts kernel launches for as long as it lives.
pub trait LaunchWatch {
    /// The kernels launched so far, those that took longest first; the device must have finished.
    fn kernels(&self) -> Vec<KernelUse>;
}
