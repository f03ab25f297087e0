//! A run as it goes, on standard error.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::units::time;
use crate::spec::Event;

/// How a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveMode {
    /// A bar that is redrawn.
    Bar,
    /// A line for each phase and every tenth step.
    Lines,
    /// Failures alone.
    Quiet,
}

/// Redrawing competes with what is measured for the processor: do it seldom, and never on a timer of its own.
const REDRAW_INTERVAL: Duration = Duration::from_millis(250);

/// Shows a run.
pub struct Live {
    mode: LiveMode,
    bar: ProgressBar,
    drawn: Instant,
}

impl Live {
    /// A run of `cells` cells.
    #[must_use]
    pub fn new(mode: LiveMode, cells: usize) -> Self {
        let target = if mode == LiveMode::Bar { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len} · {msg}");
        let bar = ProgressBar::with_draw_target(Some(cells as u64), target)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { mode, bar, drawn: Instant::now() }
    }

    /// A remark that is not a failure.
    pub fn message(&self, text: &str) {
        match self.mode {
            LiveMode::Bar => self.bar.println(text),
            LiveMode::Lines => line(text),
            LiveMode::Quiet => {}
        }
    }

    /// A cell begins.
    pub fn cell_started(&mut self, label: &str) {
        self.bar.set_message(label.to_owned());
        if self.mode == LiveMode::Lines {
            line(label);
        }
    }

    /// A cell ended; `detail` says how.
    pub fn cell_finished(&mut self, label: &str, succeeded: bool, detail: &str) {
        self.bar.inc(1);
        match (succeeded, self.mode) {
            (false, LiveMode::Bar) => self.bar.println(format!("{label} failed: {detail}")),
            (false, _) => line(&format!("{label} failed: {detail}")),
            (true, LiveMode::Lines) if !detail.is_empty() => line(&format!("  {detail}")),
            _ => {}
        }
    }

    /// What the child of the current cell tells.
    pub fn event(&mut self, label: &str, event: &Event) {
        let Some(text) = described(event) else {
            return;
        };
        match self.mode {
            LiveMode::Lines => line(&format!("  {text}")),
            LiveMode::Bar if self.drawn.elapsed() >= REDRAW_INTERVAL => {
                self.bar.set_message(format!("{label} · {text}"));
                self.drawn = Instant::now();
            }
            _ => {}
        }
    }

    /// Writes beside the bar, which is drawn again below.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// The run is over.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn line(text: &str) {
    // Standard error that is gone cannot be told so.
    let _ = writeln!(io::stderr(), "{text}");
}

/// An event in words; `None` for those that carry results.
fn described(event: &Event) -> Option<String> {
    match event {
        Event::Opened { device, applied } => {
            let vendor = applied.vendor_products.iter().map(|name| format!(", {name}")).collect::<String>();
            let notes: String = applied.notes.iter().map(|note| format!("\n    {note}")).collect();
            Some(format!(
                "device {device}, mode {}: {}, {}{vendor}{notes}",
                applied.requested_mode, applied.execution, applied.precision
            ))
        }
        Event::PhaseStarted { workload, phase, steps } => Some(format!("{workload}: {phase}, {steps} steps")),
        Event::Progress { workload, phase, step, steps, step_ns } => {
            Some(format!("{workload}: {phase} {step}/{steps}, {}", time(*step_ns as f64 / 1e6)))
        }
        Event::OperationObserved(observation) => Some(format!("{}, {}", observation.operation, observation.pass)),
        Event::Verified(report) => {
            let variant = &report.checks.first()?.variant;
            Some(format!("{variant}: {} of {} checks failed", report.failed(), report.checks.len()))
        }
        Event::Found { .. } | Event::Peaks(_) | Event::Observed(_) | Event::Finished | Event::Failed(_) => None,
    }
}
