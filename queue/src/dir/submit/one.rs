//! Submitting: from a checked task to a file that workers see, so that an id that was printed
//! survives a power cut.
//!
//! One task: write in `incoming/`, flush, rename, flush the directory and every ancestor that was
//! made. Many: stage directories, flush once, and commit with ONE rename into `publishing/`; from
//! there anyone rolls forward (see [`crate::dir::batch::roll_forward`]).

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use shared::task::{Task, TaskName};

use super::staging::{bytes_of, take_place};
use crate::Error;
use crate::dir::Pool;
use crate::dir::disk::lane_files::ensure_lane;
use crate::dir::disk::lock::Lock;
use crate::dir::disk::publish::{self, DirectoryIdentity, Moved};
use crate::dir::disk::reserve;
use crate::dir::layout::{Segment, Shelf};
use crate::error::OrGone as _;
use crate::store::start::{Start, start_of};
use crate::wire::lane::LaneName;

/// A process that submits: it owns one directory in `incoming/` for as long as it lives.
#[derive(Debug)]
pub struct Submitter {
    pub(super) pool: Pool,
    pub(super) dir: PathBuf,
    _lock: Lock,
    lanes: HashSet<LaneName>,
    /// Directories whose names, up to the root, are on the disk.
    durable_dirs: HashMap<PathBuf, DirectoryIdentity>,
}

impl Submitter {
    /// Takes a place in `incoming/`. Refuses where the disk is nearly full.
    pub fn new(pool: &Pool) -> Result<Self, Error> {
        reserve::require_room(pool.layout(), pool.rules().disk_low)?;
        let (dir, lock) = take_place(&pool.layout().incoming())?;
        let (lanes, durable_dirs) = (HashSet::new(), HashMap::new());
        Ok(Self { pool: pool.clone(), dir, _lock: lock, lanes, durable_dirs })
    }

    /// Submits one task. When this returns, it is in the pool for good.
    pub fn submit(&mut self, task: &Task) -> Result<(), Error> {
        let layout = self.pool.layout().clone();
        let name = TaskName::first(task.id);
        let target = match start_of(task) {
            Start::Pending => {
                let lane = self.lane(task)?;
                let segment = Segment::single(task.id);
                layout.pending_segment(&lane, task.priority(), &segment).join(name.file_name())
            }
            Start::Waiting => layout.on_shelf(Shelf::Waiting, name),
            Start::Held => layout.on_shelf(Shelf::Held, name),
            Start::Delayed(at) => layout.delayed_task(at, name),
        };
        let staged = self.dir.join(name.file_name());
        publish::create_flushed(&staged, &bytes_of(task, &target)?)?;
        self.publish(&staged, &target)
    }

    fn publish(&mut self, staged: &Path, target: &Path) -> Result<(), Error> {
        let (moved, made) = publish::move_into(staged, target)?;
        match moved {
            Moved::Yes => {}
            Moved::SourceGone | Moved::TargetThere => {
                let path = target.to_owned();
                let problem = "a task of this id is already there".to_owned();
                return Err(Error::Garbled { path, problem });
            }
        }
        let Err(err) = self.flush(target, &made) else { return Ok(()) };
        // Nobody knows whether it would survive a power cut: so it is taken back, and was never
        // submitted. Where it was claimed meanwhile, the error is all that can be said.
        let _undone = publish::move_new(target, staged);
        Err(err)
    }

    /// Makes sure that a task's name is on the disk, and those of the directories above it.
    fn flush(&mut self, target: &Path, made: &publish::TargetDirectory) -> Result<(), Error> {
        let (root, dir) = (self.pool.root(), target.parent().unwrap_or(target));
        let known = self.durable_dirs.get(dir);
        let flushed = publish::flush_and_identify(dir).and_then(|identity| {
            match made {
                publish::TargetDirectory::Found if known == Some(&identity) => {}
                publish::TargetDirectory::Found => publish::flush_up_to(root, dir)?,
                publish::TargetDirectory::Made(topmost) => {
                    publish::flush_up_to(root, topmost.parent().unwrap_or(topmost))?;
                }
            }
            Ok(identity)
        });
        if let Some(identity) = flushed.or_gone()? {
            self.durable_dirs.insert(dir.to_owned(), identity);
            return Ok(());
        }
        // A worker has taken the task already, and removed the directory that was empty then.
        // Where the task is now was flushed by nobody.
        self.durable_dirs.remove(dir);
        publish::flush_file_system(root)
    }

    /// The task's lane, with its file written before first use.
    pub(super) fn lane(&mut self, task: &Task) -> Result<LaneName, Error> {
        let lane =
            ensure_lane(self.pool.layout(), &self.pool.requirements_of(task), &mut self.lanes)?;
        Ok(lane)
    }
}

impl Drop for Submitter {
    fn drop(&mut self) {
        // What is left in it was never acknowledged; if this fails, anyone cleans it up.
        let _ = publish::remove_tree(&self.dir);
    }
}
