//! The places a task can be in, and a task that was found in one.

use std::path::PathBuf;

use shared::name::Name;
use shared::task::{Task, TaskName};

use super::reject;
use crate::Error;
use crate::dir::layout::{Layout, Segment, Shelf};
use crate::wire::lane::LaneName;

/// A place where a task can be: one directory whose files are tasks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// In `pending/`: any worker that may take from the lane can claim it.
    Pending {
        /// The lane for what it requires.
        lane: LaneName,
        /// From 0 to 10; workers take the highest first.
        priority: u8,
        /// The numbered directory that it is in.
        segment: Segment,
    },
    /// Claimed: only the holder of the worker's lease may move it.
    Processing {
        /// The worker that claimed it; it may have died since.
        worker: Name,
    },
    /// Its time has not come, or the pause before its next attempt is not over.
    Delayed {
        /// Second since 1970 at which it is due.
        due: i64,
    },
    /// At rest: it waits for other tasks, is held, or failed for good.
    Shelf {
        /// Which of these it is, and so what the state is called.
        shelf: Shelf,
        /// The numbered directory that it is in.
        segment: Segment,
    },
    /// Taken by somebody who is just ending it: a person's command, or a release that found that
    /// what it waits for did not end as needed.
    Ending {
        /// Why it is ended: `cancel` or `dependency`.
        verb: String,
    },
}

impl Place {
    /// The directory in which the task's file is.
    #[must_use]
    pub fn dir(&self, layout: &Layout) -> PathBuf {
        match self {
            Self::Pending { lane, priority, segment } => {
                layout.pending_segment(lane, *priority, segment)
            }
            Self::Processing { worker } => layout.processing_of(worker),
            Self::Delayed { due } => layout.delayed().join(due.to_string()),
            Self::Shelf { shelf, segment } => layout.shelf(*shelf).join(segment.dir_name()),
            Self::Ending { verb } => layout.ending().join(verb),
        }
    }

    /// The state's name, as in `queue show`.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Processing { .. } => "processing",
            Self::Delayed { .. } => "delayed",
            Self::Shelf { shelf, .. } => shelf.as_str(),
            Self::Ending { .. } => "ending",
        }
    }
}

/// A task that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it was when it was found; it may have moved since.
    pub place: Place,
    /// Its file's name there: id, attempt and counters.
    pub name: TaskName,
}

impl Found {
    /// The path of its file, which is not there any more when the task has moved on.
    #[must_use]
    pub fn path(&self, layout: &Layout) -> PathBuf {
        self.place.dir(layout).join(self.name.file_name())
    }

    /// Reads the task. `None` when it has moved on.
    pub fn read(&self, layout: &Layout) -> Result<Option<Task>, Error> {
        reject::read_task(layout, &self.path(layout), self.name.id)
    }
}
