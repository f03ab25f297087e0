use serde::{Deserialize, Serialize};

use super::{Execution, GenerationFigures, StepFigures, TuningRecord, Warmup};
use crate::runner::Collected;
use crate::spec::{Applied, CellSpec, DeviceReport, Failure, FailureKind, Observation, Workload, Workloads};

/// What was observed of one workload, and the figures derived from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadRecord<Figures> {
    /// Derived; can be computed again from the observation.
    pub figures: Figures,
    /// Raw.
    pub observation: Observation,
}

/// The workloads of a cell that were completed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkloadRecords {
    /// Training.
    pub training: Option<WorkloadRecord<StepFigures>>,
    /// Inference.
    pub inference: Option<WorkloadRecord<StepFigures>>,
    /// Generation.
    pub generation: Option<WorkloadRecord<GenerationFigures>>,
}

impl WorkloadRecords {
    /// Derives the figures of every observation; of two observations of one workload the later counts.
    pub fn of(observations: Vec<Observation>) -> Self {
        let mut records = Self::default();
        for observation in observations {
            match observation.workload {
                Workload::Training => {
                    records.training = Some(WorkloadRecord { figures: StepFigures::of(&observation), observation });
                }
                Workload::Inference => {
                    records.inference = Some(WorkloadRecord { figures: StepFigures::of(&observation), observation });
                }
                Workload::Generation => {
                    let figures = GenerationFigures::of(&observation);
                    records.generation = Some(WorkloadRecord { figures, observation });
                }
            }
        }
        records
    }

    /// Whole steps of each workload that is here.
    pub(crate) fn totals(&self) -> Vec<Total<'_>> {
        fn step(workload: Workload, record: &WorkloadRecord<StepFigures>) -> Total<'_> {
            let StepFigures { wall_clock_time: times, warmup, execution, memory, .. } = &record.figures;
            Total {
                workload,
                mean_ms: times.mean_ms,
                std_ms: times.std_ms,
                warmup,
                execution,
                growth_bytes_per_step: memory.growth.alarming(),
            }
        }
        fn generation(record: &WorkloadRecord<GenerationFigures>) -> Total<'_> {
            let GenerationFigures { total_generation: times, warmup, execution, memory, .. } = &record.figures;
            Total {
                workload: Workload::Generation,
                mean_ms: times.mean_ms,
                std_ms: times.std_ms,
                warmup,
                execution,
                growth_bytes_per_step: memory.growth.alarming(),
            }
        }
        let training = self.training.iter().map(|record| step(Workload::Training, record));
        let inference = self.inference.iter().map(|record| step(Workload::Inference, record));
        training.chain(inference).chain(self.generation.iter().map(generation)).collect()
    }

    /// The first optimisation whose own kernels were not launched, where the device tells its launches.
    fn unproven(&self) -> Option<Failure> {
        let steps = [&self.training, &self.inference].map(|record| record.as_ref().map(|record| &record.observation));
        let generation = self.generation.as_ref().map(|record| &record.observation);
        let observations = steps.into_iter().chain([generation]).flatten();
        let proofs =
            observations.flat_map(|seen| seen.paths.value().into_iter().flatten().map(|proof| (seen.workload, proof)));
        proofs.filter(|(_, proof)| !proof.launched).next().map(|(workload, proof)| {
            let (optimization, kernels) = (&proof.optimization, proof.kernels.join(" or "));
            let message = format!(
                "`{optimization}` did not run in {workload}: {kernels} was not launched, so the cell counts for nothing"
            );
            Failure::new(FailureKind::Unproven, message)
        })
    }

    /// The workloads that were asked for and are not here.
    fn missing(&self, asked: &Workloads) -> Vec<Workload> {
        let states = [
            (Workload::Training, asked.training.is_some(), self.training.is_some()),
            (Workload::Inference, asked.inference.is_some(), self.inference.is_some()),
            (Workload::Generation, asked.generation.is_some(), self.generation.is_some()),
        ];
        states.into_iter().filter(|(_, asked, here)| *asked && !here).map(|(workload, ..)| workload).collect()
    }
}

/// Whole steps of a workload; generation's are whole iterations.
pub(crate) struct Total<'a> {
    pub workload: Workload,
    pub mean_ms: Option<f64>,
    pub std_ms: Option<f64>,
    pub warmup: &'a Warmup,
    pub execution: &'a Execution,
    /// Where what is in use keeps growing.
    pub growth_bytes_per_step: Option<f64>,
}

/// How a cell ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum CellOutcome {
    /// Every workload asked for is complete.
    Measured {
        /// All of them.
        workloads: WorkloadRecords,
    },
    /// Something is missing.
    Failed {
        /// Why.
        failure: Failure,
        /// Those that had been completed before.
        workloads: WorkloadRecords,
    },
}

/// One cell of the plan after it has been run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    /// [`CellSpec::id`] of `spec`.
    pub id: String,
    /// What was asked for.
    pub spec: CellSpec,
    /// Wall clock of the whole child process, in seconds.
    pub duration_s: f64,
    /// The device, if it was opened.
    pub device: Option<DeviceReport>,
    /// What of the request was put into effect, if the device was opened.
    pub applied: Option<Applied>,
    /// What was tuned and compiled, if the backend does either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<TuningRecord>,
    /// How it ended.
    pub outcome: CellOutcome,
}

impl CellRecord {
    /// Derives every figure; a cell that claims success without all its workloads is recorded as a failure.
    pub fn new(spec: CellSpec, done: Collected) -> Self {
        let tuning = done.tuning.map(|events| TuningRecord::new(events, &done.observations));
        let workloads = WorkloadRecords::of(done.observations);
        let failure = done.failure.or_else(|| incomplete(&workloads.missing(&spec.workloads)));
        let failure = failure.or_else(|| workloads.unproven());
        let outcome = match failure {
            Some(failure) => CellOutcome::Failed { failure, workloads },
            None => CellOutcome::Measured { workloads },
        };
        Self {
            id: spec.id(),
            spec,
            duration_s: done.duration.as_secs_f64(),
            device: done.device,
            applied: done.applied,
            tuning,
            outcome,
        }
    }

    /// The completed workloads, whether or not the cell as a whole was.
    pub fn workloads(&self) -> &WorkloadRecords {
        match &self.outcome {
            CellOutcome::Measured { workloads } | CellOutcome::Failed { workloads, .. } => workloads,
        }
    }

    /// Why the cell is not complete, if it is not.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.outcome {
            CellOutcome::Measured { .. } => None,
            CellOutcome::Failed { failure, .. } => Some(failure),
        }
    }

    /// Why the cell's figures stand for something else than its name says, if they do.
    pub(super) fn unproven(&self) -> Option<&Failure> {
        self.failure().filter(|failure| failure.kind == FailureKind::Unproven)
    }
}

fn incomplete(missing: &[Workload]) -> Option<Failure> {
    if missing.is_empty() {
        return None;
    }
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let message = format!("the child finished without reporting {}", names.join(", "));
    Some(Failure::new(FailureKind::Protocol, message))
}
