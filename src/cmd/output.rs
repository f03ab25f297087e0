use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use super::CommandError;
use crate::cli::OutputArgs;
use crate::record::store;
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

/// Writes results; if their place fails, beside the system's temporary files, so that nothing is lost. False if it did.
pub(super) fn save(path: &Path, results: &impl serde::Serialize) -> bool {
    let Err(error) = store::write_atomic(path, results) else {
        return true;
    };
    complain(&format!("error: {error}"));
    let refuge = std::env::temp_dir().join(path.file_name().unwrap_or("benchmark_results.json".as_ref()));
    match store::write_atomic(&refuge, results) {
        Ok(()) => complain(&format!("what was measured so far is in `{}`", refuge.display())),
        Err(error) => complain(&format!("error: {error}")),
    }
    false
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_saved_in_its_place_is_saved_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().file_name().expect("a name").to_string_lossy().into_owned() + ".json";
        assert!(save(&folder.path().join(&name), &1));
        assert!(!save(&folder.path().join("gone").join(&name), &2));
        let refuge = std::env::temp_dir().join(&name);
        assert_eq!(std::fs::read_to_string(&refuge).expect("it is there").trim(), "2");
        std::fs::remove_file(refuge).expect("removed");
    }
}
