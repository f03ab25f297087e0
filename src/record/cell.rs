use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Execution, GenerationFigures, SteadyState, StepFigures, TuningRecord, Warmup};
use crate::runner::Collected;
use crate::spec::{Applied, CellSpec, DeviceReport, Failure, FailureKind, Observation, Workload, Workloads};

/// What was observed of one workload, and the figures derived from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkloadRecord<Figures> {
    /// Derived; can be computed again from the rounds.
    pub figures: Figures,
    /// From which step on times stayed the same; derived as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steady_state: Option<SteadyState>,
    /// Raw: the same work in one process after the other. There is at least one.
    #[schemars(length(min = 1))]
    pub rounds: Vec<Observation>,
}

impl<Figures> WorkloadRecord<Figures> {
    fn of(rounds: Vec<Observation>, figures: impl Fn(&Observation) -> Figures) -> Option<Self> {
        let figures = figures(&pooled(&rounds)?);
        Some(Self { figures, steady_state: Some(SteadyState::of(&rounds)), rounds })
    }
}

/// All rounds' samples as if they were one's; memory is that of the round that needed most.
fn pooled(rounds: &[Observation]) -> Option<Observation> {
    let mut all = rounds.first()?.clone();
    for round in &rounds[1..] {
        all.samples_ns.extend(&round.samples_ns);
        all.returned_ns.extend(&round.returned_ns);
        if let (Some(all), Some(times)) = (&mut all.optimizer_ns, &round.optimizer_ns) {
            all.extend(times);
        }
        if let (Some(all), Some(series)) = (&mut all.generation, &round.generation) {
            all.first_token_ns.extend(&series.first_token_ns);
            all.per_token_ns.extend(series.per_token_ns.iter().cloned());
        }
        if round.memory.peak.bytes > all.memory.peak.bytes {
            all.memory = round.memory.clone();
        }
    }
    Some(all)
}

/// The workloads of a cell that were completed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkloadRecords {
    /// Training.
    pub training: Option<WorkloadRecord<StepFigures>>,
    /// Inference.
    pub inference: Option<WorkloadRecord<StepFigures>>,
    /// Generation.
    pub generation: Option<WorkloadRecord<GenerationFigures>>,
}

impl WorkloadRecords {
    /// Derives the figures of every workload from its observations, a round each.
    pub fn of(observations: Vec<Observation>) -> Self {
        let rounds = |workload| observations.iter().filter(|seen| seen.workload == workload).cloned().collect();
        Self {
            training: WorkloadRecord::of(rounds(Workload::Training), StepFigures::of),
            inference: WorkloadRecord::of(rounds(Workload::Inference), StepFigures::of),
            generation: WorkloadRecord::of(rounds(Workload::Generation), GenerationFigures::of),
        }
    }

    /// Every observation of every round.
    fn observations(&self) -> impl Iterator<Item = &Observation> {
        let steps = [&self.training, &self.inference].into_iter().flatten().flat_map(|record| &record.rounds);
        steps.chain(self.generation.iter().flat_map(|record| &record.rounds))
    }

    /// The first round's observation of each workload that is here.
    pub fn first_rounds(&self) -> impl Iterator<Item = &Observation> {
        let steps = [&self.training, &self.inference].into_iter().flatten().filter_map(|record| record.rounds.first());
        steps.chain(self.generation.iter().filter_map(|record| record.rounds.first()))
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
                steady_from_step: SteadyState::of(&record.rounds).from_step,
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
                steady_from_step: SteadyState::of(&record.rounds).from_step,
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
        let of = |seen: &Observation| {
            seen.paths.value().into_iter().flatten().map(|proof| (seen.workload, proof.clone())).collect::<Vec<_>>()
        };
        let mut proofs = self.observations().flat_map(of);
        proofs.find(|(_, proof)| !proof.launched).map(|(workload, proof)| {
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
    pub steady_from_step: Option<usize>,
    pub execution: &'a Execution,
    /// Where what is in use keeps growing.
    pub growth_bytes_per_step: Option<f64>,
}

/// How a cell ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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

impl CellOutcome {
    /// What a round and those before it come to.
    fn of(spec: &CellSpec, earlier: Vec<Observation>, round: Vec<Observation>, failure: Option<Failure>) -> Self {
        let failure = failure.or_else(|| incomplete(&WorkloadRecords::of(round.clone()).missing(&spec.workloads)));
        let workloads = WorkloadRecords::of(earlier.into_iter().chain(round).collect());
        match failure.or_else(|| workloads.unproven()) {
            Some(failure) => Self::Failed { failure, workloads },
            None => Self::Measured { workloads },
        }
    }
}

fn one() -> usize {
    1
}

/// One cell of the plan after it has been run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CellRecord {
    /// Name of `spec` that is unique and stable between runs.
    pub id: String,
    /// What was asked for.
    pub spec: CellSpec,
    /// Processes it was measured in.
    #[serde(default = "one")]
    pub rounds: usize,
    /// Wall clock of all of them, in seconds.
    pub duration_s: f64,
    /// The device, if it was opened.
    pub device: Option<DeviceReport>,
    /// What of the request was put into effect, if the device was opened.
    pub applied: Option<Applied>,
    /// What was tuned and compiled in the first round, if the backend does either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<TuningRecord>,
    /// How it ended.
    pub outcome: CellOutcome,
}

impl CellRecord {
    /// Derives every figure; a cell that claims success without all its workloads is recorded as a failure.
    pub fn new(spec: CellSpec, done: Collected) -> Self {
        let tuning = done.tuning.map(|events| TuningRecord::new(events, &done.observations));
        Self {
            id: spec.id(),
            rounds: 1,
            duration_s: done.duration.as_secs_f64(),
            device: done.device,
            applied: done.applied,
            tuning,
            outcome: CellOutcome::of(&spec, Vec::new(), done.observations, done.failure),
            spec,
        }
    }

    /// The same after a further round: the same work in another process.
    #[must_use]
    pub fn with_round(self, done: Collected) -> Self {
        let earlier = self.workloads().observations().cloned().collect();
        Self {
            rounds: self.rounds + 1,
            duration_s: self.duration_s + done.duration.as_secs_f64(),
            outcome: CellOutcome::of(&self.spec, earlier, done.observations, done.failure),
            ..self
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
