use std::process::ExitCode;

use super::caches;
use super::executor::Children;
use super::output::{complain, live_mode, pretty, print, save};
use super::{CommandError, available, planned};
use crate::backends;
use crate::cli::{OutputArgs, VerifyArgs};
use crate::config;
use crate::model::Registry;
use crate::plan::verifications;
use crate::record::{GateOutcome, GateRecord, Origin, VerificationResults, store};
use crate::report::live::Live;
use crate::report::verify::verification;
use crate::runner::{Executor, StopFlag};
use crate::spec::{FailureKind, Job, Precision, Tolerance};

/// `burnmark verify`: prove the numbers, on every backend, mode and precision of the experiment.
pub(crate) fn run(arguments: &VerifyArgs, registry: &Registry) -> Result<ExitCode, CommandError> {
    let experiment = config::load(arguments.experiment.config.as_deref(), &arguments.experiment.flags())?.experiment;
    let plan = planned(&experiment, registry)?;
    let output = arguments.experiment.output.as_deref();
    if let Some(path) = output {
        store::check_writable(path)?;
    }
    let mut gates = verifications(&experiment, &available(registry), &plan.cells);
    if let Some(path) = &arguments.reference {
        // A file's numbers are as exact as single precision, whatever precision they are held against.
        let file = Tolerance::of(Precision::F32, false);
        for gate in &mut gates {
            gate.reference = Some(path.clone());
            gate.tolerance = gate.tolerance.with(&file);
        }
    }
    let stop = StopFlag::install()?;
    let executor = Children::new(&experiment.limits, stop.clone(), arguments.print.verbose)?;
    let mut results = VerificationResults { origin: Origin::here(backends::features()), gates: Vec::new() };
    let mut live = Live::new(live_mode(arguments.print), gates.len());
    let mut saved = true;
    for gate in gates {
        let label = format!("{} · {} · {}", gate.backend, gate.mode, gate.precision);
        live.cell_started(&label);
        let job = Job::Verify { gate: gate.clone(), cache: Some(caches::kept()) };
        let done = executor.execute(&job, &mut |event| live.event(&label, event));
        let record = GateRecord::new(gate, done);
        results.gates.push(record.clone());
        live.cell_finished(&label, true, "");
        saved = output.is_none_or(|path| save(path, &results));
        live.aside(|| show(&label, &record.outcome, arguments.print))?;
        if !saved || stop.is_set() {
            break;
        }
    }
    live.finish();
    if arguments.print.json {
        print(&pretty(&results))?;
    }
    Ok(if stop.is_set() {
        ExitCode::from(130)
    } else if !saved {
        ExitCode::FAILURE
    } else {
        verdict(&results.gates)
    })
}

fn show(label: &str, outcome: &GateOutcome, print_as: OutputArgs) -> Result<(), CommandError> {
    if !print_as.json
        && !print_as.quiet
        && let Some(checks) = verification(outcome, print_as.verbose)
    {
        print(&format!("{label}\n{checks}"))?;
    }
    if let GateOutcome::Incomplete { failure, .. } = outcome {
        complain(&format!("error: verification on {label}: {failure}"));
        if !failure.stderr.is_empty() {
            complain(&failure.stderr);
        }
    }
    Ok(())
}

/// What is wrong outranks what is missing, and that outranks what cannot be had here.
fn verdict(gates: &[GateRecord]) -> ExitCode {
    let codes: Vec<u8> = gates.iter().map(|gate| code(&gate.outcome)).collect();
    ExitCode::from([3, 1, 2].into_iter().find(|code| codes.contains(code)).unwrap_or(0))
}

fn code(outcome: &GateOutcome) -> u8 {
    match outcome {
        GateOutcome::Passed { .. } => 0,
        GateOutcome::Failed { .. } => 3,
        GateOutcome::Incomplete { report: Some(report), .. } if report.failed() > 0 => 3,
        GateOutcome::Incomplete { failure, .. } if failure.kind == FailureKind::Unsupported => 2,
        GateOutcome::Incomplete { .. } => 1,
    }
}
