//! Carrying out what a ledger line says: one unlink or one rename. Whoever finds the line after a
//! crash does it again; what was done already is found done.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use shared::outcome::Next;
use shared::task::{Task, TaskName};

use crate::Error;
use crate::dir::Pool;
use crate::dir::disk::lane_files::ensure_lane;
use crate::dir::disk::publish::{self, Moved};
use crate::dir::disk::reject;
use crate::dir::layout::{Layout, Segment, Shelf};
use crate::dir::signal::doorbell;
use crate::wire::lane::{LaneName, Requirements};
use crate::wire::ledger_line::Line;

/// Carries out `line.next` on the task's file at `path`.
pub fn carry_out(pool: &Pool, path: &Path, task: &Task, line: &Line) -> Result<(), Error> {
    let layout = pool.layout();
    match line.next {
        Next::End => publish::remove(path).map(|_removed| ())?,
        Next::Failed => move_to(layout, path, &layout.on_shelf(Shelf::Failed, line.next_name))?,
        Next::Pending => to_pending(pool, path, task, line.next_name)?,
        Next::Delayed(until) => move_to(layout, path, &layout.delayed_task(until, line.next_name))?,
        Next::Rejected => reject_task(layout, path, line)?,
    }
    match line.next {
        Next::End => ring_after_end(layout),
        Next::Failed | Next::Delayed(_) | Next::Rejected => doorbell::ring_brain(layout),
        Next::Pending => {}
    }
    Ok(())
}

/// Wakes the brain after the end of a task for which others may wait.
pub(in crate::dir) fn ring_after_end(layout: &Layout) {
    // A bell wakes everybody who listens: not for each of a thousand short tasks.
    if anybody_waits(layout) {
        doorbell::ring_brain(layout);
    }
}

/// Whether tasks may wait for others to end. One that comes later rings by itself, and finds the
/// line that is in the ledger by now. The links of a directory are itself, its name, and its
/// subdirectories' `..`; where the file system does not count so, the answer is yes.
fn anybody_waits(layout: &Layout) -> bool {
    let meta = std::fs::metadata(layout.shelf(Shelf::Waiting));
    meta.map_or(true, |meta| meta.nlink() != 2)
}

/// Makes a task claimable under the name `name`, and rings for it.
pub fn to_pending(pool: &Pool, from: &Path, task: &Task, name: TaskName) -> Result<(), Error> {
    let lane = ensure_lane(pool.layout(), &pool.requirements_of(task), &mut HashSet::new())?;
    to_lane(pool, from, task, &lane, name)
}

/// Makes a task claimable in a lane in which other limits count it than in the one it was in.
pub(in crate::dir) fn to_requirements(
    pool: &Pool,
    from: &Path,
    task: &Task,
    requirements: &Requirements,
    name: TaskName,
) -> Result<(), Error> {
    let lane = ensure_lane(pool.layout(), requirements, &mut HashSet::new())?;
    to_lane(pool, from, task, &lane, name)
}

fn to_lane(
    pool: &Pool,
    from: &Path,
    task: &Task,
    lane: &LaneName,
    name: TaskName,
) -> Result<(), Error> {
    let segment = Segment::single(task.id);
    let dir = pool.layout().pending_segment(lane, task.priority(), &segment);
    move_to(pool.layout(), from, &dir.join(name.file_name()))?;
    doorbell::ring_class(pool.layout(), task.class());
    Ok(())
}

/// Moves a task's file. A source that is gone was moved by somebody who carried out the same line.
fn move_to(layout: &Layout, from: &Path, to: &Path) -> Result<(), Error> {
    match publish::move_new(from, to)? {
        Moved::Yes | Moved::SourceGone => Ok(()),
        Moved::TargetThere => drop_copy(layout, from, to),
    }
}

fn reject_task(layout: &Layout, path: &Path, line: &Line) -> Result<(), Error> {
    let problem = line.error_message.as_deref().unwrap_or("it could not be understood");
    match reject::reject_as(layout, path, &line.next_name.file_name(), problem) {
        // Put aside, but without a reason beside it: the line has it.
        Err(Error::Garbled { .. }) => Ok(()),
        rejected => rejected.map(|_target| ()),
    }
}

/// The same task under the same name: a copy that a file system without an atomic no-replace
/// rename, or a power cut, left behind. Task files never change, so one is enough. Anything else
/// of that name (a directory, say) is in the way of a task, and is what is put aside.
fn drop_copy(layout: &Layout, from: &Path, to: &Path) -> Result<(), Error> {
    let plain = std::fs::symlink_metadata(to).is_ok_and(|meta| meta.is_file());
    let same =
        plain && matches!((std::fs::read(from), std::fs::read(to)), (Ok(a), Ok(b)) if a == b);
    if same {
        return publish::remove(from).map(|_removed| ());
    }
    reject::reject(layout, to, "it was where a task of this name belongs")?;
    match publish::move_new(from, to)? {
        Moved::Yes | Moved::SourceGone => Ok(()),
        Moved::TargetThere => {
            let err = std::io::ErrorKind::AlreadyExists.into();
            Err(Error::Io { what: "move a task to", path: to.to_owned(), err })
        }
    }
}
