use std::fmt;

use super::Collected;
use super::lines::{Lines, TooLong};
use crate::spec::{Event, Operation, Phase, Workload};

/// Longest line accepted, in bytes; the raw samples of one workload stay far below.
const LINE_LIMIT: usize = 64 << 20;

/// How much of a line is quoted, in characters.
const QUOTE_LIMIT: usize = 160;

/// How far a child has come, as its events tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing was heard yet.
    #[default]
    Starting,
    /// The device is open.
    Opened,
    /// Within a workload; `step` is the last one reported, of `steps`.
    Running { workload: Workload, phase: Phase, step: usize, steps: usize },
    /// This workload is complete.
    Observed(Workload),
    /// The device's peaks, or this operation, are measured.
    Operation(Option<Operation>),
    /// A variant is verified.
    Verified,
    /// The devices were listed.
    Found,
    /// `finished` was sent.
    Finished,
    /// `failed` was sent.
    Failed,
}

impl Stage {
    /// Whether the last event of the job was sent, so that only the child's exit is outstanding.
    pub(super) fn is_closed(self) -> bool {
        matches!(self, Self::Finished | Self::Failed)
    }

    fn after(event: &Event) -> Self {
        match *event {
            Event::Opened { .. } => Self::Opened,
            Event::PhaseStarted { workload, phase, steps } => Self::Running { workload, phase, step: 0, steps },
            Event::Progress { workload, phase, step, steps, .. } => Self::Running { workload, phase, step, steps },
            Event::Observed(ref observation) => Self::Observed(observation.workload),
            Event::Peaks(_) => Self::Operation(None),
            Event::OperationObserved(ref observation) => Self::Operation(Some(observation.operation)),
            Event::Verified(_) => Self::Verified,
            Event::Found { .. } => Self::Found,
            Event::Finished => Self::Finished,
            Event::Failed(_) => Self::Failed,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("before the device was open"),
            Self::Opened => f.write_str("after the device was opened"),
            Self::Running { workload, phase, step: 0, steps } => {
                write!(f, "in {workload} ({phase}), none of {steps} steps reported yet")
            }
            Self::Running { workload, phase, step, steps } => {
                write!(f, "in {workload} ({phase}), {step} of {steps} steps reported")
            }
            Self::Observed(workload) => write!(f, "after {workload}"),
            Self::Operation(None) => f.write_str("after the device's peaks"),
            Self::Operation(Some(operation)) => write!(f, "after {operation}"),
            Self::Verified => f.write_str("after a variant was verified"),
            Self::Found => f.write_str("after the devices were listed"),
            Self::Finished => f.write_str("after the job was finished"),
            Self::Failed => f.write_str("after the job had failed"),
        }
    }
}

/// What a child has said on its standard output, event by event.
#[derive(Debug)]
pub(super) struct Transcript {
    /// What the events brought.
    pub(super) collected: Collected,
    /// How far they got.
    pub(super) stage: Stage,
    /// The first breach of the protocol; nothing is read after it.
    pub(super) violation: Option<String>,
    /// The output ended within a line that is no event: a consequence of the child's end more often than its cause.
    pub(super) truncated: Option<String>,
    lines: Lines,
}

impl Default for Transcript {
    fn default() -> Self {
        Self::with_line_limit(LINE_LIMIT)
    }
}

impl Transcript {
    fn with_line_limit(limit: usize) -> Self {
        Self {
            collected: Collected::default(),
            stage: Stage::default(),
            violation: None,
            truncated: None,
            lines: Lines::new(limit),
        }
    }

    /// Takes in the next bytes and hands every event in them to `on_event`.
    pub(super) fn push(&mut self, bytes: &[u8], on_event: &mut dyn FnMut(&Event)) {
        if self.violation.is_some() {
            return;
        }
        let Self { collected, stage, violation, lines, .. } = self;
        let pushed = lines.push(bytes, |line| {
            if violation.is_none() {
                *violation = take_line(line, collected, stage, on_event).err();
            }
        });
        if let (Err(TooLong(beginning)), None) = (pushed, &violation) {
            let limit = lines.limit();
            *violation = Some(format!("standard output: a line of more than {limit} bytes: {}", quote(&beginning)));
        }
    }

    /// The output is at its end: takes in a last line without line feed.
    pub(super) fn end(&mut self, on_event: &mut dyn FnMut(&Event)) {
        if self.violation.is_none() {
            let rest = self.lines.take_rest();
            self.truncated = take_line(&rest, &mut self.collected, &mut self.stage, on_event).err();
        }
    }
}

fn take_line(
    line: &[u8],
    collected: &mut Collected,
    stage: &mut Stage,
    on_event: &mut dyn FnMut(&Event),
) -> Result<(), String> {
    if line.trim_ascii().is_empty() {
        return Ok(());
    }
    if stage.is_closed() {
        return Err(format!("standard output: nothing may follow the last event, but this did: {}", quote(line)));
    }
    let event = serde_json::from_slice(line)
        .map_err(|error| format!("standard output: a line is not an event ({error}): {}", quote(line)))?;
    on_event(&event);
    *stage = Stage::after(&event);
    collected.absorb(event);
    Ok(())
}

/// A line as it can be shown: shortened, control characters escaped.
fn quote(line: &[u8]) -> String {
    let beginning = String::from_utf8_lossy(&line[..line.len().min(4 * QUOTE_LIMIT)]);
    let shown: String = beginning.trim().chars().take(QUOTE_LIMIT).collect();
    let ellipsis = if shown.len() < line.trim_ascii().len() { "…" } else { "" };
    format!("`{}{ellipsis}`", shown.escape_debug().to_string().replace("\\\"", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::fixtures::{observation, opened};
    use crate::spec::{Failure, FailureKind};

    fn line(event: &Event) -> String {
        serde_json::to_string(event).expect("events serialise") + "\n"
    }

    fn read(text: &str) -> (Transcript, usize) {
        let mut transcript = Transcript::with_line_limit(4096);
        let mut seen = 0;
        transcript.push(text.as_bytes(), &mut |_| seen += 1);
        transcript.end(&mut |_| seen += 1);
        (transcript, seen)
    }

    #[test]
    fn events_are_collected_and_the_stage_follows() {
        let (workload, phase) = (Workload::Training, Phase::Warmup);
        let events = [
            (opened(), "after the device was opened"),
            (Event::PhaseStarted { workload, phase, steps: 5 }, "in training (warm-up), none of 5 steps reported yet"),
            (
                Event::Progress { workload, phase, step: 2, steps: 5, step_ns: 9 },
                "in training (warm-up), 2 of 5 steps reported",
            ),
            (Event::Observed(observation()), "after inference"),
            (Event::Finished, "after the job was finished"),
        ];
        let mut transcript = Transcript::default();
        assert_eq!(transcript.stage.to_string(), "before the device was open");
        for (event, stage) in &events {
            transcript.push(line(event).as_bytes(), &mut |seen| assert_eq!(seen, event));
            assert_eq!(transcript.stage.to_string(), *stage);
        }
        assert_eq!(transcript.collected.observations, [observation()]);
        assert!(transcript.collected.device.is_some());
        assert_eq!((transcript.violation, transcript.truncated), (None, None));
    }

    #[test]
    fn blank_lines_and_a_missing_last_line_feed_are_tolerated() {
        let (transcript, seen) = read(&format!("\n{}  \r\n{}", line(&opened()), line(&Event::Finished).trim()));
        assert_eq!((seen, transcript.stage), (2, Stage::Finished));
        assert_eq!((transcript.violation, transcript.truncated), (None, None));
    }

    #[test]
    fn breaches_are_told_with_the_line() {
        insta::assert_snapshot!(
            read("ready to go \u{7} \"now\"\n").0.violation.expect("a breach"),
            @r#"standard output: a line is not an event (expected value at line 1 column 1): `ready to go \u{7} "now"`"#
        );
        insta::assert_snapshot!(
            read("{\"event\":\"finished\"}\n{\"event\":\"finished\"}\n").0.violation.expect("a breach"),
            @r#"standard output: nothing may follow the last event, but this did: `{"event":"finished"}`"#
        );
        let (long, _) = read(&"x".repeat(5000));
        let message = long.violation.expect("a breach");
        assert!(message.starts_with("standard output: a line of more than"), "{message}");
        assert!(message.ends_with("xxx…`") && message.len() < 300, "{message}");
    }

    #[test]
    fn nothing_is_read_after_a_breach() {
        let (transcript, seen) = read(&format!("{}oops\n{}", line(&opened()), line(&Event::Observed(observation()))));
        assert_eq!(seen, 1);
        assert!(transcript.violation.is_some() && transcript.collected.observations.is_empty());
    }

    #[test]
    fn a_truncated_last_line_is_kept_apart() {
        let (transcript, _) = read("{\"event\":\"fini");
        assert!(transcript.truncated.is_some_and(|text| text.contains("EOF while parsing")));
        assert_eq!(transcript.violation, None);
    }

    #[test]
    fn a_failed_event_is_collected_as_the_failure() {
        let failure = Failure::new(FailureKind::Unsupported, "no such device");
        let (transcript, _) = read(&line(&Event::Failed(failure.clone())));
        assert_eq!(transcript.collected.failure, Some(failure));
    }
}
