use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

/// Exit code of a program that Ctrl-C ended: 128 + SIGINT, as shells report it.
const INTERRUPTED_EXIT_CODE: i32 = 130;

/// Whether the user wants the run to stop. Clones share one flag.
///
/// `default()` is a flag that only [`set`](Self::set) raises, for tests; [`install`](Self::install) makes the one of
/// the program.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

/// Ctrl-C could not be taken over.
#[derive(Debug, Error)]
#[error("ctrl-c cannot be caught: {0}; a run that is stopped would lose its current cell")]
pub struct StopFlagError(#[from] ctrlc::Error);

impl StopFlag {
    /// Ties a new flag to Ctrl-C, SIGTERM and SIGHUP: the first raises the flag, a second ends the program at once
    /// with code 130 (on Linux a running child dies with it).
    ///
    /// To be called once per process; a second call is refused.
    pub fn install() -> Result<Self, StopFlagError> {
        let flag = Self::default();
        let handler = flag.clone();
        ctrlc::set_handler(move || {
            if handler.0.swap(true, Ordering::SeqCst) {
                process::exit(INTERRUPTED_EXIT_CODE);
            }
        })?;
        Ok(flag)
    }

    /// Asks for a stop.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
