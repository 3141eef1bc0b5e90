//! What follows when an attempt has ended: one pure function, for workers and for whoever settles
//! the affairs of a dead one.

use std::time::Duration;

use shared::outcome::{Cause, Next, Outcome};
use shared::task::TaskName;
use shared::time::Moment;

use super::brake;

/// How often, and after which pause, a task is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Failures of its own after which a task has failed for good.
    pub max_attempts: u32,
    /// Dead workers after which a task is taken for the poison that killed them.
    pub poison_deaths: u32,
    /// The first pause; each further one is twice as long.
    pub backoff_first: Duration,
    /// The longest pause. Chance makes each up to a quarter shorter, and none longer.
    pub backoff_max: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            poison_deaths: 3,
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_secs(300),
        }
    }
}

impl Policy {
    /// The policy for one task, which may say for itself how often it is tried.
    #[must_use]
    pub fn of(&self, task: &shared::task::Task) -> Self {
        Self { max_attempts: task.spec.max_attempts.unwrap_or(self.max_attempts), ..*self }
    }

    /// No pause before another attempt, whatever the reason, is longer than this.
    #[must_use]
    pub fn longest_pause(&self) -> Duration {
        self.backoff_max.max(brake::LONGEST_AWAY)
    }
}

/// How an attempt ended, as far as it decides what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The job did what it should.
    Succeeded,
    /// The job did not.
    Failed(Cause),
    /// It failed, and would each time: what was asked for cannot be done.
    Refused(Cause),
    /// It failed as the probe of a brake: that counts as no failure, and others are tried next.
    ProbeFailed {
        /// As of any failure.
        cause: Cause,
        /// How long it stays away.
        pause: Duration,
    },
    /// It was ended for good.
    Cancelled(Cause),
    /// It was not ready (exit code 75): later, and nothing is counted.
    NotReady(Cause),
    /// What it was to be asked of is busy. The worker waits before it asks for more; the task is
    /// there for whoever can, and nothing is counted.
    Busy(Cause),
    /// The worker had to stop: at once, elsewhere, and nothing is counted.
    Returned,
    /// The worker died: that counts as a death, not as a failure.
    WorkerDied,
    /// Its file cannot be understood, so there is nothing that could be done.
    Rejected,
}

impl Verdict {
    /// The word in the ledger.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Succeeded => Outcome::Succeeded,
            Self::Failed(_)
            | Self::Refused(_)
            | Self::ProbeFailed { .. }
            | Self::WorkerDied
            | Self::Rejected => Outcome::Failed,
            Self::Cancelled(_) => Outcome::Cancelled,
            Self::NotReady(_) | Self::Busy(_) | Self::Returned => Outcome::Returned,
        }
    }

    /// The cause in the ledger.
    #[must_use]
    pub const fn cause(self) -> Option<Cause> {
        match self {
            Self::Succeeded | Self::Returned => None,
            Self::Failed(cause)
            | Self::Refused(cause)
            | Self::ProbeFailed { cause, .. }
            | Self::Cancelled(cause)
            | Self::NotReady(cause)
            | Self::Busy(cause) => Some(cause),
            Self::WorkerDied => Some(Cause::WorkerDied),
            Self::Rejected => Some(Cause::Rejected),
        }
    }
}

/// What follows from how an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttemptEnd {
    /// When it ended.
    pub at: Moment,
    /// Where the task goes.
    pub next: Next,
    /// Its file's name from then on: the new counters.
    pub next_name: TaskName,
}

impl AttemptEnd {
    /// The task ends with this attempt.
    #[must_use]
    pub const fn for_good(name: TaskName, at: Moment) -> Self {
        Self { at, next: Next::End, next_name: name }
    }

    /// The task cannot be read. Should somebody mend it, that is the next attempt: this one has ended.
    #[must_use]
    pub const fn rejected(name: TaskName, at: Moment) -> Self {
        Self { at, next: Next::Rejected, next_name: name.again() }
    }
}

/// Where a task goes whose attempt ended `now`, and under which name. `jitter` is between 0 and 1.
#[must_use]
pub fn next(
    name: TaskName,
    verdict: Verdict,
    policy: &Policy,
    now: Moment,
    jitter: f64,
) -> AttemptEnd {
    let (next, next_name) = follow(name, verdict, policy, now, jitter);
    AttemptEnd { at: now, next, next_name }
}

fn follow(
    name: TaskName,
    verdict: Verdict,
    policy: &Policy,
    now: Moment,
    jitter: f64,
) -> (Next, TaskName) {
    let after = |pause: Duration| Next::Delayed(after(pause, now));
    let later = |tries: u32| after(backoff(policy, tries, jitter));
    match verdict {
        Verdict::Succeeded | Verdict::Cancelled(_) => (Next::End, name),
        Verdict::Rejected => (Next::Rejected, name.again()),
        Verdict::Failed(cause) => {
            let failures = name.failures + 1;
            if cause.is_retryable() && failures < policy.max_attempts {
                let next = if cause == Cause::SpawnFailed {
                    after(start_pause(policy, failures))
                } else {
                    later(failures)
                };
                (next, name.failed())
            } else {
                (Next::Failed, TaskName { failures, ..name })
            }
        }
        Verdict::Refused(_) => (Next::Failed, TaskName { failures: name.failures + 1, ..name }),
        Verdict::ProbeFailed { pause, .. } => (after(pause), name.again()),
        // The pause grows with what was neither a failure nor a death: the times it was not ready.
        Verdict::NotReady(_) => (later(name.attempt - name.failures - name.deaths), name.again()),
        Verdict::Busy(_) | Verdict::Returned => (Next::Pending, name.again()),
        Verdict::WorkerDied => {
            let deaths = name.deaths + 1;
            if deaths < policy.poison_deaths {
                (Next::Pending, name.died())
            } else {
                (Next::Failed, TaskName { deaths, ..name })
            }
        }
    }
}

/// Doubling from the first pause to the longest, and up to a quarter shorter by chance, so that
/// what failed together does not come back together.
fn backoff(policy: &Policy, tries: u32, jitter: f64) -> Duration {
    let doubled = policy.backoff_first.saturating_mul(1 << tries.saturating_sub(1).min(20));
    doubled.min(policy.backoff_max).mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
}

/// After a job that could not be started: what was missing or busy (a disk that is mounted late, a
/// program that is being replaced) needs longer to come back than a job that went wrong.
fn start_pause(policy: &Policy, failures: u32) -> Duration {
    let seconds = match failures {
        0 | 1 => 5,
        2 => 30,
        3.. => 120,
    };
    Duration::from_secs(seconds).min(policy.backoff_max)
}

fn after(pause: Duration, now: Moment) -> Moment {
    now.plus_millis(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::id::TaskId;

    fn follow(name: TaskName, verdict: Verdict) -> (Next, TaskName) {
        let end = next(name, verdict, &Policy::default(), Moment::from_unix_millis(0), 0.0);
        (end.next, end.next_name)
    }

    fn in_seconds(seconds: i64) -> Next {
        Next::Delayed(Moment::from_unix_millis(seconds * 1000))
    }

    #[test]
    fn the_third_failure_of_its_own_is_the_last() {
        let first = TaskName::first(TaskId::new());
        let failed = Verdict::Failed(Cause::ExitCode);
        let (next, second) = follow(first, failed);
        assert_eq!((next, second.attempt, second.failures), (in_seconds(1), 2, 1));
        let (next, third) = follow(second, failed);
        assert_eq!((next, third.attempt, third.failures), (in_seconds(2), 3, 2));
        let (next, last) = follow(third, failed);
        assert_eq!((next, last.attempt, last.failures), (Next::Failed, 3, 3));
    }

    #[test]
    fn what_could_not_be_started_is_tried_again_after_longer_pauses() {
        let mut name = TaskName::first(TaskId::new());
        let policy = Policy { max_attempts: 6, ..Policy::default() };
        let now = Moment::from_unix_millis(0);
        for pause in [5, 30, 120, 120] {
            let end = next(name, Verdict::Failed(Cause::SpawnFailed), &policy, now, 1.0);
            assert_eq!(end.next, in_seconds(pause));
            name = end.next_name;
        }
        assert_eq!(name.failures, 4, "each is a failure like others");
        let short = Policy { backoff_max: Duration::from_secs(10), ..policy };
        let end = next(name, Verdict::Failed(Cause::SpawnFailed), &short, now, 0.0);
        assert_eq!(end.next, in_seconds(10));
    }

    #[test]
    fn deaths_and_not_ready_burn_no_attempt_of_its_own() {
        let mut name = TaskName::first(TaskId::new());
        for tries in 1..=10 {
            let (next, again) = follow(name, Verdict::NotReady(Cause::ExitCode));
            assert_eq!(next, in_seconds((1 << (tries - 1)).min(300)));
            assert_eq!((again.attempt, again.failures, again.deaths), (tries + 1, 0, 0));
            name = again;
        }
        let (next, died) = follow(name, Verdict::WorkerDied);
        assert_eq!((next, died.attempt, died.failures, died.deaths), (Next::Pending, 12, 0, 1));
    }

    #[test]
    fn what_its_server_had_no_time_for_stays_pending_and_counts_nothing() {
        let name = TaskName::first(TaskId::new());
        let (next, again) = follow(name, Verdict::Busy(Cause::ServerError));
        assert_eq!((next, again.attempt, again.failures), (Next::Pending, 2, 0));
    }

    #[test]
    fn a_probe_that_fails_counts_as_no_failure() {
        let name = TaskName { failures: 2, attempt: 3, ..TaskName::first(TaskId::new()) };
        let verdict = Verdict::ProbeFailed { cause: Cause::Oom, pause: Duration::from_secs(60) };
        let (next, again) = follow(name, verdict);
        assert_eq!((next, again.attempt, again.failures), (in_seconds(60), 4, 2));
        assert_eq!((verdict.outcome(), verdict.cause()), (Outcome::Failed, Some(Cause::Oom)));
    }

    #[test]
    fn a_task_that_kills_three_workers_is_taken_out() {
        let name = TaskName { deaths: 2, attempt: 3, ..TaskName::first(TaskId::new()) };
        let (next, last) = follow(name, Verdict::WorkerDied);
        assert_eq!((next, last.attempt, last.deaths), (Next::Failed, 3, 3));
    }

    #[test]
    fn what_cannot_end_differently_is_not_tried_again() {
        let name = TaskName::first(TaskId::new());
        assert_eq!(follow(name, Verdict::Refused(Cause::SpawnFailed)).0, Next::Failed);
        assert_eq!(follow(name, Verdict::Cancelled(Cause::Cancelled)).0, Next::End);
    }
}
