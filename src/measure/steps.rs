use std::time::{Duration, Instant};

use burnmark_backend_api::Origin;

use super::nanoseconds;
use crate::spec::{Event, Failure, Phase, StepSpec, Workload};

/// Longest silence between two progress events of a phase, if a step does not take longer.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Wall clock of one step, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepTimes {
    /// The whole step.
    pub total_ns: u64,
    /// The optimiser's part of it.
    pub optimizer_ns: Option<u64>,
    /// When it began, in nanoseconds since the device was open.
    pub at_ns: u64,
}

/// Every step of a workload, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Steps before the first sample.
    pub warmup: Vec<StepTimes>,
    /// The samples.
    pub samples: Vec<StepTimes>,
}

/// Warms up, calls `warmed_up`, then samples. `step` prepares its input, times itself and is told its phase; what is
/// done here happens between the timed spans. `origin` is when the device was open.
pub fn run_steps(
    workload: Workload,
    spec: &StepSpec,
    origin: Origin,
    emit: &mut dyn FnMut(Event),
    warmed_up: impl FnOnce(),
    mut step: impl FnMut(Phase) -> Result<StepTimes, Failure>,
) -> Result<Measured, Failure> {
    let warmup = run_phase(workload, Phase::Warmup, spec.warmup_steps, origin, emit, &mut step)?;
    warmed_up();
    let samples = run_phase(workload, Phase::Measure, spec.benchmark_steps, origin, emit, &mut step)?;
    Ok(Measured { warmup, samples })
}

fn run_phase(
    workload: Workload,
    phase: Phase,
    steps: usize,
    origin: Origin,
    emit: &mut dyn FnMut(Event),
    step: &mut impl FnMut(Phase) -> Result<StepTimes, Failure>,
) -> Result<Vec<StepTimes>, Failure> {
    if steps == 0 {
        return Ok(Vec::new());
    }
    emit(Event::PhaseStarted { workload, phase, steps });
    let mut times = Vec::with_capacity(steps);
    let mut reported = Instant::now();
    for done in 1..=steps {
        let at_ns = nanoseconds(origin.elapsed());
        let time = StepTimes { at_ns, ..step(phase)? };
        if done.is_multiple_of(10) || done == steps || reported.elapsed() >= PROGRESS_INTERVAL {
            emit(Event::Progress { workload, phase, step: done, steps, step_ns: time.total_ns });
            reported = Instant::now();
        }
        times.push(time);
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_come_in_order_and_every_tenth_step_is_told() {
        let (mut events, mut count) = (Vec::new(), 0);
        let spec = StepSpec { warmup_steps: 3, benchmark_steps: 25 };
        let measured = run_steps(
            Workload::Inference,
            &spec,
            Instant::now(),
            &mut |event| events.push(event),
            || {},
            |_| {
                count += 1;
                Ok(StepTimes { total_ns: count, ..StepTimes::default() })
            },
        );
        let measured = measured.expect("no step fails");
        assert_eq!((measured.warmup.len(), measured.samples.len()), (3, 25));
        assert_eq!(measured.samples[0].total_ns, 4);
        let told: Vec<(Phase, usize)> = events
            .iter()
            .filter_map(|event| match event {
                Event::Progress { phase, step, .. } => Some((*phase, *step)),
                _ => None,
            })
            .collect();
        let expected = [(Phase::Warmup, 3), (Phase::Measure, 10), (Phase::Measure, 20), (Phase::Measure, 25)];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_failing_step_ends_the_run() {
        use crate::spec::FailureKind;
        let spec = StepSpec { warmup_steps: 0, benchmark_steps: 5 };
        let failed = run_steps(
            Workload::Training,
            &spec,
            Instant::now(),
            &mut |_| {},
            || {},
            |_| Err(Failure::new(FailureKind::Crashed, "lost the device")),
        );
        assert_eq!(failed.expect_err("the step failed").kind, FailureKind::Crashed);
    }
}
