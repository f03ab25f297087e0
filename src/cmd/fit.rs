use std::process::ExitCode;

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::executor::Children;
use super::output::{complain, pretty, print, save};
use super::{CommandError, caches, planned};
use crate::backends;
use crate::cli::FitArgs;
use crate::config;
use crate::fit::Search;
use crate::model::Registry;
use crate::record::{FitResults, Grown, Origin, store};
use crate::report::fit::largest;
use crate::runner::StopFlag;
use crate::spec::{CellSpec, FailureKind, Job, TuningCache, Workload};

/// `burnmark fit`: the largest batch or sequence of every variant on every backend.
pub(crate) fn run(arguments: &FitArgs, registry: &Registry) -> Result<ExitCode, CommandError> {
    let mut flags = arguments.experiment.flags();
    flags.workloads = Some(vec![arguments.workload]);
    let experiment = config::load(arguments.experiment.config.as_deref(), &flags)?.experiment;
    let plan = planned(&experiment, registry)?;
    let output = arguments.experiment.output.as_deref();
    if let Some(path) = output {
        store::check_writable(path)?;
    }
    let mut limits = experiment.limits.clone();
    limits.memory_mb = limits.memory_mb.or_else(available_mb);
    let new_tokens = if arguments.workload == Workload::Generation { experiment.generation.new_tokens } else { 0 };
    let positions = experiment.model.sizes().max_position_embeddings - new_tokens;
    let up_to = arguments.up_to as usize;
    let search = Search {
        grown: arguments.grow,
        workload: arguments.workload,
        up_to: if arguments.grow == Grown::Sequence { up_to.min(positions) } else { up_to },
        memory_limit_bytes: limits.memory_mb.map(|mb| mb << 20),
    };
    let stop = StopFlag::install()?;
    let executor = Children::new(&limits, stop.clone(), arguments.print.verbose)?;
    let mut cells: Vec<CellSpec> = Vec::new();
    for cell in &plan.cells {
        // Nothing is timed: no probe has to find less than what is kept.
        let smallest = CellSpec { tuning_cache: TuningCache::Kept, repeat: 0, ..search.sized(cell, 1) };
        if !cells.contains(&smallest) {
            cells.push(smallest);
        }
    }
    let mut results = FitResults {
        origin: Origin::here(backends::features()),
        grown: search.grown,
        workload: search.workload,
        memory_limit_bytes: search.memory_limit_bytes,
        up_to: search.up_to,
        records: Vec::new(),
    };
    let mut saved = true;
    for cell in cells {
        // A backend that is a program of its own has models of its own.
        let predicts = backends::external(&cell.backend).is_none();
        let predict = |cell: &CellSpec| registry.predicted_peak_bytes(cell, search.workload).filter(|_| predicts);
        let job = |cell| Job::Measure { cell, cache: Some(caches::kept()), once: true };
        let record = search.run(&cell, &executor, predict, job, |probe| {
            if arguments.print.verbose {
                let outcome = probe.failure.as_ref().map_or_else(|| "fits".to_owned(), ToString::to_string);
                complain(&format!("{} {}: {} {}: {outcome}", cell.backend, cell.variant, search.grown, probe.size));
            }
        });
        results.records.push(record);
        saved = output.is_none_or(|path| save(path, &results));
        if !saved || stop.is_set() {
            break;
        }
    }
    if arguments.print.json {
        print(&pretty(&results))?;
    } else if !arguments.print.quiet {
        print(&largest(&results))?;
    }
    let failures = || results.records.iter().filter_map(|record| record.failure.as_ref());
    Ok(if stop.is_set() || failures().any(|failure| failure.kind == FailureKind::Interrupted) {
        ExitCode::from(130)
    } else {
        ExitCode::from(u8::from(!saved || failures().next().is_some()))
    })
}

/// Memory of the machine that nobody uses now, in MB of 2^20 bytes.
fn available_mb() -> Option<u64> {
    let what = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let available = System::new_with_specifics(what).ok()?.available_memory() >> 20;
    (available > 0).then_some(available)
}
