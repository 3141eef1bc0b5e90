//! The seam: what a pool means, whatever it is made of. Eight methods; everything else is built on
//! top. `crate::store::contract` says in tests what they mean; whoever stores tasks passes it.
//!
//! Nothing here knows of files. What only a store that is a directory has (rolling a batch forward,
//! finishing what a dead command began) is part of the method that needs it.

pub mod dependency;
pub mod memory;
pub mod start;

use shared::name::Name;
use shared::outcome::Outcome;
use shared::task::{Class, Task, TaskName};
use shared::time::Moment;

use crate::Error;
use crate::wire::lane::Requirements;
use crate::wire::ledger_line::Line;

/// Where tasks are kept.
pub trait Store {
    /// A worker's life: as long as this value lives, nobody else has its name or its tasks.
    type Seat;
    /// The right, and the duty, to end one attempt.
    type Claim: Claimed;

    /// Submits one task. When this returns, it is there for good.
    fn submit(&self, task: &Task) -> Result<(), Error>;

    /// Submits many, in this order: all of them or, with an error, none.
    fn submit_all(&self, tasks: &[Task]) -> Result<(), Error>;

    /// Begins a worker's life. `None` while somebody has this name, or its tasks are not settled.
    fn join(&self, worker: &Name) -> Result<Option<Self::Seat>, Error>;

    /// Claims the task that comes first for this wish. `None` when there is none.
    fn claim(&self, seat: &mut Self::Seat, wish: &Wish<'_>) -> Result<Option<Self::Claim>, Error>;

    /// How a task stands. `None` when nobody knows it.
    fn find(&self, id: shared::id::TaskId) -> Result<Option<Whereabouts>, Error>;

    /// Does what a person wants of a task.
    fn change(&self, id: shared::id::TaskId, verb: TaskVerb) -> Result<Answer, Error>;

    /// Puts back, or counts out, what a worker had that died.
    fn settle(&self, worker: &Name) -> Result<SettleAnswer, Error>;

    /// Releases what is due at `now`, and what has waited for tasks that have ended. Returns how
    /// many tasks moved; those that ended thereby may let more of them move the next time.
    fn promote(&self, now: Moment) -> Result<u64, Error>;
}

/// A claimed task. Dropped without an end it stays claimed until the worker's affairs are settled.
pub trait Claimed: Sized {
    /// The task.
    fn task(&self) -> &Task;

    /// Which attempt this is.
    fn name(&self) -> TaskName;

    /// Ends the attempt: the line goes into history and what it says is done. After an error the
    /// claim is still there; its first line stays the only one.
    fn end(self, line: &Line) -> Result<(), (Self, Error)>;
}

/// The order in which a worker looks, and what it may take now.
pub struct Wish<'a> {
    /// Classes, most wanted first. Others are not looked at.
    pub classes: &'a [Class],
    /// Whether it may take from a lane.
    pub open: &'a dyn Fn(&Requirements) -> bool,
}

/// Where a task is, and under which name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// Which attempt comes next, is going on, or was the last.
    pub name: TaskName,
    /// Where it is.
    pub state: State,
}

/// The state of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Something it depends on has not ended.
    Waiting,
    /// A person holds it.
    Held,
    /// Its time has not come, or the pause before its next attempt is not over.
    Delayed,
    /// Claimable.
    Pending,
    /// Claimed, and not put back yet where that worker has died.
    Processing {
        /// The worker that claimed it.
        worker: Name,
    },
    /// Somebody is just ending it.
    Ending,
    /// It failed for good; a person may retry it.
    Failed,
    /// It is history, and how it ended.
    Ended(Outcome),
}

shared::words! {
    /// What a person wants of a task.
    TaskVerb {
        /// End it for good.
        Cancel = "cancel",
        /// Keep it from being claimed.
        Hold = "hold",
        /// Let a held one go where it belongs.
        Release = "release",
        /// Give one that failed for good a clean slate.
        Retry = "retry",
    }
}

/// What came of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// A worker runs it; it was asked to end it.
    Asked {
        /// The worker that runs it.
        worker: Name,
    },
    /// It cannot be done with a task in this state.
    NotThere(State),
    /// Nobody knows the task.
    Unknown,
}

/// What came of settling a worker's affairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleAnswer {
    /// It lives: nothing was done.
    Living,
    /// It is dead, and its affairs were settled as far as that was possible.
    Dead {
        /// Tasks that were put back or counted out.
        settled: u64,
        /// Tasks that stay where they are for now: what runs them cannot be ended.
        left: u64,
    },
}

#[cfg(test)]
pub(super) mod contract;
