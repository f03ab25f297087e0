use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::time::Duration;

use libc::pollfd;

/// Bytes moved at once, the usual capacity of a pipe.
const CHUNK_BYTES: usize = 64 << 10;

/// Where bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// The child's standard output.
    Output,
    /// The child's standard error.
    Error,
}

/// The parent's ends of a child's three pipes, served by one thread that sleeps in poll(2).
///
/// No reader threads: nothing can be left behind when something keeps a pipe open, and what the child writes faster
/// than it is taken waits in the pipe, not in our memory.
pub(super) struct Pipes {
    request: Vec<u8>,
    input: Option<ChildStdin>,
    output: Option<ChildStdout>,
    error: Option<ChildStderr>,
    buffer: Vec<u8>,
}

impl Pipes {
    /// Takes over the ends; `request` will be written to the input, which is then closed.
    pub(super) fn new(
        request: Vec<u8>,
        input: Option<ChildStdin>,
        output: Option<ChildStdout>,
        error: Option<ChildStderr>,
    ) -> io::Result<Self> {
        let pipes = Self { request, input, output, error, buffer: vec![0; CHUNK_BYTES] };
        for descriptor in pipes.descriptors().into_iter().filter(|&descriptor| descriptor >= 0) {
            do_not_block(descriptor)?;
        }
        Ok(pipes)
    }

    /// Whether the child, or somebody it passed them on to, may still write.
    pub(super) fn are_open(&self) -> bool {
        self.output.is_some() || self.error.is_some()
    }

    /// Sleeps until a pipe is ready, a signal arrives or `timeout` is over, then moves what can be moved at once.
    ///
    /// Tells whether a pipe was ready.
    pub(super) fn exchange(&mut self, timeout: Duration, mut sink: impl FnMut(Stream, &[u8])) -> bool {
        let [input, output, error] = wait(self.descriptors(), timeout);
        if input {
            self.feed();
        }
        if output {
            drain(&mut self.output, &mut self.buffer, |bytes| sink(Stream::Output, bytes));
        }
        if error {
            drain(&mut self.error, &mut self.buffer, |bytes| sink(Stream::Error, bytes));
        }
        input || output || error
    }

    fn descriptors(&self) -> [RawFd; 3] {
        [descriptor(self.input.as_ref()), descriptor(self.output.as_ref()), descriptor(self.error.as_ref())]
    }

    /// Writes on, and closes the input after the last byte, or when nobody listens: the child's end tells why.
    fn feed(&mut self) {
        let Some(input) = &mut self.input else { return };
        match input.write(&self.request) {
            Ok(count) => drop(self.request.drain(..count)),
            Err(error) if may_be_repeated(&error) => return,
            Err(_) => self.request.clear(),
        }
        if self.request.is_empty() {
            self.input = None;
        }
    }
}

/// Reads once; closes the pipe at its end.
fn drain(pipe: &mut Option<impl Read>, buffer: &mut [u8], sink: impl FnOnce(&[u8])) {
    let Some(open) = pipe else { return };
    match open.read(buffer) {
        Ok(count) if count > 0 => sink(&buffer[..count]),
        Err(error) if may_be_repeated(&error) => {}
        Ok(_) | Err(_) => *pipe = None,
    }
}

fn may_be_repeated(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The descriptor of an open pipe; -1, which poll(2) skips, for a closed one.
fn descriptor(pipe: Option<&impl AsRawFd>) -> RawFd {
    pipe.map_or(-1, AsRawFd::as_raw_fd)
}

/// Sleeps until one of `[input, output, error]` is ready and tells which are.
fn wait([input, output, error]: [RawFd; 3], timeout: Duration) -> [bool; 3] {
    let entry = |fd, events| pollfd { fd, events, revents: 0 };
    let mut entries = [entry(input, libc::POLLOUT), entry(output, libc::POLLIN), entry(error, libc::POLLIN)];
    let milliseconds = i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: the pointer and the length describe `entries`, which outlives the call.
    let ready = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, milliseconds) };
    entries.map(|entry| ready > 0 && entry.revents != 0)
}

fn do_not_block(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: `descriptor` belongs to an open pipe that the caller holds; only its status flags are changed.
    let changed = unsafe {
        let flags = libc::fcntl(descriptor, libc::F_GETFL);
        flags >= 0 && libc::fcntl(descriptor, libc::F_SETFL, flags | libc::O_NONBLOCK) >= 0
    };
    if changed { Ok(()) } else { Err(io::Error::last_os_error()) }
}
