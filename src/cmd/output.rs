use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use super::CommandError;
use crate::cli::OutputArgs;
use crate::report::live::LiveMode;

/// A JSON document as people read it.
pub(crate) fn pretty(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("our own types always serialise");
    text.push('\n');
    text
}

/// Writes to standard output. A reader that has seen enough and closed the pipe is no error.
pub(crate) fn print(text: &str) -> Result<ExitCode, CommandError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Output(error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Writes a line to standard error; if that is gone too, nobody is left to tell.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// How a run is shown as it goes.
pub(super) fn live_mode(print: OutputArgs) -> LiveMode {
    if print.verbose {
        LiveMode::Lines
    } else if print.quiet || !io::stderr().is_terminal() {
        LiveMode::Quiet
    } else {
        LiveMode::Bar
    }
}
