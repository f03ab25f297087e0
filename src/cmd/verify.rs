use std::process::ExitCode;

use super::caches;
use super::executor::Children;
use super::output::{complain, live_mode, pretty, print};
use super::{CommandError, available, planned};
use crate::backends;
use crate::cli::{OutputArgs, VerifyArgs};
use crate::config;
use crate::model::Registry;
use crate::plan::verifications;
use crate::record::{Environment, GateOutcome, GateRecord, VerificationResults, store};
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
    let mut results = VerificationResults::new(std::env::args().collect(), Environment::read(backends::features()));
    let mut live = Live::new(live_mode(arguments.print), gates.len());
    for gate in gates {
        let label = format!("{} · {} · {}", gate.backend, gate.mode, gate.precision);
        live.cell_started(&label);
        let job = Job::Verify { gate: gate.clone(), cache: Some(caches::kept()) };
        let done = executor.execute(&job, &mut |event| live.event(&label, event));
        let record = GateRecord::new(gate, done);
        live.cell_finished(&label, true, "");
        live.aside(|| show(&label, &record, arguments.print))?;
        results.gates.push(record);
        if let Some(path) = output {
            store::write_atomic(path, &results)?;
        }
        if stop.is_set() {
            break;
        }
    }
    live.finish();
    if arguments.print.json {
        print(&pretty(&results))?;
    }
    Ok(if stop.is_set() { ExitCode::from(130) } else { verdict(&results.gates) })
}

fn show(label: &str, record: &GateRecord, print_as: OutputArgs) -> Result<(), CommandError> {
    if !print_as.json && !print_as.quiet {
        let shown = verification(&record.outcome, print_as.verbose);
        if !shown.is_empty() {
            print(&format!("{label}\n{shown}"))?;
        }
    }
    if let GateOutcome::Incomplete { failure, .. } = &record.outcome {
        complain(&format!("error: verification on {label}: {failure}"));
        if !failure.stderr.is_empty() {
            complain(&failure.stderr);
        }
    }
    Ok(())
}

fn verdict(gates: &[GateRecord]) -> ExitCode {
    let mut failures = gates.iter().filter_map(|gate| match &gate.outcome {
        GateOutcome::Incomplete { failure, .. } => Some(failure.kind),
        _ => None,
    });
    if gates.iter().any(|gate| gate.outcome.report().is_some_and(|report| report.failed() > 0)) {
        ExitCode::from(3)
    } else if failures.clone().any(|kind| kind != FailureKind::Unsupported) {
        ExitCode::FAILURE
    } else if failures.next().is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    }
}
