//! A clock that a script moves on, a machine whose load is written down, and steps on both.

use std::cell::Cell;
use std::ops::Range;

use burnmark_backend_api::CardState;

use super::clock::Span;
use super::processors::Load;
use super::sensors::{Sensors, State};
use super::{Measured, Sampling, StepTimes, run_steps};
use crate::spec::{Event, StepSpec, Stopping, Workload};

/// What a step takes on the scripted clock, in milliseconds: a window has five of them.
pub const STEP_MS: u64 = 50;

const NS_PER_MS: u64 = 1_000_000;

/// A machine with one processor.
#[derive(Default)]
pub struct Scripted {
    /// The time.
    pub now_ms: Cell<u64>,
    /// When others use all of the processor, in milliseconds.
    pub busy_ms: Option<Range<u64>>,
    /// What the graphics card tells.
    pub card: Option<Result<CardState, String>>,
}

impl Scripted {
    /// Nobody else uses the processor.
    pub fn quiet() -> Self {
        Self { busy_ms: Some(0..0), ..Self::default() }
    }

    /// Others do.
    pub fn busy(when_ms: Range<u64>) -> Self {
        Self { busy_ms: Some(when_ms), ..Self::default() }
    }
}

impl Sensors for Scripted {
    fn now_ns(&self) -> u64 {
        self.now_ms.get() * NS_PER_MS
    }

    fn read(&self) -> State {
        let load = |busy: &Range<u64>| {
            let busy_ms = self.now_ms.get().min(busy.end).saturating_sub(busy.start);
            Load { busy_ticks: busy_ms / 10, tick_ns: 10 * NS_PER_MS, own_ns: 0, processors: 1 }
        };
        State { load: self.busy_ms.as_ref().map(load), throttled: 0, card: self.card.clone() }
    }
}

/// So many warm-up steps and samples; `step` is told the step's number, from 1.
pub fn sampled(
    [warmup_steps, benchmark_steps]: [usize; 2],
    stopping: &Stopping,
    sensors: &Scripted,
    emit: &mut dyn FnMut(Event),
    mut step: impl FnMut(u64) -> StepTimes,
) -> Measured {
    let steps = StepSpec { warmup_steps, benchmark_steps };
    let sampling = Sampling { workload: Workload::Inference, steps: &steps, stopping, redo_disturbed: true };
    let mut number = 0;
    let measured = run_steps(
        &sampling,
        sensors,
        emit,
        || {},
        |_| {
            number += 1;
            sensors.now_ms.update(|now| now + STEP_MS);
            Ok(step(number))
        },
    );
    measured.expect("no step fails")
}

/// A step that took so long.
pub fn took(total_ns: u64) -> StepTimes {
    StepTimes::of(Span { total_ns, ..Span::default() })
}
