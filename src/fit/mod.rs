//! The largest batch or sequence that fits, found by trying sizes in processes of their own.

#[cfg(test)]
mod tests;

use crate::record::{FitProbe, FitRecord, Grown};
use crate::runner::Executor;
use crate::spec::{
    CellSpec, Failure, FailureKind, GenerationSpec, Job, Optimizer, StepSpec, TrainingSpec, Workload, Workloads,
};

/// A first distance from the guess of this share of it: predictions are seldom further off.
const FIRST_STEP_SHARE: usize = 16;

/// The largest size from 1 to `up_to` for which `fits` is true, if there is one: from `guess` in steps that double until
/// one fits and the next does not, then by bisection between the two. What fits at a size must fit at every smaller one.
pub fn largest<E>(
    guess: usize,
    up_to: usize,
    mut fits: impl FnMut(usize) -> Result<bool, E>,
) -> Result<Option<usize>, E> {
    let guess = guess.clamp(1, up_to);
    // `low` fits or is 0, `high` does not or is beyond all sizes.
    let (mut low, mut high) = (0, up_to + 1);
    let (mut next, mut step) = (guess, (guess / FIRST_STEP_SHARE).max(1));
    while high - low > 1 {
        if fits(next)? {
            low = next;
        } else {
            high = next;
        }
        next = match (low, high) {
            (0, high) => high.saturating_sub(step).max(1),
            (low, high) if high > up_to => (low + step).min(up_to),
            (low, high) => low + (high - low) / 2,
        };
        step *= 2;
    }
    Ok((low > 0).then_some(low))
}

/// What is searched for.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// What is made larger.
    pub grown: Grown,
    /// Of which workload one step must fit.
    pub workload: Workload,
    /// Largest size tried.
    pub up_to: usize,
    /// Resident set a process is allowed, in bytes.
    pub memory_limit_bytes: Option<u64>,
}

impl Search {
    /// A cell with one step of the workload at a size, and nothing else.
    #[must_use]
    pub fn sized(&self, cell: &CellSpec, size: usize) -> CellSpec {
        let once = StepSpec { warmup_steps: 0, benchmark_steps: 1 };
        let asked = &cell.workloads;
        let workloads = match self.workload {
            Workload::Training => Workloads {
                // An optimiser makes its moments in the first step and has them beside the gradients from the second on.
                training: asked.training.as_ref().map(|training| TrainingSpec {
                    steps: StepSpec { warmup_steps: usize::from(training.optimizer != Optimizer::None), ..once },
                    optimizer: training.optimizer,
                }),
                ..Workloads::default()
            },
            Workload::Inference => {
                Workloads { inference: asked.inference.as_ref().map(|_| once), ..Workloads::default() }
            }
            Workload::Generation => Workloads {
                generation: asked.generation.as_ref().map(|spec| GenerationSpec {
                    warmup_iterations: 0,
                    iterations: 1,
                    batch_size: if self.grown == Grown::Batch { size } else { spec.batch_size },
                    prompt_tokens: if self.grown == Grown::Sequence { size } else { spec.prompt_tokens },
                    ..spec.clone()
                }),
                ..Workloads::default()
            },
        };
        let (batch_size, seq_length) = match (self.workload, self.grown) {
            (Workload::Generation, _) => (1, 1),
            (_, Grown::Batch) => (size, cell.seq_length),
            (_, Grown::Sequence) => (cell.batch_size, size),
        };
        CellSpec { batch_size, seq_length, workloads, ..cell.clone() }
    }

    /// Finds the largest size of a cell. `predict` gives the predicted peak of the workload in bytes, `job` what a process
    /// is asked to do; `told` hears of every probe.
    pub fn run(
        &self,
        cell: &CellSpec,
        executor: &dyn Executor,
        predict: impl Fn(&CellSpec) -> Option<u64>,
        job: impl Fn(CellSpec) -> Job,
        mut told: impl FnMut(&FitProbe),
    ) -> FitRecord {
        let predicted = |size| predict(&self.sized(cell, size));
        let within =
            |size| Ok::<_, ()>(predicted(size).zip(self.memory_limit_bytes).is_some_and(|(peak, limit)| peak <= limit));
        let predicted_largest = predicted(1).and_then(|_| largest(1, self.up_to, within).ok().flatten());
        let mut probes = Vec::new();
        let found = largest(predicted_largest.unwrap_or(1), self.up_to, |size| {
            let done = executor.execute(&job(self.sized(cell, size)), &mut |_| {});
            let probe = FitProbe {
                size,
                fits: done.failure.is_none(),
                peak: done.observations.first().map(|seen| seen.memory.peak.clone()),
                predicted_peak_bytes: predicted(size),
                failure: done.failure,
            };
            told(&probe);
            let failure = probe.failure.clone();
            probes.push(probe);
            match failure {
                None => Ok(true),
                Some(failure) if failure.kind == FailureKind::OutOfMemory => Ok(false),
                Some(failure) => Err(failure),
            }
        });
        let (largest, failure): (Option<usize>, Option<Failure>) = match found {
            Ok(largest) => (largest, None),
            Err(failure) => (None, Some(failure)),
        };
        FitRecord {
            cell: self.sized(cell, largest.unwrap_or(1)),
            largest,
            limited_by_memory: failure.is_none() && largest != Some(self.up_to),
            predicted_largest,
            probes,
            failure,
        }
    }
}
