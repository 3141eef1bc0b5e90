//! Why a task is not running, why a worker takes nothing, and what holds up the pool. Whether a
//! worker may take from a lane is asked of [`crate::eligible`], as the worker itself does, so that
//! the answer cannot differ from what happens.

mod batch;
mod gpu;
mod lane;
mod loads;
mod model;
mod once;
mod pool;
mod task;
#[cfg(test)]
mod tests;
mod worker;

use serde::Serialize;
use shared::reason::Reason;
use shared::settings::Settings;
use shared::time::Moment;

use crate::dir::Pool;
use crate::dir::lookup::Standing;
use crate::view::View;

use once::Once;

pub use batch::why_batch;
pub use gpu::{why_gpu, worker_of};
pub use model::{is_model, why_model};
pub use pool::why_pool;
pub use task::{why_new, why_task};
pub use worker::why_worker;

shared::words! {
    /// The answer in one word.
    Word {
        /// A worker has claimed it, and is not dead.
        Running = "running",
        /// Something stands in the way that can go away.
        Blocked = "blocked",
        /// It can never run here, as things are.
        Impossible = "impossible",
        /// There is nothing to do.
        Idle = "idle",
        /// All hands are full.
        Busy = "busy",
        /// Nothing stands in the way.
        Claimable = "claimable",
        /// It has ended, or died.
        Gone = "gone",
    }
}

impl Word {
    /// The exit code of `queue why`.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Blocked => shared::exit::BLOCKED,
            Self::Impossible => shared::exit::IMPOSSIBLE,
            Self::Running | Self::Idle | Self::Busy | Self::Claimable | Self::Gone => {
                shared::exit::OK
            }
        }
    }
}

/// What was asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// `task`, `batch`, `worker`, `gpu`, `model` or `pool`.
    pub kind: &'static str,
    /// The task's id, the worker's or model's name, the GPU's identity or index, the pool's path.
    pub id: String,
}

/// The answer of `queue why`; its fields are those of the JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// What was asked about.
    pub subject: Subject,
    /// When the look at the pool began.
    pub at: Moment,
    /// The answer in one word.
    pub verdict: Word,
    /// The answer in one sentence.
    pub text: String,
    /// All reasons, most decisive first.
    pub reasons: Vec<Reason>,
}

/// What is looked at to answer.
#[derive(Debug)]
pub struct Look<'a> {
    /// The pool.
    pub pool: &'a Pool,
    /// The settings of the process that asks; those of a worker or the brain may differ.
    pub settings: &'a Settings,
    /// What is seen of it.
    pub view: &'a View,
    once: Once,
}

impl<'a> Look<'a> {
    /// What is seen of a pool now, to be explained by these settings.
    #[must_use]
    pub fn new(pool: &'a Pool, settings: &'a Settings, view: &'a View) -> Self {
        Self { pool, settings, view, once: Once::default() }
    }

    fn verdict(
        &self,
        subject: Subject,
        verdict: Word,
        text: String,
        reasons: Vec<Reason>,
    ) -> Explanation {
        Explanation { subject, at: self.view.at, verdict, text, reasons }
    }

    /// How long one who could act is given before it is called stalled.
    fn patience(&self) -> f64 {
        self.settings.unclaimed_after.0.as_secs_f64()
    }
}

fn task_subject(id: impl ToString) -> Subject {
    Subject { kind: "task", id: id.to_string() }
}

/// How a task that is history ended, in a sentence.
fn how_it_ended(standing: &Standing) -> String {
    match standing {
        Standing::Ended(line) => {
            let cause = line.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
            let by = line.worker.as_ref().map(|worker| format!(" on {worker}")).unwrap_or_default();
            format!("it {}{cause}{by} at {}", ended_word(standing), line.ended_at)
        }
        Standing::There(_) => format!("it {}", ended_word(standing)),
    }
}

fn ended_word(standing: &Standing) -> &'static str {
    match standing.state() {
        "cancelled" => "was cancelled",
        "succeeded" => "succeeded",
        _ => "failed",
    }
}
