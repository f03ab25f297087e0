//! The child's side: one job in, events out.

mod measure;
mod operations;
mod paths;
mod peaks;
mod reference;
mod training;
mod verify;

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use crate::backends;
use crate::model::Registry;
use crate::spec::{Event, Failure, FailureKind, Job};

/// Does the job on standard input and tells of it on standard output, a JSON document a line.
///
/// Standard output is kept for the events alone: file descriptor 1 points at standard error from here on, so that what
/// a driver prints cannot come between them.
#[must_use]
pub fn serve(registry: &Registry) -> ExitCode {
    let mut events = match claim_stdout() {
        Ok(events) => std::fs::File::from(events),
        Err(error) => {
            tracing::error!("cannot set standard output aside for events: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut emit = |event: Event| {
        let line = serde_json::to_string(&event).expect("an event always serialises");
        // A parent that is gone has no use for the rest.
        if writeln!(events, "{line}").is_err() {
            std::process::exit(1);
        }
    };
    let outcome = match serde_json::from_reader(io::stdin().lock()) {
        Ok(Job::Measure { cell, cache, once }) => measure::run(&cell, cache, once, registry, &mut emit),
        Ok(Job::Verify { gate, cache }) => verify::run(&gate, cache, registry, &mut emit),
        Ok(Job::Operations { spec, cache }) => operations::run(&spec, cache, &mut emit),
        Ok(Job::Open { spec, cache, peaks }) => peaks::run(&spec, cache, peaks, &mut emit),
        Ok(Job::Devices { backend }) => devices(&backend, &mut emit),
        Err(error) => {
            Err(Failure::new(FailureKind::Protocol, format!("the job on standard input is malformed: {error}")))
        }
    };
    emit(outcome.map_or_else(Event::Failed, |()| Event::Finished));
    ExitCode::SUCCESS
}

/// Lists a backend's devices; its driver may crash, which is why this happens here.
fn devices(backend: &str, emit: &mut dyn FnMut(Event)) -> Result<(), Failure> {
    let (backend, _) = backends::find(backend)?;
    let devices = backend.devices().map_err(|reason| Failure::new(FailureKind::Unsupported, reason))?;
    emit(Event::Found { devices, capabilities: backend.capabilities() });
    Ok(())
}

fn claim_stdout() -> io::Result<OwnedFd> {
    let events = io::stdout().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdout(io::stderr().as_fd())?;
    Ok(events)
}
