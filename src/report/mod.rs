//! Records in, text out. A report is a pure function of a results file; `live` alone watches a run.

pub mod console;
pub mod devices;
mod ladder;
mod ledger;
pub mod live;
pub(crate) mod ops;
mod style;
mod table;
#[cfg(test)]
mod tests;
pub(crate) mod tuning;
mod units;
pub mod verify;

pub use style::Style;
