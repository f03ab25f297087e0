use std::path::Path;
use std::process::ExitCode;

use burnmark_backend_api::TuningStore;

use super::output::{pretty, print};
use super::{CommandError, caches};
use crate::backends;
use crate::cli::OutputArgs;
use crate::report;

/// `burnmark tuning show`.
pub(crate) fn show(print_as: OutputArgs) -> Result<ExitCode, CommandError> {
    let folder = caches::kept();
    let contents = store()?.contents(&folder).map_err(CommandError::Tuning)?;
    print(&if print_as.json {
        pretty(&contents)
    } else {
        report::tuning::contents(&folder, &contents, print_as.verbose)
    })
}

/// `burnmark tuning export`.
pub(crate) fn export(to: &Path) -> Result<ExitCode, CommandError> {
    store()?.export(&caches::kept(), to).map_err(CommandError::Tuning)?;
    print(&format!("exported; {}={} uses it\n", caches::VARIABLE, to.display()))
}

/// `burnmark tuning clear`.
pub(crate) fn clear() -> Result<ExitCode, CommandError> {
    let folder = caches::kept();
    let removed = caches::clear(&folder)
        .map_err(|error| CommandError::Tuning(format!("cannot clear `{}`: {error}", folder.display())))?;
    print(&format!("{} MB removed from {}\n", removed >> 20, folder.display()))
}

fn store() -> Result<&'static dyn TuningStore, CommandError> {
    backends::compiled().iter().find_map(|backend| backend.tuning_store()).ok_or_else(|| {
        CommandError::Tuning(
            "no backend of this program tunes its kernels; build it with `cargo run --release --features cuda` or `vulkan`"
                .to_owned(),
        )
    })
}
