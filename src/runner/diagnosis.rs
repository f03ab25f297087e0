use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

use super::panic::find_panic;
use super::tail::{last_lines, shorten};
use super::transcript::{Stage, Transcript};
use super::{Child, Limits};
use crate::spec::{Failure, FailureKind};

/// Lines of standard error that a failure carries.
const STDERR_LINES: usize = 40;

/// Texts, in lower case, with which allocators and drivers say that memory ran out.
const OUT_OF_MEMORY_TEXTS: [&str; 6] = [
    "out of memory",
    "outofmemory",
    "out_of_memory",
    "out_of_device_memory",
    "out_of_host_memory",
    "cannot allocate memory",
];

/// Longest piece of standard error within a message, in characters; the rest is in the captured standard error.
const QUOTE_LIMIT: usize = 400;

/// What to do about memory.
const SMALLER: &str = "lower the batch size, the sequence length or the model sizes";

/// Why the parent ended a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intervention {
    /// It broke the protocol.
    Violation,
    /// The user stopped the run.
    Stop,
    /// It ran past its time limit.
    TimeLimit,
    /// It sent its last event but stayed.
    Lingering,
    /// Its resident set reached this many bytes.
    MemoryLimit { reached_bytes: u64 },
}

/// How a child came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It exited with this code.
    Exit(i32),
    /// It was ended by this signal, which was not ours.
    Signal(i32),
    /// The parent killed it.
    Killed(Intervention),
}

impl Ending {
    /// The ending of a child that came to it by itself.
    pub(super) fn of(status: ExitStatus) -> Self {
        status.signal().map_or_else(|| Self::Exit(status.code().unwrap_or_default()), Self::Signal)
    }
}

/// Names the reason why a job is not complete; `None` if it is.
pub(super) fn diagnose(ending: Ending, transcript: &Transcript, stderr: &str, limits: &Limits) -> Option<Failure> {
    let mut failure = match &transcript.collected.failure {
        Some(reported) => reported.clone(),
        None => infer(ending, transcript, stderr, limits)?,
    };
    if failure.stderr.is_empty() {
        last_lines(stderr, STDERR_LINES).clone_into(&mut failure.stderr);
    }
    Some(failure)
}

fn infer(ending: Ending, transcript: &Transcript, stderr: &str, limits: &Limits) -> Option<Failure> {
    let stage = transcript.stage;
    let failure = |kind, text: String| Some(Failure::new(kind, format!("{stage}: {text}")));
    let protocol = |violation: &str| {
        failure(FailureKind::Protocol, format!("{violation}; print anything but events to standard error"))
    };
    if let Some(violation) = &transcript.violation {
        return protocol(violation);
    }
    match ending {
        Ending::Killed(intervention) => {
            let (kind, text) = explain(intervention, stage, limits)?;
            failure(kind, text)
        }
        Ending::Exit(0) => match &transcript.truncated {
            Some(truncated) => protocol(truncated),
            None if stage == Stage::Finished => None,
            None => failure(
                FailureKind::Protocol,
                "exited with code 0 but without the event `finished`; \
                 check that the program speaks the cell protocol"
                    .to_owned(),
            ),
        },
        Ending::Exit(code) => {
            let (kind, text) = explain_crash(stderr, true, format!("exit code {code}{}", last_words(stderr)));
            failure(kind, text)
        }
        Ending::Signal(signal) => {
            let (kind, text) = explain_crash(stderr, signal == Signal::SIGABRT as i32, describe_signal(signal));
            failure(kind, text)
        }
    }
}

fn explain(intervention: Intervention, stage: Stage, limits: &Limits) -> Option<(FailureKind, String)> {
    let timeout = limits.timeout;
    Some(match intervention {
        Intervention::Stop if stage == Stage::Finished => return None,
        Intervention::Stop => (FailureKind::Interrupted, "stopped by the user".to_owned()),
        Intervention::Violation => (FailureKind::Protocol, "broke the protocol".to_owned()),
        Intervention::TimeLimit if stage != Stage::Finished => (
            FailureKind::TimedOut,
            format!("not done within the limit of {timeout:?}; raise it with `--timeout`, or ask for less"),
        ),
        Intervention::TimeLimit | Intervention::Lingering => (
            FailureKind::TimedOut,
            "did not exit although nothing was left to do; what it measured is complete, its clean-up hangs".to_owned(),
        ),
        Intervention::MemoryLimit { reached_bytes } => (
            FailureKind::OutOfMemory,
            format!(
                "resident set reached {:.1} MB, limit {:.1} MB; raise it with `--memory-mb`, or {SMALLER}",
                megabytes(reached_bytes),
                megabytes(limits.memory_bytes.unwrap_or_default())
            ),
        ),
    })
}

/// Prefers what standard error says over what the exit status does.
fn explain_crash(stderr: &str, panic_ends_so: bool, status: String) -> (FailureKind, String) {
    if let Some(line) = stderr.lines().find(|line| says_out_of_memory(line)) {
        return (FailureKind::OutOfMemory, format!("{}; {SMALLER}", shorten(line.trim(), QUOTE_LIMIT)));
    }
    let panic = if panic_ends_so { find_panic(stderr) } else { None };
    (FailureKind::Crashed, panic.map_or(status, |panic| format!("panicked {}", shorten(&panic, QUOTE_LIMIT))))
}

fn describe_signal(signal: i32) -> String {
    let name = Signal::try_from(signal).map_or("no name", Signal::as_str);
    let hint =
        if signal == Signal::SIGKILL as i32 { "; if the machine ran out of memory, the kernel does this" } else { "" };
    format!("killed by signal {signal} ({name}){hint}")
}

fn last_words(stderr: &str) -> String {
    match last_lines(stderr, 1).trim() {
        "" => ", standard error is empty".to_owned(),
        line => format!(", last words: {}", shorten(line, QUOTE_LIMIT)),
    }
}

fn says_out_of_memory(line: &str) -> bool {
    let line = line.to_lowercase();
    // A linker that finds no room for thread-local variables; a smaller model would not help.
    let is_about_linking = line.contains("static tls");
    (line.contains("memory allocation of") && line.contains("failed"))
        || (!is_about_linking && OUT_OF_MEMORY_TEXTS.iter().any(|text| line.contains(text)))
}

/// The failure of a child that could not be started at all.
pub(super) fn diagnose_start(child: &Child, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => {
            "give the path of a program, or put it on PATH (a script's interpreter must exist too)"
        }
        io::ErrorKind::PermissionDenied => "make the file executable",
        _ => "try to start it by hand",
    };
    let program = child.program.display();
    Failure::new(FailureKind::Unsupported, format!("`{program}` cannot be started: {error}; {remedy}"))
}

/// Megabytes of 2^20 bytes.
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::spec::{Event, Phase, Workload};

    fn limits() -> Limits {
        Limits { timeout: Duration::from_millis(1500), memory_bytes: Some(200 << 20) }
    }

    fn transcript(events: &[Event]) -> Transcript {
        let mut transcript = Transcript::default();
        for event in events {
            let line = serde_json::to_string(event).expect("events serialise") + "\n";
            transcript.push(line.as_bytes(), &mut |_| ());
        }
        transcript
    }

    fn verdict(ending: Ending, events: &[Event], stderr: &str) -> String {
        diagnose(ending, &transcript(events), stderr, &limits())
            .map_or_else(|| "complete".to_owned(), |failure| failure.to_string())
    }

    fn measuring() -> Event {
        let (workload, phase) = (Workload::Training, Phase::Measure);
        Event::Progress { workload, phase, step: 3, steps: 50, step_ns: 1 }
    }

    #[test]
    fn every_end_has_its_name() {
        let own = Failure { stderr: "its own".to_owned(), ..Failure::new(FailureKind::WrongAnswer, "loss differs") };
        let memory = Intervention::MemoryLimit { reached_bytes: 300 << 20 };
        let panic = "thread 'main' panicked at a.rs:1:2:\nboom\n";
        let cases: &[(Ending, &[Event], &str)] = &[
            (Ending::Exit(0), &[Event::Finished], "chatter"),
            (Ending::Exit(0), &[], ""),
            (Ending::Exit(0), &[measuring()], "out of memory, but who cares"),
            (Ending::Exit(3), &[measuring()], "first\nlast\n\n"),
            (Ending::Exit(3), &[], ""),
            (Ending::Exit(101), &[measuring()], panic),
            (Ending::Signal(6), &[], panic),
            (Ending::Signal(6), &[], "memory allocation of 4096 bytes failed\nAborted\n"),
            (Ending::Signal(6), &[], ""),
            (Ending::Signal(9), &[measuring()], ""),
            (Ending::Signal(11), &[Event::Finished], panic),
            (Ending::Signal(64), &[], ""),
            (Ending::Exit(1), &[], "CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
            (Ending::Exit(1), &[], "vkAllocateMemory: VK_ERROR_OUT_OF_DEVICE_MEMORY"),
            (Ending::Exit(1), &[], "torch.cuda.OutOfMemoryError: tried to allocate 2 GiB"),
            (Ending::Exit(1), &[], "index out_of_range"),
            (Ending::Exit(1), &[], "libgomp.so.1: cannot allocate memory in static TLS block"),
            (Ending::Exit(1), &[Event::Failed(own.clone())], panic),
            (Ending::Killed(Intervention::Stop), &[measuring()], ""),
            (Ending::Killed(Intervention::Stop), &[Event::Finished], ""),
            (Ending::Killed(Intervention::TimeLimit), &[measuring()], ""),
            (Ending::Killed(Intervention::TimeLimit), &[Event::Finished], ""),
            (Ending::Killed(Intervention::Lingering), &[Event::Finished], ""),
            (Ending::Killed(memory), &[measuring()], ""),
        ];
        let table: Vec<_> = cases.iter().map(|(ending, events, stderr)| verdict(*ending, events, stderr)).collect();
        insta::assert_snapshot!(table.join("\n"), @"
        complete
        protocol error: before the device was open: exited with code 0 but without the event `finished`; check that the program speaks the cell protocol
        protocol error: in training (measure), 3 of 50 steps reported: exited with code 0 but without the event `finished`; check that the program speaks the cell protocol
        crashed: in training (measure), 3 of 50 steps reported: exit code 3, last words: last
        crashed: before the device was open: exit code 3, standard error is empty
        crashed: in training (measure), 3 of 50 steps reported: panicked at a.rs:1:2: boom
        crashed: before the device was open: panicked at a.rs:1:2: boom
        out of memory: before the device was open: memory allocation of 4096 bytes failed; lower the batch size, the sequence length or the model sizes
        crashed: before the device was open: killed by signal 6 (SIGABRT)
        crashed: in training (measure), 3 of 50 steps reported: killed by signal 9 (SIGKILL); if the machine ran out of memory, the kernel does this
        crashed: after the job was finished: killed by signal 11 (SIGSEGV)
        crashed: before the device was open: killed by signal 64 (no name)
        out of memory: before the device was open: CUDA_ERROR_OUT_OF_MEMORY: out of memory; lower the batch size, the sequence length or the model sizes
        out of memory: before the device was open: vkAllocateMemory: VK_ERROR_OUT_OF_DEVICE_MEMORY; lower the batch size, the sequence length or the model sizes
        out of memory: before the device was open: torch.cuda.OutOfMemoryError: tried to allocate 2 GiB; lower the batch size, the sequence length or the model sizes
        crashed: before the device was open: exit code 1, last words: index out_of_range
        crashed: before the device was open: exit code 1, last words: libgomp.so.1: cannot allocate memory in static TLS block
        wrong answer: loss differs
        interrupted: in training (measure), 3 of 50 steps reported: stopped by the user
        complete
        timed out: in training (measure), 3 of 50 steps reported: not done within the limit of 1.5s; raise it with `--timeout`, or ask for less
        timed out: after the job was finished: did not exit although nothing was left to do; what it measured is complete, its clean-up hangs
        timed out: after the job was finished: did not exit although nothing was left to do; what it measured is complete, its clean-up hangs
        out of memory: in training (measure), 3 of 50 steps reported: resident set reached 300.0 MB, limit 200.0 MB; raise it with `--memory-mb`, or lower the batch size, the sequence length or the model sizes
        ");
    }

    #[test]
    fn a_breach_outranks_the_end_and_a_truncated_line_does_not() {
        let mut garbage = transcript(&[]);
        garbage.push(b"hello\n", &mut |_| ());
        let mut truncated = transcript(&[]);
        truncated.push(b"{\"event\"", &mut |_| ());
        truncated.end(&mut |_| ());

        let kind = |ending, transcript| diagnose(ending, transcript, "", &limits()).map(|failure| failure.kind);
        assert_eq!(kind(Ending::Signal(11), &garbage), Some(FailureKind::Protocol));
        assert_eq!(kind(Ending::Killed(Intervention::Violation), &garbage), Some(FailureKind::Protocol));
        assert_eq!(kind(Ending::Signal(11), &truncated), Some(FailureKind::Crashed));
        assert_eq!(kind(Ending::Killed(Intervention::TimeLimit), &truncated), Some(FailureKind::TimedOut));
        assert_eq!(kind(Ending::Exit(0), &truncated), Some(FailureKind::Protocol));
    }

    #[test]
    fn standard_error_is_added_unless_the_child_sent_its_own() {
        let stderr = (0..100).map(|line| format!("line {line}\n")).collect::<Vec<_>>().concat();
        let failure = diagnose(Ending::Exit(1), &transcript(&[]), &stderr, &limits()).expect("a failure");
        assert!(failure.stderr.starts_with("line 60\n") && failure.stderr.ends_with("\nline 99"), "{}", failure.stderr);

        let own = Failure { stderr: "its own".to_owned(), ..Failure::new(FailureKind::Unsupported, "no device") };
        let reported = transcript(&[Event::Failed(own.clone())]);
        assert_eq!(diagnose(Ending::Exit(1), &reported, &stderr, &limits()), Some(own));
    }

    #[test]
    fn a_message_stays_short_whatever_standard_error_holds() {
        let long = "x".repeat(9000);
        for text in [long.clone(), format!("out of memory {long}"), format!("thread 'a' panicked at a.rs:1:1:\n{long}")]
        {
            let message = verdict(Ending::Exit(1), &[], &text);
            assert!(message.contains("xxx…") && message.len() < 600, "{message}");
        }
    }

    #[test]
    fn a_program_that_does_not_start_is_unsupported() {
        let child = Child { program: "/no/where".into(), arguments: Vec::new(), environment: Vec::new() };
        let failure = diagnose_start(&child, &io::ErrorKind::NotFound.into());
        insta::assert_snapshot!(
            failure,
            @"unsupported: `/no/where` cannot be started: entity not found; give the path of a program, or put it on PATH (a script's interpreter must exist too)"
        );
    }
}
