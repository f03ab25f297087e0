use std::io;
use std::process::ExitCode;

use thiserror::Error;

use crate::config::ConfigError;
use crate::history::HistoryError;
use crate::plan::PlanError;
use crate::record::store::StoreError;
use crate::runner::StopFlagError;

/// Why a command could not do its work. All of these come before anything is measured.
#[derive(Debug, Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(transparent)]
    StopFlag(#[from] StopFlagError),
    #[error("cannot find this program's own file, which the measuring children run: {0}")]
    OwnProgram(io::Error),
    #[error(
        "cannot make a temporary folder for the numbers that backends are held against: {0}; free space or set TMPDIR"
    )]
    TemporaryFolder(io::Error),
    #[error("{0}")]
    Tuning(String),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

impl CommandError {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Plan(_) | Self::Store(_) | Self::History(_) | Self::Tuning(_) => ExitCode::from(2),
            Self::StopFlag(_) | Self::OwnProgram(_) | Self::TemporaryFolder(_) | Self::Output(_) => ExitCode::FAILURE,
        }
    }
}
