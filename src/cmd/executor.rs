use std::time::Duration;

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::CommandError;
use crate::backends;
use crate::config::Limits;
use crate::runner::{self, Child, Collected, Executor, ProcessExecutor, StopFlag};
use crate::spec::{Event, Job};

/// Share of the machine's memory a cell may use if the experiment does not say: the rest keeps the machine alive.
const USUAL_MEMORY_PERCENT: u64 = 90;

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
        match backends::external(job.backend()) {
            Some(child) => ProcessExecutor { child, ..self.0.clone() }.execute(job, on_event),
            None => self.0.execute(job, on_event),
        }
    }
}

fn usual_memory() -> Option<u64> {
    let what = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let total = System::new_with_specifics(what).ok()?.total_memory();
    (total > 0).then(|| total / 100 * USUAL_MEMORY_PERCENT)
}
