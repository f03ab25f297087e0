use std::process::ExitCode;

use super::caches;
use super::executor::Children;
use super::output::{complain, pretty, print};
use super::{CommandError, available, planned};
use crate::cli::VerifyArgs;
use crate::config;
use crate::model::Registry;
use crate::plan::verifications;
use crate::record::{GateOutcome, GateRecord};
use crate::report::verify::verification;
use crate::runner::{Executor, StopFlag};
use crate::spec::{FailureKind, Job, Precision, Tolerance, VerifySpec};

/// `burnmark verify`: prove the numbers, on every backend, mode and precision of the experiment.
pub(crate) fn run(arguments: &VerifyArgs, registry: &Registry) -> Result<ExitCode, CommandError> {
    let experiment = config::load(arguments.experiment.config.as_deref(), &arguments.experiment.flags())?.experiment;
    let plan = planned(&experiment, registry)?;
    let stop = StopFlag::install()?;
    let executor = Children::new(&experiment.limits, stop.clone(), arguments.print.verbose)?;
    // A file's numbers are as exact as single precision, whatever precision they are held against.
    let file = Tolerance::of(Precision::F32, false);
    let mut records = Vec::new();
    for spec in verifications(&experiment, &available(registry), &plan.cells) {
        let spec = match &arguments.reference {
            Some(path) => VerifySpec { reference: Some(path.clone()), tolerance: spec.tolerance.with(&file), ..spec },
            None => spec,
        };
        let done = executor.execute(&Job::Verify { gate: spec.clone(), cache: Some(caches::kept()) }, &mut |_| {});
        let record = GateRecord::new(spec, done.verification, done.failure);
        if !arguments.print.json {
            show(&record, arguments)?;
        }
        records.push(record);
    }
    if arguments.print.json {
        print(&pretty(&records))?;
    }
    Ok(if stop.is_set() { ExitCode::from(130) } else { verdict(&records) })
}

fn show(record: &GateRecord, arguments: &VerifyArgs) -> Result<(), CommandError> {
    let spec = &record.spec;
    match &record.outcome {
        GateOutcome::Incomplete { failure } => {
            complain(&format!("error: verification on {} {}: {failure}", spec.backend, spec.precision));
            if !failure.stderr.is_empty() {
                complain(&failure.stderr);
            }
        }
        GateOutcome::Passed { report } | GateOutcome::Failed { report } if !arguments.print.quiet => {
            let heading = format!("{} · {} · {}\n", spec.backend, spec.mode, spec.precision);
            print(&(heading + &verification(report, arguments.print.verbose)))?;
        }
        _ => {}
    }
    Ok(())
}

fn verdict(records: &[GateRecord]) -> ExitCode {
    let failures: Vec<FailureKind> = records
        .iter()
        .filter_map(|record| match &record.outcome {
            GateOutcome::Incomplete { failure } => Some(failure.kind),
            _ => None,
        })
        .collect();
    if records.iter().any(|record| matches!(record.outcome, GateOutcome::Failed { .. })) {
        ExitCode::from(3)
    } else if failures.iter().any(|kind| *kind != FailureKind::Unsupported) {
        ExitCode::FAILURE
    } else if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    }
}
