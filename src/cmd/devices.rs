use std::process::ExitCode;

use super::CommandError;
use super::executor::Children;
use super::output::{pretty, print};
use crate::backends;
use crate::cli::OutputArgs;
use crate::config::Experiment;
use crate::plan::KNOWN_BACKENDS;
use crate::report::devices::{BackendReport, devices};
use crate::runner::{Executor, StopFlag};
use crate::spec::Job;

/// `burnmark devices`: every backend is asked in a child, so that a driver that crashes costs a line.
pub(crate) fn run(print_as: OutputArgs) -> Result<ExitCode, CommandError> {
    let executor = Children::new(&Experiment::default().limits, StopFlag::install()?, print_as.verbose)?;
    let reports: Vec<BackendReport> = KNOWN_BACKENDS
        .iter()
        .map(|name| match backends::find(name) {
            Err(_) if backends::external(name).is_none() => BackendReport::not_compiled(name),
            found => {
                let (remedy, lacks) = found
                    .map_or((backends::EXTERNAL_REMEDY, backends::EXTERNAL_LACKS), |(backend, _)| {
                        (backend.remedy(), backend.lacks())
                    });
                let done = executor.execute(&Job::Devices { backend: (*name).to_owned() }, &mut |_| {});
                BackendReport::new(name, done.found, done.failure, remedy, lacks)
            }
        })
        .collect();
    print(&if print_as.json { pretty(&reports) } else { devices(&reports) })
}
