use std::io;
use std::os::unix::process::CommandExt;
use std::process::{self, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Child;
use super::pipes::{Pipes, Stream};

/// How long a killed process may take to disappear. Longer means that it hangs in the kernel, in a driver's call.
const REAP_PATIENCE: Duration = Duration::from_secs(10);

/// How long silent pipes stay open after everything that should hold them was killed.
const SILENCE_PATIENCE: Duration = Duration::from_millis(250);

/// How long pipes that still bring something are read on: somebody who left the group may write for ever.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// A running child that leads a process group of its own. Dropping it kills the group.
pub(super) struct Process {
    child: process::Child,
    pipes: Pipes,
    reaped: bool,
}

impl Process {
    /// Starts the child and gets ready to write `request` to its standard input.
    ///
    /// On Linux the kernel kills it when the thread that calls this ends, hence also when this program dies
    /// (`PR_SET_PDEATHSIG`, prctl(2)); the caller therefore stays with the child to its end. What the child itself has
    /// started does not die that way.
    pub(super) fn start(child: &Child, request: Vec<u8>) -> io::Result<Self> {
        let mut command = Command::new(&child.program);
        command
            .args(&child.arguments)
            .envs(child.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        die_with_parent(&mut command);
        let mut child = command.spawn()?;
        let pipes = Pipes::new(request, child.stdin.take(), child.stdout.take(), child.stderr.take());
        match pipes {
            Ok(pipes) => Ok(Self { child, pipes, reaped: false }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its pipes.
    pub(super) fn pipes(&mut self) -> &mut Pipes {
        &mut self.pipes
    }

    /// Whether the child itself is at its end. It stays a zombie, so that its id keeps naming its group.
    ///
    /// An error of waitid(2) means that there is no such child any more, as when this program was started with
    /// `SIGCHLD` ignored and the kernel keeps no zombies for it.
    pub(super) fn has_exited(&self) -> bool {
        // SAFETY: `siginfo_t` is plain data, for which all zeros is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `info` outlives the call, which fills it in.
        let result = unsafe { libc::waitid(libc::P_PID, self.id() as libc::id_t, &raw mut info, flags) };
        result != 0 || info.si_signo != 0
    }

    /// Kills whatever is left of the group, reads what is left in the pipes, and reaps the child.
    ///
    /// `None` if the child cannot be killed, or if its status is lost (see [`has_exited`](Self::has_exited)).
    pub(super) fn end(&mut self, mut sink: impl FnMut(Stream, &[u8])) -> Option<ExitStatus> {
        kill_group(&mut self.child);
        let given_up_at = Instant::now() + DRAIN_PATIENCE;
        let mut silent_until = Instant::now() + SILENCE_PATIENCE;
        while self.pipes.are_open() && Instant::now() < given_up_at {
            // Late or not, what lies in a pipe is ready at once: a slow sink misses nothing.
            if self.pipes.exchange(silent_until.saturating_duration_since(Instant::now()), &mut sink) {
                silent_until = Instant::now() + SILENCE_PATIENCE;
            } else if Instant::now() >= silent_until {
                break;
            }
        }
        self.reaped = true;
        reap(&mut self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            end(&mut self.child);
        }
    }
}

fn end(child: &mut process::Child) -> Option<ExitStatus> {
    kill_group(child);
    reap(child)
}

/// Kills the group with SIGKILL, and the child on its own in case it left the group. Errors mean that nobody is left.
fn kill_group(child: &mut process::Child) {
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    let _ = child.kill();
}

/// Waits for a killed child, but not for ever.
fn reap(child: &mut process::Child) -> Option<ExitStatus> {
    let given_up_at = Instant::now() + REAP_PATIENCE;
    let mut pause = Duration::from_micros(100);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < given_up_at => thread::sleep(pause),
            Ok(None) | Err(_) => return None,
        }
        pause = (2 * pause).min(Duration::from_millis(50));
    }
}

#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    let parent = process::id();
    let request = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the call above, which then comes too late.
        if std::os::unix::process::parent_id() == parent { Ok(()) } else { Err(nix::errno::Errno::ESRCH.into()) }
    };
    // SAFETY: between fork and exec only two system calls are made; nothing is allocated and no lock is taken.
    unsafe { command.pre_exec(request) };
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}
