//! How a caller waits for the outcome of a task that a device's thread runs for it.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::time::Instant;

use cubecl_environment::future::channel::oneshot::{Receiver, RecvError, TryRecvError};

static SPINS_NS: AtomicU64 = AtomicU64::new(0);

/// How long callers look for a reply before they sleep until it comes; not at all at first. Sleep costs the caller as
/// long as the system takes to wake it, some 10 microseconds, looking costs the core.
pub fn spin_for_replies(longest: Duration) {
    let nanoseconds = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    SPINS_NS.store(nanoseconds, Ordering::Relaxed);
}

/// Waits for the one message of `replies`.
pub(crate) fn receive<T>(replies: Receiver<T>) -> Result<T, RecvError> {
    let longest = Duration::from_nanos(SPINS_NS.load(Ordering::Relaxed));
    if longest.is_zero() {
        return replies.recv();
    }
    let start = Instant::now();
    while start.elapsed() < longest {
        match replies.try_recv() {
            Ok(reply) => return Ok(reply),
            Err(TryRecvError::Disconnected) => return Err(RecvError),
            Err(TryRecvError::Empty) => spin_loop(),
        }
    }
    replies.recv()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cubecl_environment::future::channel::oneshot::channel;

    /// One test, since how long is looked for replies is the process's.
    #[test]
    fn replies_and_lost_ones_are_told_however_long_is_looked_for_them() {
        for longest in [0, 1, 50_000_000] {
            spin_for_replies(Duration::from_nanos(longest));
            for late in [Duration::ZERO, Duration::from_millis(5)] {
                let (sender, replies) = channel();
                let sends = std::thread::spawn(move || {
                    std::thread::sleep(late);
                    sender.send(7).expect("somebody waits");
                });
                assert_eq!(receive(replies), Ok(7));
                sends.join().expect("sent");
                let (sender, replies) = channel::<i32>();
                drop(sender);
                assert_eq!(receive(replies), Err(RecvError));
            }
        }
        spin_for_replies(Duration::ZERO);
    }
}
