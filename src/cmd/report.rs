use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use tempfile::NamedTempFile;

use super::CommandError;
use super::output::print;
use crate::cli::{ReportArgs, ReportFormat};
use crate::record::store;
use crate::report::{Style, console, csv, html, markdown};

/// `burnmark report`: a results file as people or programs read it.
pub(crate) fn run(arguments: &ReportArgs) -> Result<ExitCode, CommandError> {
    let results = store::read(&arguments.file)?;
    let text = match arguments.format {
        ReportFormat::Console => console::summary(&results, Style::default()),
        ReportFormat::Markdown => markdown::document(&results),
        ReportFormat::Csv => csv::lines(&results),
        ReportFormat::Html => html::page(&results),
    };
    match &arguments.output {
        None => print(&text),
        Some(path) => write(path, &text).map(|()| ExitCode::SUCCESS),
    }
}

/// Replaces the file whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    let failed = |source| CommandError::Report { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map(drop).map_err(|error| failed(error.error))
}
