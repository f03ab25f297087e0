use std::time::{Duration, SystemTime};

use burnmark_backend_api::TuningEvents;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::{CommandError, caches};
use crate::backends;
use crate::config::Limits;
use crate::runner::{self, Child, Collected, Executor, ProcessExecutor, StopFlag};
use crate::spec::{Event, Failure, FailureKind, Job};

/// Share of the machine's memory a cell may use if the experiment does not say: the rest keeps the machine alive.
const USUAL_MEMORY_PERCENT: u64 = 90;

/// What CubeCL 0.11's tuning database (turso 0.8) says when two of its threads have got into each other's way. It is
/// rare and not the job's doing, so the job runs anew.
const DATABASE_RACE: &str = "reader slot released by non-owner";

/// How often a job runs at most for that reason.
const ATTEMPTS: usize = 3;

/// A child of this very program for every job, or of the program that a backend of its own names.
pub(super) struct Children(ProcessExecutor);

impl Children {
    pub(super) fn new(limits: &Limits, stop: StopFlag, verbose: bool) -> Result<Self, CommandError> {
        let program = std::env::current_exe().map_err(CommandError::OwnProgram)?;
        Ok(Self(ProcessExecutor {
            child: Child { program, arguments: vec!["__cell".into()], environment: Vec::new() },
            limits: runner::Limits {
                timeout: Duration::from_secs(limits.timeout_s),
                memory_bytes: limits.memory_mb.map(|mb| mb << 20).or_else(usual_memory),
            },
            stop,
            verbose,
        }))
    }
}

impl Executor for Children {
    fn execute(&self, job: &Job, on_event: &mut dyn FnMut(&Event)) -> Collected {
        let mut done = self.once(job, on_event);
        for _ in 1..ATTEMPTS {
            if !done.failure.as_ref().is_some_and(|failure| failure.stderr.contains(DATABASE_RACE)) {
                break;
            }
            tracing::warn!("CubeCL's tuning database failed ({DATABASE_RACE}); the job runs anew");
            done = self.once(job, on_event);
        }
        done
    }
}

impl Children {
    fn once(&self, job: &Job, on_event: &mut dyn FnMut(&Event)) -> Collected {
        let mut child = backends::external(job.backend()).unwrap_or_else(|| self.0.child.clone());
        match caches::prepared(job) {
            Ok(variables) => child.environment.extend(variables),
            Err(error) => {
                let message =
                    format!("its tuning cache cannot be made ready: {error}; TMPDIR names another place for it");
                let failure = Some(Failure::new(FailureKind::Crashed, message));
                return Collected { failure, ..Collected::default() };
            }
        }
        let began = SystemTime::now();
        let mut done = ProcessExecutor { child, ..self.0.clone() }.execute(job, on_event);
        done.tuning = tuned(job, &done, began);
        if done.failure.is_none()
            && let Err(error) = caches::filled(job)
        {
            tracing::warn!("a tuning cache is filled and cannot be marked so, a warm cell fills it again: {error}");
        }
        done
    }
}

/// What the job's process tuned and compiled, read from its cache once it is gone, so that one that was ended early tells it too.
fn tuned(job: &Job, done: &Collected, began: SystemTime) -> Option<TuningEvents> {
    let Job::Measure { cache: Some(folder), .. } = job else { return None };
    // Without a device nothing was tuned.
    let (Some(process), true) = (done.process, done.device.is_some()) else { return None };
    let (backend, _) = backends::find(job.backend()).ok()?;
    let events = backend.tuning_store()?.events(folder, process, began);
    events.inspect_err(|why| tracing::warn!("what was tuned is not known: {why}")).ok()
}

fn usual_memory() -> Option<u64> {
    let what = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let total = System::new_with_specifics(what).ok()?.total_memory();
    (total > 0).then(|| total / 100 * USUAL_MEMORY_PERCENT)
}
