//! What every attempt of this worker needs, and how one went.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use queue::dir::claim::one::Claim;
use queue::dir::ledger::append::Ledger;
use queue::wire::retry::Verdict;
use shared::llm::Answer;
use shared::time::Moment;

use super::environment::Surroundings;
use crate::models::Models;
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
    /// Closed when the worker must end without waiting for anything.
    pub hurry: Receiver<()>,
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
            logged: false,
        }
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
