use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use burnmark_backend_api::{Capabilities, FoundDevice, TuningEvents};

use crate::spec::{Applied, DeviceReport, Event, Failure, Job, Observation, OperationObservation, Peaks, VerifyReport};

/// Something that answers jobs.
///
/// The real one starts a process; the scripted one lets the rest of the program be tested without a process or a
/// clock.
pub trait Executor {
    /// Runs one job to its end, good or bad, handing every event to `on_event` as it arrives.
    ///
    /// It returns what was collected in any case: a failure takes the place of what is missing, not of what is there.
    fn execute(&self, job: &Job, on_event: &mut dyn FnMut(&Event)) -> Collected;
}

/// The program that answers a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// A path, or a name to be looked up in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables set on top of those of this process.
    pub environment: Vec<(OsString, OsString)>,
}

/// What a child may use before it is killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Wall clock from start to exit.
    pub timeout: Duration,
    /// Resident set of the child itself (its own children are not counted), in bytes; `None` for no limit.
    ///
    /// Watched on Linux only.
    pub memory_bytes: Option<u64>,
}

/// Everything one job gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Collected {
    /// The device, once it was open.
    pub device: Option<DeviceReport>,
    /// What of the request was put into effect.
    pub applied: Option<Applied>,
    /// The workloads that were completed, in their order, even if the job failed later.
    pub observations: Vec<Observation>,
    /// What was tuned and compiled, if the backend does either and its cache could be read.
    pub tuning: Option<TuningEvents>,
    /// The checks that were made, if a verification was the job, even if it failed later.
    pub verification: Option<VerifyReport>,
    /// What the device can do at most, if they were asked for.
    pub peaks: Option<Peaks>,
    /// The operations that were measured, in their order.
    pub operations: Vec<OperationObservation>,
    /// The devices and what can be done on them, if that was the job.
    pub found: Option<(Vec<FoundDevice>, Capabilities)>,
    /// Id of the child's process, if it started.
    pub process: Option<u32>,
    /// Wall clock from before the start of the child to after its end.
    pub duration: Duration,
    /// Why the job is not complete; `None` if it is.
    pub failure: Option<Failure>,
}

impl Collected {
    /// Keeps what an event brought.
    pub(super) fn absorb(&mut self, event: Event) {
        match event {
            Event::Opened { device, applied } => {
                self.device = Some(device);
                self.applied = Some(applied);
            }
            Event::Observed(observation) => self.observations.push(observation),
            Event::Peaks(peaks) => self.peaks = Some(peaks),
            Event::OperationObserved(observation) => self.operations.push(observation),
            Event::Verified(report) => match &mut self.verification {
                Some(so_far) => so_far.checks.extend(report.checks),
                none => *none = Some(report),
            },
            Event::Found { devices, capabilities } => self.found = Some((devices, capabilities)),
            Event::Failed(failure) => self.failure = Some(failure),
            Event::PhaseStarted { .. } | Event::Progress { .. } | Event::Finished => {}
        }
    }
}
