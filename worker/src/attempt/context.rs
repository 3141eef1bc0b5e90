//! What every attempt of this worker needs, and how one went.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};
use queue::dir::claim::one::Claim;
use queue::dir::ledger::append::Ledger;
use queue::wire::retry::Verdict;
use shared::emit;
use shared::event::Event;
use shared::llm::{Answer, Refused};
use shared::outcome::Cause;
use shared::time::Moment;

use super::environment::Surroundings;
use crate::models::Models;
use crate::oom_kills::OomKills;
use crate::worker_state::WorkerState;

/// What every attempt of this worker needs.
#[derive(Debug)]
pub struct AttemptContext {
    /// What the worker knows about itself.
    pub worker_state: WorkerState,
    /// Where ends are recorded, in files of this life of the worker alone.
    pub ledger: Arc<Ledger>,
    /// What it tells jobs.
    pub surroundings: Surroundings,
    /// Its GPU's identity, where known.
    pub gpu_uuid: Option<String>,
    /// From TERM to KILL, where the task does not say.
    pub grace: Duration,
    /// Closed when a signal tells the worker to stop.
    pub stop_signal: Receiver<()>,
    /// Closed when the worker must end without waiting for anything.
    pub hurry: Receiver<()>,
    /// What the kernel ended for want of memory.
    pub oom_kills: OomKills,
    /// Its model server, where it has one.
    pub models: Option<Models>,
}

/// How an attempt went, for the ledger.
pub(crate) struct AttemptResult {
    pub(crate) verdict: Verdict,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) message: Option<String>,
    pub(crate) leaked: u32,
    pub(crate) started_at: Option<Moment>,
    pub(crate) wall: Option<Duration>,
    pub(crate) answer: Option<Answer>,
    pub(crate) refused: Option<Refused>,
    /// Its log is known to be there; otherwise somebody has to look.
    pub(crate) logged: bool,
}

impl AttemptResult {
    pub(crate) fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            exit_code: None,
            signal: None,
            message: None,
            leaked: 0,
            started_at: None,
            wall: None,
            answer: None,
            refused: None,
            logged: false,
        }
    }
}

impl AttemptContext {
    /// Something that starting a job takes could not be had: nothing is claimed for a while.
    pub(crate) fn starve(&self, error: String) {
        let pause = self.worker_state.change(|state| state.starve(error.clone()));
        if let Some(pause) = pause {
            let (worker, seconds) = (self.worker_state.name().clone(), pause.as_secs_f64());
            emit!(Event::WorkerStarved { worker, error, seconds });
        }
    }

    /// Whether a signal has told the worker to stop.
    pub(crate) fn is_told_to_stop(&self) -> bool {
        self.stop_signal.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// A job was started.
    pub(crate) fn was_started(&self) {
        if self.worker_state.look(|state| state.starvation.is_known()) {
            self.worker_state.note(|state| state.starvation.end());
        }
    }
}

/// How much later than a job's the worker may hear a signal that was sent to both.
const TOGETHER: Duration = Duration::from_millis(100);

/// An attempt that ended as if by a signal that we did not send, beside one that tells the worker to
/// stop, was stopped with it: systemd, a shutdown and a terminal signal all at once, in any order.
pub(crate) fn stopped_with_us(context: &AttemptContext, result: AttemptResult) -> AttemptResult {
    let told = || {
        let told = context.stop_signal.recv_timeout(TOGETHER);
        told == Err(crossbeam_channel::RecvTimeoutError::Disconnected)
    };
    if !may_be_stopped(&result) || !told() {
        return result;
    }
    let how = result.message.unwrap_or_default();
    let message = Some(format!("{how}, as the worker was told to stop"));
    AttemptResult { verdict: Verdict::Returned, message, ..result }
}

/// Whether it looks like the end of what was told to stop. A job that heard the signal and exits
/// otherwise is taken at its word. Pure.
fn may_be_stopped(result: &AttemptResult) -> bool {
    /// HUP, INT, KILL and TERM: what is sent to end things.
    const ENDING: [i32; 4] = [1, 2, 9, 15];
    /// What a shell adds to the number of the signal that ended its command.
    const BY_SIGNAL: i32 = 128;
    match result.verdict {
        Verdict::Failed(Cause::Signal) => result.signal.is_some_and(|it| ENDING.contains(&it)),
        Verdict::Failed(Cause::ExitCode) => {
            result.exit_code.is_some_and(|code| ENDING.contains(&(code - BY_SIGNAL)))
        }
        // A server that ended as well.
        Verdict::Failed(Cause::ServerError) => true,
        Verdict::Succeeded
        | Verdict::Failed(_)
        | Verdict::Refused(_)
        | Verdict::ProbeFailed { .. }
        | Verdict::Rejected
        | Verdict::Cancelled(_)
        | Verdict::NotReady(_)
        | Verdict::Busy(_)
        | Verdict::Returned
        | Verdict::WorkerDied => false,
    }
}

/// Waits; `true` at once when the worker must end.
pub fn is_hurried(context: &AttemptContext, wait: Duration) -> bool {
    // Nothing is ever sent: the channel is closed to say that.
    context.hurry.recv_timeout(wait) == Err(crossbeam_channel::RecvTimeoutError::Disconnected)
}

pub(crate) fn what(claim: &Claim) -> String {
    let task = claim.task();
    format!("{} task: {} ({})", task.class(), task.id.short(), task.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_the_end_of_what_was_told_to_stop() {
        let ended = |cause, exit_code, signal| {
            let result = AttemptResult::new(Verdict::Failed(cause));
            may_be_stopped(&AttemptResult { exit_code, signal, ..result })
        };
        for signal in [1, 2, 9, 15] {
            assert!(ended(Cause::Signal, None, Some(signal)));
            assert!(ended(Cause::ExitCode, Some(128 + signal), None), "by a shell");
        }
        for signal in [6, 11] {
            assert!(!ended(Cause::Signal, None, Some(signal)), "a crash");
            assert!(!ended(Cause::ExitCode, Some(128 + signal), None));
        }
        assert!(!ended(Cause::ExitCode, Some(1), None), "it heard the signal, and says so itself");
        assert!(ended(Cause::ServerError, None, None));
        assert!(!ended(Cause::Timeout, None, Some(15)));
        assert!(!may_be_stopped(&AttemptResult::new(Verdict::Succeeded)));
    }
}
