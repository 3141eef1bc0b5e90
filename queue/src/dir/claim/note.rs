//! What is seen on the way to a claim.

use shared::task::TaskName;

use super::limit_slots::UsedUp;
use crate::Error;
use crate::wire::counts::Unlisted;
use crate::wire::lane::LaneName;

/// What is seen on the way to a claim, one by one.
#[derive(Debug)]
pub enum Note {
    /// A task is tried for.
    Attempt(TaskName),
    /// Somebody else was first.
    LostRace(TaskName),
    /// A limit is used up.
    Limited(LaneName, UsedUp),
    /// A file that is no task was put aside.
    Rejected(std::path::PathBuf, String),
    /// A task for newer programs, which it is left to. Told once.
    LeftAlone(TaskName, Error),
    /// What a lane requires cannot be read, so nobody takes from it. Told once, until it can.
    Obscure(LaneName, Error),
    /// A directory cannot be listed, so what is in it is unknown, and not taken. Told once.
    Unlisted(Unlisted),
}
