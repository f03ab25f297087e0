use std::process::ExitCode;

use super::executor::Children;
use super::kept_peaks::PeaksCache;
use super::output::{complain, pretty, print, save};
use super::{CommandError, caches, planned};
use crate::backends;
use crate::cli::OpsArgs;
use crate::config;
use crate::model::Registry;
use crate::record::{OperationsRecord, OperationsResults, Origin, PeaksRecord, store};
use crate::report::ops::operations;
use crate::runner::{Executor, StopFlag};
use crate::spec::{DeviceSpec, Job, Operation, OperationsSpec, StepSpec};

/// `burnmark ops`: every operation beside its reference, at every size of the experiment, on every backend.
pub(crate) fn run(arguments: &OpsArgs, registry: &Registry) -> Result<ExitCode, CommandError> {
    let experiment = config::load(arguments.experiment.config.as_deref(), &arguments.experiment.flags())?.experiment;
    let plan = planned(&experiment, registry)?;
    let output = arguments.experiment.output.as_deref();
    if let Some(path) = output {
        store::check_writable(path)?;
    }
    let named = if arguments.ops.is_empty() { Operation::ALL.to_vec() } else { arguments.ops.clone() };
    let mut specs: Vec<OperationsSpec> = Vec::new();
    for cell in &plan.cells {
        let spec = OperationsSpec {
            backend: cell.backend.clone(),
            mode: cell.mode,
            precision: cell.precision,
            model: cell.model.clone(),
            batch_size: cell.batch_size,
            seq_length: cell.seq_length,
            steps: StepSpec { warmup_steps: experiment.steps.warmup, benchmark_steps: experiment.steps.benchmark },
            seed: cell.seed,
            operations: named.clone(),
        };
        if !specs.contains(&spec) {
            specs.push(spec);
        }
    }
    let stop = StopFlag::install()?;
    let executor = Children::new(&experiment.limits, stop.clone(), arguments.print.verbose)?;
    let mut results =
        OperationsResults { origin: Origin::here(backends::features()), peaks: Vec::new(), records: Vec::new() };
    let cache = PeaksCache::new(&executor);
    let mut saved = true;
    for spec in specs {
        let job = Job::Operations { spec: spec.clone(), cache: Some(caches::kept()) };
        let done = executor.execute(&job, &mut |_| {});
        if let Some(failure) = &done.failure {
            complain(&format!("error: operations on {}: {failure}", spec.backend));
        }
        let device = DeviceSpec { backend: spec.backend.clone(), mode: spec.mode, precision: spec.precision };
        let opened = done.device.as_ref().filter(|_| !stop.is_set());
        let peaks = opened.map(|opened| {
            let wanted = PeaksRecord::unmeasured(device, &opened.name, &results.origin.environment);
            let known = results.peaks.iter().position(|known| known.same_device(&wanted));
            let known = known.unwrap_or_else(|| {
                results.peaks.push(cache.found(wanted, false).peaks);
                results.peaks.len() - 1
            });
            results.peaks[known].figures()
        });
        results.records.push(OperationsRecord {
            spec,
            device: done.device,
            applied: done.applied,
            peaks,
            observations: done.operations,
            failure: done.failure,
        });
        saved = output.is_none_or(|path| save(path, &results));
        if !saved || stop.is_set() {
            break;
        }
    }
    if arguments.print.json {
        print(&pretty(&results))?;
    } else if !arguments.print.quiet {
        print(&operations(&results))?;
    }
    Ok(if stop.is_set() {
        ExitCode::from(130)
    } else if !saved {
        ExitCode::FAILURE
    } else if !results.agrees() {
        ExitCode::from(3)
    } else if !results.complete() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
