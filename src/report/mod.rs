//! Records in, text out. A report is a pure function of a results file; `live` alone watches a run.

mod card;
pub mod compare;
pub mod console;
pub mod csv;
pub mod devices;
mod endings;
pub(crate) mod fit;
pub mod history;
pub mod html;
mod ledger;
pub mod live;
pub mod markdown;
pub(crate) mod ops;
pub(crate) mod peaks;
mod style;
mod table;
mod tables;
#[cfg(test)]
mod tests;
pub(crate) mod tuning;
mod units;
pub mod verify;
mod warnings;

pub use style::Style;
