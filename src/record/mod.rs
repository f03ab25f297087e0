//! What is kept: the results file, its derived figures, and how it is written and read.
//!
//! A results file holds the raw observations beside every figure derived from them. Deriving is done by pure
//! functions whenever something new arrives, so the file is complete after every cell. A figure that cannot be given
//! is null with a `reason` beside it, never zero.

mod cell;
mod classic;
mod comparison;
mod environment;
mod execution;
mod figures;
mod fit;
#[cfg(test)]
pub(crate) mod fixtures;
mod gate;
mod ladder;
mod metric;
mod operations;
mod origin;
mod peaks;
mod results;
mod roofline;
mod schema;
mod steady;
pub mod store;
#[cfg(test)]
mod tests;
mod tuning;
mod upgrade;

pub use cell::{CellOutcome, CellRecord, WorkloadRecord, WorkloadRecords};
pub use classic::{ClassicConfig, ClassicModel};
pub use comparison::{Comparison, GenerationComparison, PairRecord, StepComparison};
pub use environment::{Environment, Versions};
pub use execution::{Execution, MemoryGrowth, Warmup};
pub use figures::{GenerationFigures, Memory, StepFigures, Throughput, Times, TotalGeneration};
pub use fit::{FitProbe, FitRecord, FitResults, Grown};
pub use gate::{Agreement, GateOutcome, GatePolicy, GateRecord, VerificationResults};
pub use ladder::LadderStep;
pub use metric::Metric;
pub use operations::{OperationsRecord, OperationsResults};
pub use origin::Origin;
pub use peaks::{KeptPeaks, Peak, PeaksRecord, PeaksResults};
pub use results::{Results, SCHEMA_VERSION, Setup};
pub use roofline::{Roof, Roofline};
pub use schema::Layout;
pub use steady::SteadyState;
pub use tuning::{BreakEven, TuningRecord, TuningSpread};
