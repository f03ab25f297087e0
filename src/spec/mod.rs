//! The words that both ends of the pipe share: what a cell is, what a child reports, how it can fail.
//!
//! Plain data, no input or output, no Burn. The parent turns an experiment into [`Job`]s, a child answers each
//! with [`Event`]s, and nothing else passes between them.

mod cell;
mod disturbance;
mod event;
mod model;
mod observation;
mod operation;
mod verification;

pub use cell::{
    CellSpec, Ending, GenerationSpec, Mode, Optimizer, Precision, StepSpec, Stopping, TrainingSpec, TuningCache,
    Workload, Workloads,
};
pub use disturbance::{CardReading, Disturbance};
pub use event::{Applied, DeviceReport, DeviceSpec, Event, Failure, FailureKind, Job, Phase};
pub use model::ModelConfig;
pub use observation::{
    DeviceClock, Figure, GenerationSeries, MemoryObservation, MemoryPhase, Observation, PathProof, PhaseMemory,
    Reading, StepLaunches,
};
pub use operation::{Operation, OperationObservation, OperationsSpec, Pass, Peaks, Timing, Work};
pub use verification::{Check, Tolerance, VerifyReport, VerifySpec};
