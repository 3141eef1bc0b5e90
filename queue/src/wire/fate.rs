//! What became of a task whose worker died.

use shared::outcome::Next;
use shared::task::TaskName;

/// What became of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its end had been recorded; the rest of it was done now.
    Finished(Next),
    /// It was put back, or counted out, after its processes were ended.
    PutBack {
        /// Back to `pending/` or, after too many deaths, to `failed/`.
        next: Next,
        /// Its file's name there, in which this death is counted.
        name: TaskName,
        /// Processes that were ended.
        ended: Vec<u32>,
    },
    /// A person had asked to cancel it; so it is.
    Cancelled,
    /// It could not be understood; it is in `rejected/`.
    Rejected(String),
    /// Its processes do not end; it stays where it is.
    Unkillable(Vec<u32>),
    /// It ran on another machine, whose processes cannot be seen from here.
    Elsewhere(String),
}
