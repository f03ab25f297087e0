//! The program: parse, dispatch, map errors to exit codes.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cell;
use crate::cli::{Cli, Command, ConfigCommand, TuningCommand};
use crate::cmd;
use crate::cmd::output::{complain, pretty, print};
use crate::config;
use crate::model::Registry;

/// Runs the command line of this process with the models of `registry`.
///
/// A program with models of its own calls this with its own registry and is burnmark for them; the children that
/// measure are the same program. It should install [`crate::CountingAllocator`] to have memory figures on the CPU.
#[must_use]
pub fn main(registry: &Registry) -> ExitCode {
    // Only what the user asks for with RUST_LOG, and always on standard error.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();

    let cli = Cli::parse();
    let outcome = match &cli.command {
        None => cmd::run::run(&cli.run, registry),
        Some(Command::Run(arguments)) => cmd::run::run(arguments, registry),
        Some(Command::Verify(arguments)) => cmd::verify::run(arguments, registry),
        Some(Command::Plan(arguments)) => cmd::plan(arguments, registry),
        Some(Command::Ops(arguments)) => cmd::ops::run(arguments, registry),
        Some(Command::Fit(arguments)) => cmd::fit::run(arguments, registry),
        Some(Command::Peaks(arguments)) => cmd::peaks::run(arguments, registry),
        Some(Command::Compare(arguments)) => cmd::compare::run(arguments),
        Some(Command::History { database, command }) => cmd::history::run(database.as_deref(), command),
        Some(Command::Report(arguments)) => cmd::report::run(arguments),
        Some(Command::Devices(arguments)) => cmd::devices::run(*arguments),
        Some(Command::Tuning { command: TuningCommand::Show(print_as) }) => cmd::tuning::show(*print_as),
        Some(Command::Tuning { command: TuningCommand::Export { folder } }) => cmd::tuning::export(folder),
        Some(Command::Tuning { command: TuningCommand::Clear }) => cmd::tuning::clear(),
        Some(Command::Config { command: ConfigCommand::Show(arguments) }) => cmd::config_show(arguments),
        Some(Command::Config { command: ConfigCommand::Schema }) => print(&pretty(&config::schema())),
        Some(Command::Schema { layout }) => print(&pretty(&layout.schema())),
        Some(Command::Completions { shell }) => cmd::completions(*shell),
        Some(Command::Man) => cmd::man(),
        Some(Command::Cell) => return cell::serve(registry),
    };
    outcome.unwrap_or_else(|error| {
        complain(&format!("error: {error}"));
        error.exit_code()
    })
}
