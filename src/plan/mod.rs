//! From an experiment to the cells it means, without opening a device.

mod axes;
mod describe;
mod error;
#[cfg(test)]
mod tests;

use crate::config::Experiment;
use crate::spec::{CellSpec, VerifySpec};

pub use axes::{KNOWN_BACKENDS, verifications};
pub use error::PlanError;

/// What this program can run, as plain names.
#[derive(Clone, Debug)]
pub struct Available {
    /// Backends compiled in, best first.
    pub backends: Vec<String>,
    /// Backends that are programs of their own.
    pub external: Vec<String>,
    /// Backends that round single-precision products to TF32.
    pub tf32: Vec<String>,
    /// Backends whose devices are made for mixed precision.
    pub mixed: Vec<String>,
    /// Backends that tune their kernels.
    pub tuned: Vec<String>,
    /// Model families and the variants of each.
    pub families: Vec<(String, Vec<String>)>,
}

/// Two cells that are compared, as indices into [`Plan::cells`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The cell of the experiment's first variant.
    pub baseline: usize,
    /// The cell it is compared with.
    pub candidate: usize,
}

/// Everything a run will do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is measured, in order; the cells of a comparison stand together, baseline first.
    pub cells: Vec<CellSpec>,
    /// What is proven first.
    pub gates: Vec<VerifySpec>,
    /// What is compared.
    pub pairs: Vec<Pair>,
}

/// The plan of an experiment on this program.
pub fn plan(experiment: &Experiment, available: &Available) -> Result<Plan, PlanError> {
    let backends = axes::backends(experiment, available)?;
    axes::check_variants(experiment, available)?;
    let cells = axes::cells(experiment, available, &backends)?;
    let pairs = axes::pairs(experiment, &cells);
    let compared = |pair: &Pair| [&cells[pair.baseline], &cells[pair.candidate]];
    let compared: Vec<&CellSpec> = pairs.iter().flat_map(compared).collect();
    let gates = if experiment.verify.enabled { verifications(experiment, available, compared) } else { Vec::new() };
    Ok(Plan { cells, gates, pairs })
}
