//! Real child processes, as small shell scripts that speak, or break, the protocol.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::fixtures::{job, observation, opened, progress, say};
use super::{Child, Collected, Executor, Limits, ProcessExecutor, StopFlag};
use crate::spec::{CellSpec, Event, Failure, FailureKind, Job};

/// Tells a copy of this test program, started by a test, where to work.
const FOLDER_VARIABLE: &str = "RUNNER_TEST_FOLDER";

/// Far above what any of these children needs, even on a busy machine.
const AMPLE: Duration = Duration::from_secs(30);

struct Sandbox {
    folder: TempDir,
    limits: Limits,
    stop: StopFlag,
}

impl Sandbox {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            limits: Limits { timeout: AMPLE, memory_bytes: None },
            stop: StopFlag::default(),
        }
    }

    fn with_timeout(milliseconds: u64) -> Self {
        let mut sandbox = Self::new();
        sandbox.limits.timeout = Duration::from_millis(milliseconds);
        sandbox
    }

    /// The executor of a shell script that runs with `$FOLDER` set.
    fn executor(&self, script: &str) -> ProcessExecutor {
        script_executor(self.folder.path(), script, self.limits.clone(), self.stop.clone())
    }

    fn run(&self, script: &str) -> Collected {
        self.executor(script).execute(&job(), &mut |_| ())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).expect("a file the script wrote")
    }
}

fn script_executor(folder: &Path, script: &str, limits: Limits, stop: StopFlag) -> ProcessExecutor {
    let path = folder.join("child.sh");
    fs::write(&path, script).expect("a writable folder");
    let child = Child {
        program: "sh".into(),
        arguments: vec![path.into()],
        environment: vec![("FOLDER".into(), folder.into())],
    };
    ProcessExecutor { child, limits, stop, verbose: false }
}

fn failure(collected: &Collected) -> &Failure {
    collected.failure.as_ref().expect("a failure")
}

#[track_caller]
fn assert_failed(collected: &Collected, kind: FailureKind, text: &str) {
    let failure = failure(collected);
    assert_eq!(failure.kind, kind, "{failure}");
    assert!(failure.message.contains(text), "{failure}");
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < AMPLE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process still runs; a zombie that nobody has reaped does not.
fn runs(process_id: &str) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", process_id.trim()]).output().expect("ps").stdout;
    !state.is_empty() && !state.starts_with(b"Z")
}

#[test]
fn a_good_child_is_collected() {
    let sandbox = Sandbox::new();
    let script = format!(
        "cat > $FOLDER/job.json\necho chatter >&2\n{}{}{}{}",
        say(&opened()),
        say(&progress(1)),
        say(&Event::Observed(observation())),
        say(&Event::Finished)
    );
    let mut seen = Vec::new();
    let collected = sandbox.executor(&script).execute(&job(), &mut |event| seen.push(event.clone()));

    assert_eq!(collected.failure, None);
    assert_eq!(collected.observations, [observation()]);
    assert_eq!(collected.device.as_ref().map(|device| device.name.as_str()), Some("a processor"));
    assert!(collected.applied.is_some() && collected.duration > Duration::ZERO);
    assert_eq!(seen, [opened(), progress(1), Event::Observed(observation()), Event::Finished]);
    let received: Job = serde_json::from_str(&sandbox.read("job.json")).expect("the child got the job");
    assert_eq!(received, job());
}

#[test]
fn a_child_that_hangs_is_killed_with_its_group() {
    let sandbox = Sandbox::with_timeout(500);
    let script = format!("{}sleep 60 &\necho $! > $FOLDER/grandchild\nwait", say(&progress(3)));
    let collected = sandbox.run(&script);
    assert_failed(&collected, FailureKind::TimedOut, "in inference (measure), 3 of 50 steps reported: ");
    assert_failed(&collected, FailureKind::TimedOut, "limit of 500ms; raise it with `--timeout`");
    assert!(collected.duration < Duration::from_secs(3), "{:?}", collected.duration);
    let grandchild = sandbox.read("grandchild");
    wait_until("the grandchild is gone", || !runs(&grandchild));
}

#[test]
fn a_grandchild_that_keeps_the_pipes_open_neither_blocks_nor_survives() {
    let sandbox = Sandbox::new();
    let collected = sandbox.run(&format!("{}sleep 60 &\necho $! > $FOLDER/grandchild", say(&Event::Finished)));
    assert_eq!(collected.failure, None);
    assert!(collected.duration < Duration::from_secs(3), "{:?}", collected.duration);
    let grandchild = sandbox.read("grandchild");
    wait_until("the grandchild is gone", || !runs(&grandchild));
}

#[test]
#[cfg(target_os = "linux")]
fn a_grandchild_that_left_the_group_does_not_block() {
    let sandbox = Sandbox::new();
    let collected = sandbox.run(&format!(
        "setsid sh -c 'echo $$ > $FOLDER/daemon; exec sleep 60' &\n\
         while [ ! -s $FOLDER/daemon ]; do sleep 0.01; done\n{}",
        say(&Event::Finished)
    ));
    assert_eq!(collected.failure, None);
    assert!(collected.duration < Duration::from_secs(3), "{:?}", collected.duration);
    let daemon = sandbox.read("daemon").trim().parse().expect("a process id");
    kill(Pid::from_raw(daemon), Signal::SIGKILL).expect("it lives on by its own choice");
}

#[test]
fn an_end_by_signal_is_named() {
    let abort = Sandbox::new().run("echo about to abort >&2\nkill -ABRT $$");
    assert_failed(&abort, FailureKind::Crashed, "before the device was open: killed by signal 6 (SIGABRT)");
    assert_eq!(failure(&abort).stderr, "about to abort");

    let killed = Sandbox::new().run("kill -KILL $$");
    assert_failed(
        &killed,
        FailureKind::Crashed,
        "killed by signal 9 (SIGKILL); if the machine ran out of memory, the kernel does this",
    );
}

#[test]
fn rubbish_on_standard_output_ends_the_child() {
    let sandbox = Sandbox::new();
    let collected = sandbox.run(&format!("{}echo 'Loading driver...'\nexec sleep 60", say(&opened())));
    assert_failed(&collected, FailureKind::Protocol, "`Loading driver...`");
    assert!(collected.device.is_some());
    assert!(collected.duration < Duration::from_secs(3), "{:?}", collected.duration);
}

#[test]
fn a_truncated_event_and_a_missing_finish_are_told() {
    let truncated = Sandbox::new().run("printf '{\"event\":\"fin'");
    assert_failed(&truncated, FailureKind::Protocol, "`{\"event\":\"fin`");
    let silent = Sandbox::new().run("exit 0");
    assert_failed(&silent, FailureKind::Protocol, "without the event `finished`");
    let late = Sandbox::new().run(&format!("{}{}", say(&Event::Finished), say(&progress(1))));
    assert_failed(&late, FailureKind::Protocol, "nothing may follow the last event");
}

#[test]
fn an_exit_code_comes_with_the_last_words() {
    let collected = Sandbox::new().run("echo first >&2\necho no such driver >&2\nexit 3");
    assert_failed(&collected, FailureKind::Crashed, "exit code 3, last words: no such driver");
    assert_eq!(failure(&collected).stderr, "first\nno such driver");
}

#[test]
fn a_failure_that_the_child_reports_is_passed_on() {
    let reported = Failure::new(FailureKind::Unsupported, "no such device");
    let collected = Sandbox::new().run(&format!("echo hint >&2\n{}exit 1", say(&Event::Failed(reported.clone()))));
    assert_eq!(collected.failure, Some(Failure { stderr: "hint".to_owned(), ..reported }));
}

#[test]
fn what_was_observed_before_a_crash_is_kept() {
    let script = format!("{}{}kill -SEGV $$", say(&opened()), say(&Event::Observed(observation())));
    let collected = Sandbox::new().run(&script);
    assert_failed(&collected, FailureKind::Crashed, "after inference: killed by signal 11 (SIGSEGV)");
    assert_eq!(collected.observations, [observation()]);
}

#[test]
fn a_flood_on_standard_error_is_swallowed() {
    let script = format!(
        "yes 'a line of noise' | head -c 8000000 >&2\necho the end >&2\n{}exit 1",
        say(&Event::Observed(observation()))
    );
    let collected = Sandbox::new().run(&script);
    assert_failed(&collected, FailureKind::Crashed, "last words: the end");
    assert_eq!(failure(&collected).stderr.lines().count(), 40);
    assert_eq!(collected.observations, [observation()]);
}

#[test]
fn a_flood_of_events_arrives_whole() {
    let event = serde_json::to_string(&progress(1)).expect("events serialise");
    let script = format!("yes '{event}' | head -n 20000\n{}", say(&Event::Finished));
    let mut seen = 0;
    let collected = Sandbox::new().executor(&script).execute(&job(), &mut |_| seen += 1);
    assert_eq!((collected.failure, seen), (None, 20_001));
}

/// A pipe made larger than what is read at once is still full when its writer is gone.
#[test]
#[cfg(target_os = "linux")]
fn a_slow_listener_misses_nothing() {
    let program = "import fcntl, os, sys\nfcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)\n\
                   os.write(1, (sys.argv[1] + '\\n').encode() * 6000 + b'{\"event\":\"finished\"}\\n')";
    let event = serde_json::to_string(&progress(1)).expect("events serialise");
    let mut executor = Sandbox::new().executor("");
    executor.child.program = "python3".into();
    executor.child.arguments = ["-c", program, &event].map(Into::into).into();
    let mut seen = 0;
    let collected = executor.execute(&job(), &mut |_| {
        seen += 1;
        if seen % 1000 == 0 {
            thread::sleep(Duration::from_millis(120));
        }
    });
    assert_eq!((collected.failure, seen), (None, 6001));
}

#[test]
fn time_runs_out_for_a_child_that_never_stops_talking() {
    let event = serde_json::to_string(&progress(1)).expect("events serialise");
    for script in [format!("exec yes '{event}'"), "exec yes >&2".to_owned()] {
        let collected = Sandbox::with_timeout(300).run(&script);
        assert_failed(&collected, FailureKind::TimedOut, "limit of 300ms");
        assert!(collected.duration < Duration::from_secs(3), "{:?}", collected.duration);
    }
}

#[test]
fn a_job_larger_than_a_pipe_holds_needs_no_reader() {
    let Job::Measure { cell, cache, once } = job() else { unreachable!("it is a measurement") };
    let large = Job::Measure { cell: CellSpec { variant: "x".repeat(1 << 20), ..cell }, cache, once };
    let run =
        |milliseconds, script: &str| Sandbox::with_timeout(milliseconds).executor(script).execute(&large, &mut |_| ());
    assert_failed(&run(300, "exec sleep 60"), FailureKind::TimedOut, "limit of 300ms");
    assert_failed(&run(30_000, "exec 0<&-\nsleep 0.1\nexit 4"), FailureKind::Crashed, "exit code 4");
    let script = format!("test $(wc -c) -gt 1048576 || exit 1\n{}", say(&Event::Finished));
    assert_eq!(run(30_000, &script).failure, None);
}

#[test]
#[cfg(target_os = "linux")]
fn a_child_over_its_memory_limit_is_killed() {
    let mut sandbox = Sandbox::new();
    sandbox.limits.memory_bytes = Some(200 << 20);
    let collected = sandbox.run(&format!("{}exec dd if=/dev/zero of=/dev/null bs=400M", say(&progress(3))));
    assert_failed(&collected, FailureKind::OutOfMemory, "limit 200.0 MB; raise it with `--memory-mb`");
    assert!(collected.duration < Duration::from_secs(5), "{:?}", collected.duration);
}

#[test]
fn a_program_that_is_not_there_is_unsupported() {
    let mut executor = Sandbox::new().executor("");
    executor.child.program = "/no/such/program".into();
    assert_failed(&executor.execute(&job(), &mut |_| ()), FailureKind::Unsupported, "`/no/such/program` cannot be");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("not-executable");
    fs::write(&file, "").expect("a writable folder");
    executor.child.program = file;
    assert_failed(&executor.execute(&job(), &mut |_| ()), FailureKind::Unsupported, "make the file executable");
}

#[test]
fn the_stop_flag_ends_the_child_and_keeps_what_is_done() {
    let sandbox = Sandbox::new();
    let stop = sandbox.stop.clone();
    let setter = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        stop.set();
    });
    let collected = sandbox.run(&format!("{}exec sleep 60", say(&Event::Observed(observation()))));
    setter.join().expect("the setter ends");
    assert_failed(&collected, FailureKind::Interrupted, "after inference: stopped by the user");
    assert_eq!(collected.observations, [observation()]);
    assert!(collected.duration < Duration::from_secs(3), "{:?}", collected.duration);

    let next = sandbox.run("touch $FOLDER/started");
    assert_failed(&next, FailureKind::Interrupted, "before it began");
    assert!(!sandbox.folder.path().join("started").exists());
}

#[test]
fn a_caller_that_panics_leaves_no_child() {
    let sandbox = Sandbox::with_timeout(100);
    let panicked = thread::spawn(move || {
        let executor = sandbox.executor(&format!("echo $$ > $FOLDER/child\n{}exec sleep 60", say(&opened())));
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            executor.execute(&job(), &mut |_| panic!("the caller's own fault"));
        }));
        assert!(unwound.is_err());
        sandbox.read("child")
    });
    let child = panicked.join().expect("the assertion holds");
    let gone = kill(Pid::from_raw(child.trim().parse().expect("a process id")), None);
    assert_eq!(gone, Err(nix::errno::Errno::ESRCH), "killed and reaped although the caller panicked");
}

/// Starts this test program again, to run one ignored test in it.
fn start_copy(test: &str, folder: &Path) -> std::process::Child {
    let (_, module) = module_path!().split_once("::").expect("a module within a crate");
    Command::new(std::env::current_exe().expect("a test program"))
        .args(["--exact", &format!("{module}::{test}"), "--ignored"])
        .env(FOLDER_VARIABLE, folder)
        .spawn()
        .expect("it starts again")
}

fn interrupt(process: &std::process::Child) {
    kill(Pid::from_raw(process.id() as i32), Signal::SIGINT).expect("it runs");
}

/// Runs a child that hangs until this program is stopped, then waits to be stopped once more.
#[test]
#[ignore = "started by other tests, in a process of its own"]
fn copy_that_hangs() {
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE) else { return };
    let folder = Path::new(&folder);
    let stop = StopFlag::install().expect("the first in this process");
    assert!(StopFlag::install().is_err(), "the second is refused");
    let limits = Limits { timeout: AMPLE, memory_bytes: None };
    let collected =
        script_executor(folder, "echo $$ > $FOLDER/child\nexec sleep 60", limits, stop).execute(&job(), &mut |_| ());
    fs::write(folder.join("kind"), failure(&collected).kind.to_string()).expect("a writable folder");
    thread::sleep(AMPLE);
}

#[test]
fn the_first_interrupt_stops_the_child_and_the_second_the_program() {
    let sandbox = Sandbox::new();
    let (child, kind) = (sandbox.folder.path().join("child"), sandbox.folder.path().join("kind"));
    let mut copy = start_copy("copy_that_hangs", sandbox.folder.path());
    let has_text = |path: &Path| fs::metadata(path).is_ok_and(|file| file.len() > 0);
    wait_until("the child runs", || has_text(&child));
    interrupt(&copy);
    wait_until("the child was stopped", || has_text(&kind));
    assert_eq!(sandbox.read("kind"), "interrupted");
    interrupt(&copy);
    assert_eq!(copy.wait().expect("it ends").code(), Some(130));
}

#[test]
#[cfg(target_os = "linux")]
fn the_child_dies_with_its_parent() {
    let sandbox = Sandbox::new();
    let path = sandbox.folder.path().join("child");
    let mut copy = start_copy("copy_that_hangs", sandbox.folder.path());
    wait_until("the child runs", || fs::metadata(&path).is_ok_and(|file| file.len() > 0));
    let child = sandbox.read("child");
    assert!(runs(&child));
    copy.kill().expect("it runs");
    copy.wait().expect("it ends");
    wait_until("the child is gone", || !runs(&child));
}
