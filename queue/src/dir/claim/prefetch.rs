//! A task that is read before it is claimed, by a worker that waits for something else meanwhile.
//!
//! Nothing is decided by that: exactly one rename wins, as ever. What was read counts only if the
//! file that was claimed is the one that was read, as it was; otherwise it is read again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shared::id::TaskId;
use shared::task::Task;

use crate::dir::disk::freshness::Version;
use crate::dir::disk::reject;
use crate::dir::layout::Layout;

/// For so long what was seen of the pending tasks is new enough to claim by.
const FRESH: Duration = Duration::from_millis(2);

/// A pending task and its file.
#[derive(Debug)]
pub(in crate::dir) struct Prefetched {
    at: Instant,
    from: PathBuf,
    version: Version,
    task: Task,
}

fn version_of(path: &Path) -> Option<Version> {
    fs::symlink_metadata(path).ok().as_ref().map(Version::from)
}

impl Prefetched {
    /// Reads a pending task. `None` where anything is wrong with it: whoever claims it sees to that.
    pub(in crate::dir) fn read(layout: &Layout, from: PathBuf, id: TaskId) -> Option<Self> {
        let at = Instant::now();
        let version = version_of(&from)?;
        let task = reject::read_task(layout, &from, id).ok().flatten()?;
        Some(Self { at, from, version, task })
    }

    /// Whether the pending tasks need no other look yet.
    pub(in crate::dir) fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH
    }

    /// The task, if its file was moved from where it was read to `to`.
    pub(in crate::dir) fn of_moved(self, from: &Path, to: &Path) -> Option<Task> {
        let is_it = self.from == from && version_of(to) == Some(self.version);
        is_it.then_some(self.task)
    }
}
