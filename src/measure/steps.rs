use std::time::{Duration, Instant};

use super::clock::Span;
use super::disturbance::Watch;
use super::sensors::Sensors;
use crate::spec::{CardReading, Disturbance, Ending, Event, Failure, Phase, Reading, StepSpec, Stopping, Workload};
use crate::stats::relative_half_width;

/// Longest silence between two progress events of a phase, if a step does not take longer.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// One step: its wall clock, and what was read after it. All that belongs to a step is here, so that it
/// is kept or left out as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepTimes {
    /// The whole step.
    pub span: Span,
    /// The optimiser's part of it, in nanoseconds.
    pub optimizer_ns: Option<u64>,
    /// Its tokens, for generation.
    pub tokens: Option<TokenTimes>,
    /// Memory in use after it, in bytes, if that was asked for; or why that is not known.
    pub memory: Option<Result<u64, String>>,
    /// When it began, on the time axis of the sensors.
    pub at_ns: u64,
}

impl StepTimes {
    /// A step of which nothing else is known.
    #[must_use]
    pub fn of(span: Span) -> Self {
        Self { span, ..Self::default() }
    }
}

/// Wall clock of one generation's tokens, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenTimes {
    /// The first.
    pub first_ns: u64,
    /// Every later one, by position.
    pub gaps_ns: Vec<u64>,
}

/// How a workload's steps are taken.
pub struct Sampling<'a> {
    /// The workload.
    pub workload: Workload,
    /// How many.
    pub steps: &'a StepSpec,
    /// What ends the samples before their count.
    pub stopping: &'a Stopping,
    /// Whether disturbed samples are taken again, at most as many as are asked for.
    pub redo_disturbed: bool,
}

/// Every step of a workload, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Steps before the first sample.
    pub warmup: Vec<StepTimes>,
    /// The samples, without those that were thrown out.
    pub samples: Vec<StepTimes>,
    /// What ended them.
    pub ended_by: Ending,
    /// When something else disturbed them.
    pub disturbances: Reading<Vec<Disturbance>>,
    /// The graphics card meanwhile.
    pub card: Reading<Vec<CardReading>>,
}

/// Warms up, calls `warmed_up`, then samples. `step` prepares its input, times itself and is told its phase; what is
/// done here happens between the timed spans. Samples end at their count, or before as `stopping` says; a disturbed one
/// does not count as long as it is taken again, for which there is no time once `max_seconds` are over.
pub fn run_steps(
    sampling: &Sampling,
    sensors: &dyn Sensors,
    emit: &mut dyn FnMut(Event),
    warmed_up: impl FnOnce(),
    mut step: impl FnMut(Phase) -> Result<StepTimes, Failure>,
) -> Result<Measured, Failure> {
    let Sampling { workload, steps, stopping, redo_disturbed } = *sampling;
    let (least, count) = (steps.warmup_steps, steps.benchmark_steps);
    let mut at_count = |warmup: &mut Vec<StepTimes>| (warmup.len() == least).then_some(Ending::Count);
    let (warmup, _) = run_phase(workload, Phase::Warmup, least, sensors, emit, &mut at_count, &mut step)?;
    warmed_up();
    let mut watch = Watch::new(sensors, count);
    let (started_ns, mut narrow) = (sensors.now_ns(), narrow_enough(stopping.half_width_percent));
    let mut ended = |samples: &mut Vec<StepTimes>| {
        let taken_ns = sensors.now_ns() - started_ns;
        let time_is_up = stopping.max_seconds.is_some_and(|most| taken_ns as f64 >= most * 1e9);
        let ending = if samples.len() == count {
            Some(Ending::Count)
        } else if narrow(samples) {
            Some(Ending::NarrowEnough)
        } else {
            time_is_up.then_some(Ending::Time)
        };
        let thrown_out = watch.look(samples, ending.is_some(), redo_disturbed && !time_is_up);
        ending.filter(|_| !thrown_out)
    };
    let (samples, ended_by) = run_phase(workload, Phase::Measure, count, sensors, emit, &mut ended, &mut step)?;
    Ok(Measured { warmup, samples, ended_by, disturbances: watch.disturbances, card: watch.card })
}

/// Tells from the samples so far whether the interval of their mean is narrow enough. That is asked whenever there are a
/// tenth more of them: asking after each would end more often by chance, and take ever longer.
fn narrow_enough(half_width_percent: Option<f64>) -> impl FnMut(&[StepTimes]) -> bool {
    let mut asked = 0;
    move |samples| {
        let Some(percent) = half_width_percent.filter(|_| samples.len() >= asked + (asked / 10).max(10)) else {
            return false;
        };
        asked = samples.len();
        let times: Vec<f64> = samples.iter().map(|time| time.span.total_ns as f64).collect();
        relative_half_width(&times).is_some_and(|share| share * 100.0 <= percent)
    }
}

/// Takes steps until `ended` says what ended them; it may throw out the last ones.
fn run_phase(
    workload: Workload,
    phase: Phase,
    steps: usize,
    sensors: &dyn Sensors,
    emit: &mut dyn FnMut(Event),
    ended: &mut dyn FnMut(&mut Vec<StepTimes>) -> Option<Ending>,
    step: &mut impl FnMut(Phase) -> Result<StepTimes, Failure>,
) -> Result<(Vec<StepTimes>, Ending), Failure> {
    let mut times = Vec::with_capacity(steps);
    if steps == 0 {
        return Ok((times, Ending::Count));
    }
    emit(Event::PhaseStarted { workload, phase, steps });
    let mut reported = Instant::now();
    loop {
        let at_ns = sensors.now_ns();
        let time = StepTimes { at_ns, ..step(phase)? };
        let (done, step_ns) = (times.len() + 1, time.span.total_ns);
        times.push(time);
        if done.is_multiple_of(10) || done == steps || reported.elapsed() >= PROGRESS_INTERVAL {
            emit(Event::Progress { workload, phase, step: done, steps, step_ns });
            reported = Instant::now();
        }
        if let Some(ending) = ended(&mut times) {
            return Ok((times, ending));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::testing::{Scripted, sampled, took};

    #[test]
    fn phases_come_in_order_and_every_tenth_step_is_told() {
        let mut events = Vec::new();
        let mut emit = |event| events.push(event);
        let measured = sampled([3, 25], &Stopping::default(), &Scripted::quiet(), &mut emit, took);
        assert_eq!((measured.warmup.len(), measured.samples.len()), (3, 25));
        assert_eq!(measured.samples[0].span.total_ns, 4);
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
        let measured = sampled([3, 100], stopping, &Scripted::quiet(), &mut |_| {}, |step| took(time_ns(step)));
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
        let steps = StepSpec { warmup_steps: 0, benchmark_steps: 5 };
        let stopping = Stopping::default();
        let sampling =
            Sampling { workload: Workload::Training, steps: &steps, stopping: &stopping, redo_disturbed: true };
        let failed = run_steps(
            &sampling,
            &Scripted::quiet(),
            &mut |_| {},
            || {},
            |_| Err(Failure::new(FailureKind::Crashed, "lost the device")),
        );
        assert_eq!(failed.expect_err("the step failed").kind, FailureKind::Crashed);
    }
}
