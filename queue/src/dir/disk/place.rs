//! The places a task can be in, and a task that was found in one.

use std::path::PathBuf;

use shared::name::Name;
use shared::task::{Task, TaskName};

use super::reject;
use crate::Error;
use crate::dir::layout::{Layout, Segment, Shelf};
use crate::wire::lane::LaneName;

/// A place where a task can be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Claimable.
    Pending {
        /// In which lane.
        lane: LaneName,
        /// With which priority.
        priority: u8,
        /// In which directory.
        segment: Segment,
    },
    /// Claimed.
    Processing {
        /// By whom.
        worker: Name,
    },
    /// For later.
    Delayed {
        /// Second since 1970 at which it is due.
        due: i64,
    },
    /// On a shelf.
    Shelf {
        /// Which one.
        shelf: Shelf,
        /// In which directory.
        segment: Segment,
    },
    /// Taken by a person's command that is not finished yet.
    Ending {
        /// Which command.
        verb: String,
    },
}

impl Place {
    /// The directory.
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
    /// Where.
    pub place: Place,
    /// Under which name.
    pub name: TaskName,
}

impl Found {
    /// The file.
    #[must_use]
    pub fn path(&self, layout: &Layout) -> PathBuf {
        self.place.dir(layout).join(self.name.file_name())
    }

    /// Reads the task. `None` when it has moved on.
    pub fn read(&self, layout: &Layout) -> Result<Option<Task>, Error> {
        reject::read_task(layout, &self.path(layout), self.name.id)
    }
}
