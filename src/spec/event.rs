use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use burnmark_backend_api::{Capabilities, FoundDevice};

use super::{
    CellSpec, Mode, Observation, OperationObservation, OperationsSpec, Peaks, Precision, VerifyReport, VerifySpec,
    Workload,
};

/// What the parent asks of a child: one JSON document on its standard input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
pub enum Job {
    /// Measure one cell.
    Measure {
        /// The cell.
        #[serde(flatten)]
        cell: CellSpec,
        /// Folder of what tuning finds and leaves; `None` is the backend's own place.
        cache: Option<PathBuf>,
        /// Whether the steps themselves are all that is wanted, and nothing that is read from further ones.
        #[serde(default)]
        once: bool,
    },
    /// Prove the numbers.
    Verify {
        /// What is proven.
        #[serde(flatten)]
        gate: VerifySpec,
        /// Folder of what tuning finds and leaves; `None` is the backend's own place.
        cache: Option<PathBuf>,
    },
    /// Measure operations.
    Operations {
        /// Which, at which size.
        #[serde(flatten)]
        spec: OperationsSpec,
        /// Folder of what tuning finds and leaves; `None` is the backend's own place.
        cache: Option<PathBuf>,
    },
    /// Open a device and tell of it.
    Open {
        /// Which, and how.
        #[serde(flatten)]
        spec: DeviceSpec,
        /// Folder of what tuning finds and leaves; `None` is the backend's own place.
        cache: Option<PathBuf>,
        /// Whether its peaks are measured as well.
        peaks: bool,
    },
    /// List a backend's devices.
    Devices {
        /// The backend.
        backend: String,
    },
}

impl Job {
    /// The backend it is for.
    #[must_use]
    pub fn backend(&self) -> &str {
        match self {
            Self::Measure { cell, .. } => &cell.backend,
            Self::Verify { gate, .. } => &gate.backend,
            Self::Operations { spec, .. } => &spec.backend,
            Self::Open { spec, .. } => &spec.backend,
            Self::Devices { backend } => backend,
        }
    }
}

/// A device in one mode and precision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// Backend and device.
    pub backend: String,
    /// Execution mode.
    pub mode: Mode,
    /// Element type.
    pub precision: Precision,
}

impl DeviceSpec {
    /// What a cell runs on.
    #[must_use]
    pub fn of(cell: &CellSpec) -> Self {
        Self { backend: cell.backend.clone(), mode: cell.mode, precision: cell.precision }
    }
}

/// Part of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Steps whose times are kept but are not samples.
    Warmup,
    /// Steps that are samples.
    Measure,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warmup => "warm-up",
            Self::Measure => "measure",
        })
    }
}

/// The device a child opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceReport {
    /// Backend name, such as `flex`.
    pub backend: String,
    /// Device as the user would name it, such as `flex` or `cuda:0`.
    pub device: String,
    /// What the hardware or driver calls it.
    pub name: String,
    /// The driver or library that it is reached by, with its version, where that can be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Threads the backend computes with, where that is a fixed number.
    pub threads: Option<usize>,
}

impl fmt::Display for DeviceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.device, self.name)?;
        if let Some(driver) = &self.driver {
            write!(f, ", {driver}")?;
        }
        if let Some(threads) = self.threads {
            write!(f, ", {threads} threads")?;
        }
        f.write_str(")")
    }
}

/// What of the request was put into effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// Execution mode that was asked for.
    pub requested_mode: Mode,
    /// What the backend made of it, in words: `eager`, `fusion + autotune`.
    pub execution: String,
    /// Element type used.
    pub precision: Precision,
    /// The vendor's library that makes the matrix products of variants that ask for it, by name and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_products: Option<String>,
    /// Requests that the backend could not meet, each with its reason.
    pub notes: Vec<String>,
}

/// What a child tells its parent: one JSON document a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "a few dozen live in a whole run")]
pub enum Event {
    /// The device is open.
    Opened {
        /// The device.
        device: DeviceReport,
        /// What was put into effect.
        applied: Applied,
    },
    /// A phase began.
    PhaseStarted {
        /// Of this workload.
        workload: Workload,
        /// This phase.
        phase: Phase,
        /// With this many steps.
        steps: usize,
    },
    /// A step ended; sent now and then.
    Progress {
        /// Of this workload.
        workload: Workload,
        /// In this phase.
        phase: Phase,
        /// Steps done, from 1.
        step: usize,
        /// Of so many.
        steps: usize,
        /// The step's wall clock.
        step_ns: u64,
    },
    /// The devices of a backend.
    Found {
        /// The devices.
        devices: Vec<FoundDevice>,
        /// What the backend can do on them.
        capabilities: Capabilities,
    },
    /// What the device can do at most.
    Peaks(Peaks),
    /// An operation is measured.
    OperationObserved(OperationObservation),
    /// A workload is complete.
    Observed(Observation),
    /// A variant is verified; sent again for the next, and kept together.
    Verified(VerifyReport),
    /// The job is complete; nothing follows.
    Finished,
    /// The job failed; nothing follows.
    Failed(Failure),
}

/// Why a job failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The backend, device or feature is not there.
    Unsupported,
    /// Memory ran out, or the limit was reached.
    OutOfMemory,
    /// It ran past its time limit and was stopped.
    TimedOut,
    /// It panicked, aborted or was killed.
    Crashed,
    /// It did not speak the protocol.
    Protocol,
    /// It computed something else than the reference.
    WrongAnswer,
    /// An optimisation that it is named for did not run.
    Unproven,
    /// The user stopped the run.
    Interrupted,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsupported => "unsupported",
            Self::OutOfMemory => "out of memory",
            Self::TimedOut => "timed out",
            Self::Crashed => "crashed",
            Self::Protocol => "protocol error",
            Self::WrongAnswer => "wrong answer",
            Self::Unproven => "not what its name says",
            Self::Interrupted => "interrupted",
        })
    }
}

/// A failure that takes the place of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// What sort.
    pub kind: FailureKind,
    /// What happened and what to do about it.
    pub message: String,
    /// The last lines of the child's standard error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr: String,
}

impl Failure {
    /// A failure without the child's output, which the runner adds.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), stderr: String::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_told_with_what_is_known_of_it() {
        let told = |driver: Option<&str>, threads| {
            let [backend, device, name] = ["tch", "tch:cpu", "a processor"].map(str::to_owned);
            DeviceReport { backend, device, name, driver: driver.map(str::to_owned), threads }.to_string()
        };
        assert_eq!(told(None, None), "tch:cpu (a processor)");
        assert_eq!(told(Some("LibTorch 2.9.1"), Some(2)), "tch:cpu (a processor, LibTorch 2.9.1, 2 threads)");
    }
}
