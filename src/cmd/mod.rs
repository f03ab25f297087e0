//! One verb a file; no logic of their own.

mod agreement;
mod caches;
pub(crate) mod compare;
pub(crate) mod devices;
mod error;
mod executor;
pub(crate) mod fit;
pub(crate) mod history;
mod kept_peaks;
pub(crate) mod ops;
pub(crate) mod output;
pub(crate) mod peaks;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod tuning;
pub(crate) mod verify;

use std::process::ExitCode;

pub(crate) use error::CommandError;
use output::print;

use burnmark_backend_api::Capabilities;
use clap::CommandFactory;

use crate::backends;
use crate::cli::{Cli, ExperimentArgs};
use crate::config;
use crate::model::Registry;
use crate::plan::{Available, Plan};

/// `burnmark plan`.
pub(crate) fn plan(arguments: &ExperimentArgs, registry: &Registry) -> Result<ExitCode, CommandError> {
    let resolved = config::load(arguments.config.as_deref(), &arguments.flags())?;
    print(&planned(&resolved.experiment, registry)?.describe())
}

/// `burnmark config show`.
pub(crate) fn config_show(arguments: &ExperimentArgs) -> Result<ExitCode, CommandError> {
    print(&config::show(&config::load(arguments.config.as_deref(), &arguments.flags())?))
}

/// `burnmark completions`.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<ExitCode, CommandError> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "burnmark", &mut text);
    print(&String::from_utf8_lossy(&text))
}

/// `burnmark man`.
pub(crate) fn man() -> Result<ExitCode, CommandError> {
    let mut text = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut text).map_err(CommandError::Output)?;
    print(&String::from_utf8_lossy(&text))
}

/// The plan of an experiment on this program.
fn planned(experiment: &config::Experiment, registry: &Registry) -> Result<Plan, CommandError> {
    Ok(crate::plan::plan(experiment, &available(registry))?)
}

/// What this program can run.
fn available(registry: &Registry) -> Available {
    let with = |has: fn(&Capabilities) -> bool| {
        let backends = backends::compiled().into_iter().filter(|backend| has(&backend.capabilities()));
        backends.map(|backend| backend.name().to_owned()).collect()
    };
    Available {
        backends: backends::names(),
        external: vec![backends::PYTORCH.to_owned()],
        tf32: with(|capabilities| capabilities.tf32),
        mixed: with(|capabilities| capabilities.mixed),
        tuned: with(|capabilities| capabilities.autotune),
        families: registry.families(),
    }
}
