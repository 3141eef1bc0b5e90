//! A worker that died, and what became of what it left.

use queue::Error;
use queue::wire::fate::Fate;
use shared::name::Name;
use shared::task::TaskName;

/// A worker died with things to settle.
#[derive(Clone, Debug)]
pub struct Death {
    /// The worker that died.
    pub worker: Name,
    /// Its process, by its lease file; `None` where that says nothing.
    pub pid: Option<u32>,
    /// Tasks that it left.
    pub tasks: u64,
    /// What it said last.
    pub last_status: Option<String>,
    /// Attempts that it ended well, as the ledger says; `None` where that cannot be told.
    pub completed: Option<u64>,
}

/// What became of each task, or the error that kept it where it is.
pub type Fates = Vec<(TaskName, Result<Fate, Error>)>;

/// A worker's affairs were looked through once.
#[derive(Debug)]
pub struct Settlement {
    /// The worker that is settled.
    pub worker: Name,
    /// What became of each task, or why nothing could be done at all.
    pub fates: Result<Fates, Error>,
    /// Processes of its model server that were ended, or why nobody could look for them.
    pub servers: Result<u64, Error>,
    /// Whether anything is left.
    pub left: Left,
    /// How long it took, from the death on.
    pub seconds: f64,
}

/// Whether anything is left to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// All is done.
    Nothing,
    /// It will be tried again.
    Something,
}
