//! What a person's commands do to tasks: cancel, hold, release, retry. Each is one rename; only ending
//! a task takes more steps, and can be finished by anyone. Any number of tasks cost one flush and one
//! bell for many of them.

pub mod brakes;
pub mod end;
pub mod mover;

use shared::name::Name;

pub use brakes::{HeldTasks, brakes_of, let_go};
pub use end::{EndedTask, Ender, GROUP, Reason, ToEnd, finish_begun};
pub use mover::{Mover, hold, release, retry};

/// What came of a command about a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Done.
    Done,
    /// The task moved meanwhile: look again.
    Moved,
    /// It cannot be done where the task is.
    NotThere {
        /// The state it is in.
        state: &'static str,
    },
    /// A worker runs it; that worker must be asked.
    Running {
        /// The worker that runs it.
        worker: Name,
    },
}
