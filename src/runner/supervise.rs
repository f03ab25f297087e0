use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::diagnosis::{Ending, Intervention, diagnose, diagnose_start};
use super::memory::resident_bytes;
use super::pipes::Stream;
use super::process::Process;
use super::tail::Tail;
use super::transcript::Transcript;
use super::{Child, Collected, Executor, Limits, StopFlag};
use crate::spec::{Event, Failure, FailureKind, Job};

/// Longest sleep between two looks at the child: rare enough not to disturb what is being timed.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Sleep while the child has closed its pipes, which is to say while it exits.
const EXIT_INTERVAL: Duration = Duration::from_millis(5);

/// How long a child may stay after its last event.
const LINGER_LIMIT: Duration = Duration::from_secs(10);

/// Standard error kept, in bytes.
const STDERR_BYTES: usize = 64 << 10;

/// Answers each job with a child process of its own.
#[derive(Clone, Debug)]
pub struct ProcessExecutor {
    /// What is started.
    pub child: Child,
    /// What it may use.
    pub limits: Limits,
    /// When it is to be stopped early.
    pub stop: StopFlag,
    /// Whether its standard error is passed on to ours as it comes.
    pub verbose: bool,
}

impl Executor for ProcessExecutor {
    fn execute(&self, job: &Job, on_event: &mut dyn FnMut(&Event)) -> Collected {
        let started = Instant::now();
        let mut collected = self.start(job).map_or_else(
            |failure| Collected { failure: Some(failure), ..Collected::default() },
            |process| self.attend(process, started, on_event),
        );
        collected.duration = started.elapsed();
        collected
    }
}

impl ProcessExecutor {
    fn start(&self, job: &Job) -> Result<Process, Failure> {
        if self.stop.is_set() {
            return Err(Failure::new(FailureKind::Interrupted, "stopped by the user before it began"));
        }
        let mut request = serde_json::to_vec(job).map_err(|error| {
            Failure::new(FailureKind::Protocol, format!("the job cannot be written as JSON: {error}"))
        })?;
        request.push(b'\n');
        Process::start(&self.child, request).map_err(|error| diagnose_start(&self.child, &error))
    }

    /// Stays with a child to its end and tells what came of it.
    fn attend(&self, mut process: Process, started: Instant, on_event: &mut dyn FnMut(&Event)) -> Collected {
        let mut heard = Heard { transcript: Transcript::default(), stderr: Tail::new(STDERR_BYTES), on_event };
        let intervention = self.watch(&mut process, started, &mut heard);
        let status = process.end(|stream, bytes| self.hear(&mut heard, stream, bytes));
        heard.transcript.end(heard.on_event);

        let ending = match (intervention, status) {
            (Some(intervention), _) => Ending::Killed(intervention),
            (None, Some(status)) => Ending::of(status),
            // The status is lost, so what the child said has to do.
            (None, None) => Ending::Exit(0),
        };
        let mut failure = diagnose(ending, &heard.transcript, &heard.stderr.text(), &self.limits);
        if let (Some(failure), false) = (&mut failure, process.has_exited()) {
            failure.message.push_str("; it could not be killed and may still hold the device");
        }
        Collected { failure, process: Some(process.id()), ..heard.transcript.collected }
    }

    /// Listens until the child exits (`None`) or has to be ended.
    fn watch(&self, process: &mut Process, started: Instant, heard: &mut Heard) -> Option<Intervention> {
        let mut next_look = Instant::now();
        let mut closed_at = None;
        loop {
            let interval = if process.pipes().are_open() { LOOK_INTERVAL } else { EXIT_INTERVAL };
            let sleep = interval.min(self.limits.timeout.saturating_sub(started.elapsed()));
            process.pipes().exchange(sleep, |stream, bytes| self.hear(heard, stream, bytes));

            if heard.transcript.violation.is_some() {
                return Some(Intervention::Violation);
            }
            if process.has_exited() {
                return None;
            }
            if self.stop.is_set() {
                return Some(Intervention::Stop);
            }
            if heard.transcript.stage.is_closed() && closed_at.get_or_insert_with(Instant::now).elapsed() > LINGER_LIMIT
            {
                return Some(Intervention::Lingering);
            }
            if started.elapsed() >= self.limits.timeout {
                return Some(Intervention::TimeLimit);
            }
            if Instant::now() >= next_look {
                next_look = Instant::now() + LOOK_INTERVAL;
                let exceeded = self.exceeded_memory(process.id());
                if exceeded.is_some() {
                    return exceeded;
                }
            }
        }
    }

    fn exceeded_memory(&self, process_id: u32) -> Option<Intervention> {
        let limit = self.limits.memory_bytes?;
        let reached_bytes = resident_bytes(process_id)?;
        (reached_bytes > limit).then_some(Intervention::MemoryLimit { reached_bytes })
    }

    fn hear(&self, heard: &mut Heard, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Output => heard.transcript.push(bytes, heard.on_event),
            Stream::Error => {
                heard.stderr.push(bytes);
                if self.verbose {
                    // Nobody to tell if our own standard error is closed.
                    let _ = io::stderr().write_all(bytes);
                }
            }
        }
    }
}

/// What a child has said so far.
struct Heard<'a> {
    transcript: Transcript,
    stderr: Tail,
    on_event: &'a mut dyn FnMut(&Event),
}
