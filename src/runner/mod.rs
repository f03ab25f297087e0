//! The parent's side of "one child process per cell": start it, feed it, watch it, end it, and put a name to what
//! went wrong.
//!
//! A child gets one [`Job`](crate::spec::Job) as JSON on its standard input, which is then closed, and answers with
//! [`Event`](crate::spec::Event)s, one JSON document a line, on its standard output. Its standard error is free text,
//! whose end is kept for the report. Whatever the child does (panic, abort, hang, print rubbish, eat all memory), the
//! caller gets a [`Collected`] with everything that was measured until then. No device is opened here. Unix only.
//!
//! ```text
//! Job -> process (group, pipes) -> transcript (lines, events) -> Collected
//!              \-> memory, time, StopFlag -> Intervention -> diagnosis -> Failure
//! ```

mod diagnosis;
mod executor;
mod lines;
mod memory;
mod panic;
mod pipes;
mod process;
mod scripted;
mod stop;
mod supervise;
mod tail;
mod transcript;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;

pub use executor::{Child, Collected, Executor, Limits};
pub use scripted::{Script, ScriptedExecutor};
pub use stop::{StopFlag, StopFlagError};
pub use supervise::ProcessExecutor;
