use std::process::ExitCode;

use super::CommandError;
use super::output::{pretty, print};
use crate::cli::{ReportArgs, ReportFormat};
use crate::record::store;
use crate::report::{Style, console, csv, html, markdown};

/// `burnmark report`: a results file as people or programs read it.
pub(crate) fn run(arguments: &ReportArgs) -> Result<ExitCode, CommandError> {
    let results = store::read(&arguments.file)?;
    let text = match arguments.format {
        ReportFormat::Console => console::summary(&results, Style::default()),
        ReportFormat::Json => pretty(&results),
        ReportFormat::Markdown => markdown::document(&results),
        ReportFormat::Csv => csv::lines(&results),
        ReportFormat::Html => html::page(&results),
    };
    match &arguments.output {
        None => print(&text),
        Some(path) => {
            store::write_text(path, &text)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
