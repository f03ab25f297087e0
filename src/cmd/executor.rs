use std::time::Duration;

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::CommandError;
use crate::config::Limits;
use crate::runner::{self, Child, ProcessExecutor, StopFlag};

/// Share of the machine's memory a cell may use if the experiment does not say: the rest keeps the machine alive.
const USUAL_MEMORY_PERCENT: u64 = 90;

/// Children of this very program.
pub(super) fn own_children(limits: &Limits, stop: StopFlag, verbose: bool) -> Result<ProcessExecutor, CommandError> {
    let program = std::env::current_exe().map_err(CommandError::OwnProgram)?;
    Ok(ProcessExecutor {
        child: Child { program, arguments: vec!["__cell".into()], environment: Vec::new() },
        limits: runner::Limits {
            timeout: Duration::from_secs(limits.timeout_s),
            memory_bytes: limits.memory_mb.map(|mb| mb << 20).or_else(usual_memory),
        },
        stop,
        verbose,
    })
}

fn usual_memory() -> Option<u64> {
    let what = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let total = System::new_with_specifics(what).ok()?.total_memory();
    (total > 0).then(|| total / 100 * USUAL_MEMORY_PERCENT)
}
