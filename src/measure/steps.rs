use std::time::{Duration, Instant};

use burnmark_backend_api::Origin;

use super::nanoseconds;
use crate::spec::{Ending, Event, Failure, Phase, StepSpec, Stopping, Workload};
use crate::stats::relative_half_width;

/// Longest silence between two progress events of a phase, if a step does not take longer.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// One step: its wall clock in nanoseconds, and what was read after it. All that belongs to a step is here, so that it
/// is kept or left out as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepTimes {
    /// The whole step.
    pub total_ns: u64,
    /// The optimiser's part of it.
    pub optimizer_ns: Option<u64>,
    /// Its tokens, for generation.
    pub tokens: Option<TokenTimes>,
    /// Memory in use after it, in bytes, if that was asked for; or why that is not known.
    pub memory: Option<Result<u64, String>>,
    /// When it began, in nanoseconds since the device was open.
    pub at_ns: u64,
}

/// Wall clock of one generation's tokens, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenTimes {
    /// The first.
    pub first_ns: u64,
    /// Every later one, by position.
    pub gaps_ns: Vec<u64>,
}

/// Every step of a workload, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Steps before the first sample.
    pub warmup: Vec<StepTimes>,
    /// The samples.
    pub samples: Vec<StepTimes>,
    /// What ended them.
    pub ended_by: Ending,
}

/// Warms up, calls `warmed_up`, then samples. `step` prepares its input, times itself and is told its phase; what is
/// done here happens between the timed spans. Samples end at their count, or before as `stopping` says. `origin` is when the device was open.
pub fn run_steps(
    workload: Workload,
    spec: &StepSpec,
    stopping: &Stopping,
    origin: Origin,
    emit: &mut dyn FnMut(Event),
    warmed_up: impl FnOnce(),
    mut step: impl FnMut(Phase) -> Result<StepTimes, Failure>,
) -> Result<Measured, Failure> {
    let (warmup, _) = run_phase(workload, Phase::Warmup, spec.warmup_steps, origin, emit, &mut |_| None, &mut step)?;
    warmed_up();
    let mut enough = enough(stopping);
    let (samples, ended) =
        run_phase(workload, Phase::Measure, spec.benchmark_steps, origin, emit, &mut enough, &mut step)?;
    Ok(Measured { warmup, samples, ended_by: ended.unwrap_or(Ending::Count) })
}

/// Tells from the samples so far, beginning now, whether they are to end. How narrow the interval is, is asked whenever
/// there are a tenth more of them: asking after each would end more often by chance, and take ever longer.
fn enough(stopping: &Stopping) -> impl FnMut(&[StepTimes]) -> Option<Ending> {
    let Stopping { half_width_percent, max_seconds } = stopping.clone();
    let (started, mut asked) = (Instant::now(), 0);
    move |samples| {
        if let Some(percent) = half_width_percent
            && samples.len() >= asked + (asked / 10).max(10)
        {
            asked = samples.len();
            let times: Vec<f64> = samples.iter().map(|time| time.total_ns as f64).collect();
            if relative_half_width(&times).is_some_and(|share| share * 100.0 <= percent) {
                return Some(Ending::NarrowEnough);
            }
        }
        max_seconds.filter(|most| started.elapsed().as_secs_f64() >= *most).map(|_| Ending::Time)
    }
}

fn run_phase(
    workload: Workload,
    phase: Phase,
    steps: usize,
    origin: Origin,
    emit: &mut dyn FnMut(Event),
    enough: &mut dyn FnMut(&[StepTimes]) -> Option<Ending>,
    step: &mut impl FnMut(Phase) -> Result<StepTimes, Failure>,
) -> Result<(Vec<StepTimes>, Option<Ending>), Failure> {
    if steps == 0 {
        return Ok((Vec::new(), None));
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
        if done < steps
            && let Some(ending) = enough(&times)
        {
            return Ok((times, Some(ending)));
        }
    }
    Ok((times, None))
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
            &Stopping::default(),
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

    fn stopped(stopping: &Stopping, time_ns: fn(u64) -> u64) -> (usize, Ending) {
        let mut count = 0;
        let measured = run_steps(
            Workload::Inference,
            &StepSpec { warmup_steps: 3, benchmark_steps: 100 },
            stopping,
            Instant::now(),
            &mut |_| {},
            || {},
            |_| {
                count += 1;
                Ok(StepTimes { total_ns: time_ns(count), ..StepTimes::default() })
            },
        );
        let measured = measured.expect("no step fails");
        (measured.samples.len(), measured.ended_by)
    }

    #[test]
    fn samples_end_at_their_count_when_narrow_enough_or_when_time_is_up() {
        let narrow = Stopping { half_width_percent: Some(1.0), max_seconds: None };
        assert_eq!(stopped(&Stopping::default(), |_| 1000), (100, Ending::Count));
        assert_eq!(stopped(&narrow, |step| 1000 + step % 2), (20, Ending::NarrowEnough));
        assert_eq!(stopped(&narrow, |step| 1000 * step), (100, Ending::Count));
        let hasty = Stopping { half_width_percent: Some(1.0), max_seconds: Some(1e-12) };
        assert_eq!(stopped(&hasty, |_| 1000), (1, Ending::Time));
    }

    #[test]
    fn a_failing_step_ends_the_run() {
        use crate::spec::FailureKind;
        let spec = StepSpec { warmup_steps: 0, benchmark_steps: 5 };
        let failed = run_steps(
            Workload::Training,
            &spec,
            &Stopping::default(),
            Instant::now(),
            &mut |_| {},
            || {},
            |_| Err(Failure::new(FailureKind::Crashed, "lost the device")),
        );
        assert_eq!(failed.expect_err("the step failed").kind, FailureKind::Crashed);
    }
}
