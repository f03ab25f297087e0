use std::path::{Path, PathBuf};
use std::process::ExitCode;

use etcetera::BaseStrategy;

use super::CommandError;
use super::output::{pretty, print};
use crate::cli::HistoryCommand;
use crate::history::History;
use crate::record::store;
use crate::report::history::history;

/// `burnmark history`: keep runs, and follow a metric over them.
pub(crate) fn run(database: Option<&Path>, command: &HistoryCommand) -> Result<ExitCode, CommandError> {
    let mut runs = History::open(&database.map_or_else(usual, ToOwned::to_owned))?;
    match command {
        HistoryCommand::Add { files } => {
            let mut text = String::new();
            for file in files {
                let new = runs.add(&store::read(file)?)?;
                text.push_str(&format!("{}: {}\n", file.display(), if new { "kept" } else { "was kept before" }));
            }
            print(&text)
        }
        HistoryCommand::Show { metric, cell, json } => {
            let points = runs.points(*metric, cell)?;
            print(&if *json { pretty(&points) } else { history(&metric.to_string(), &points) })
        }
    }
}

fn usual() -> PathBuf {
    let user = etcetera::choose_base_strategy().map_or_else(|_| std::env::temp_dir(), |user| user.data_dir());
    user.join("burnmark").join("history.db")
}
