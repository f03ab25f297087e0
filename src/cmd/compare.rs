use std::process::ExitCode;

use super::CommandError;
use super::output::{complain, pretty, print};
use crate::cli::CompareArgs;
use crate::compare::compare;
use crate::record::store;
use crate::report::compare::comparison;

/// Exit code of a comparison that breaks a rule.
const BROKEN: u8 = 4;

/// `burnmark compare`: every later file against the first.
pub(crate) fn run(arguments: &CompareArgs) -> Result<ExitCode, CommandError> {
    let (first, later) = arguments.files.split_first().expect("the command line asks for two files");
    let before = store::read(first)?;
    let mut comparisons = Vec::new();
    let (mut broken, mut compared) = (false, true);
    for file in later {
        let result = compare(&before, &store::read(file)?);
        let (first, file) = (first.display().to_string(), file.display().to_string());
        if !arguments.json {
            print(&comparison(&first, &file, &result))?;
        }
        if !result.cells.iter().any(|cell| cell.refused.is_none()) {
            complain(&format!("error: `{file}` has no cell that can be compared with `{first}`"));
            compared = false;
        }
        for rule in &arguments.fail_on {
            if !rule.applies(&result) {
                complain(&format!("error: `--fail-on {rule}`: no compared cell has that figure"));
                compared = false;
            }
            for breach in rule.breaches(&result) {
                complain(&format!("regression: {breach}"));
                broken = true;
            }
        }
        comparisons.push(result);
    }
    if arguments.json {
        print(&pretty(&comparisons))?;
    }
    Ok(ExitCode::from(if broken {
        BROKEN
    } else if compared {
        0
    } else {
        2
    }))
}
