use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use super::{Collected, Executor};
use crate::spec::{Event, Failure, FailureKind, Job};

/// What a [`ScriptedExecutor`] gives for one job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    /// The events of the child, in order.
    pub events: Vec<Event>,
    /// The wall clock to claim.
    pub duration: Duration,
    /// What the runner would have found out by itself, such as a time-out; an [`Event::Failed`] outranks it.
    pub failure: Option<Failure>,
}

/// An [`Executor`] that reads its answers from a list: no process, no clock.
#[derive(Debug, Default)]
pub struct ScriptedExecutor {
    scripts: RefCell<VecDeque<Script>>,
    jobs: RefCell<Vec<Job>>,
}

impl ScriptedExecutor {
    /// Answers the first job with the first script, and so on.
    pub fn new(scripts: impl IntoIterator<Item = Script>) -> Self {
        Self { scripts: RefCell::new(scripts.into_iter().collect()), jobs: RefCell::default() }
    }

    /// The jobs that were asked for so far, in order.
    pub fn jobs(&self) -> Vec<Job> {
        self.jobs.borrow().clone()
    }
}

impl Executor for ScriptedExecutor {
    fn execute(&self, job: &Job, on_event: &mut dyn FnMut(&Event)) -> Collected {
        self.jobs.borrow_mut().push(job.clone());
        let script = self.scripts.borrow_mut().pop_front().unwrap_or_else(|| Script {
            failure: Some(Failure::new(FailureKind::Unsupported, "no script left for this job; add one")),
            ..Script::default()
        });
        let mut collected = Collected { duration: script.duration, failure: script.failure, ..Collected::default() };
        for event in script.events {
            on_event(&event);
            collected.absorb(event);
        }
        collected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::fixtures::{job, observation, opened};

    #[test]
    fn scripts_are_played_in_order_and_jobs_are_kept() {
        let timed_out = Failure::new(FailureKind::TimedOut, "too long");
        let executor = ScriptedExecutor::new([
            Script {
                events: vec![opened(), Event::Observed(observation()), Event::Finished],
                duration: Duration::from_secs(3),
                failure: None,
            },
            Script { failure: Some(timed_out.clone()), ..Script::default() },
        ]);
        let mut seen = 0;
        let first = executor.execute(&job(), &mut |_| seen += 1);
        let second = executor.execute(&job(), &mut |_| ());
        let third = executor.execute(&job(), &mut |_| ());

        assert_eq!(seen, 3);
        assert_eq!(first.observations, [observation()]);
        assert!(first.device.is_some() && first.applied.is_some());
        assert_eq!((first.duration, first.failure), (Duration::from_secs(3), None));
        assert_eq!(second.failure, Some(timed_out));
        assert_eq!(third.failure.map(|failure| failure.kind), Some(FailureKind::Unsupported));
        assert_eq!(executor.jobs(), [job(), job(), job()]);
    }

    #[test]
    fn a_failed_event_is_the_failure() {
        let failed = Failure::new(FailureKind::WrongAnswer, "loss differs");
        let executor =
            ScriptedExecutor::new([Script { events: vec![Event::Failed(failed.clone())], ..Script::default() }]);
        assert_eq!(executor.execute(&job(), &mut |_| ()).failure, Some(failed));
    }
}
