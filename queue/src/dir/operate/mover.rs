//! Hold, release, retry, and releasing what is due: each is one rename. Of many tasks that one command
//! moves, the lanes are written once, and whoever waits for them is woken by the first and the last.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use shared::task::{Class, Task, TaskName};
use shared::time::Moment;

use super::Change;
use crate::Error;
use crate::dir::Pool;
use crate::dir::disk::lane_files::ensure_lane;
use crate::dir::disk::place::{Found, Place};
use crate::dir::disk::publish::{self, Moved};
use crate::dir::disk::reject;
use crate::dir::layout::{Segment, Shelf};
use crate::dir::signal::doorbell;
use crate::store::start::{Start, released};
use crate::wire::lane::LaneName;
use crate::wire::ledger_line::Line;

/// Moves tasks, any number of them. A mover that dies has moved some and not the others; those who
/// wait for the moved ones look anyway.
#[derive(Debug)]
pub struct Mover<'a> {
    pool: &'a Pool,
    /// Lanes whose files are known to be there.
    lanes: HashSet<LaneName>,
    rung: BTreeSet<Bell>,
    /// To be rung again when this is dropped: tasks came after the first ring.
    again: BTreeSet<Bell>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bell {
    New(Class),
    Brain,
}

impl<'a> Mover<'a> {
    /// One that has moved nothing yet.
    #[must_use]
    pub fn new(pool: &'a Pool) -> Self {
        let (rung, again) = (BTreeSet::new(), BTreeSet::new());
        Self { pool, lanes: HashSet::new(), rung, again }
    }

    /// Puts a task on the shelf of those that a person holds.
    pub fn hold(&mut self, found: &Found) -> Result<Change, Error> {
        let state = found.place.state();
        match &found.place {
            Place::Processing { worker } => return Ok(Change::Running { worker: worker.clone() }),
            Place::Ending { .. } | Place::Shelf { shelf: Shelf::Held | Shelf::Failed, .. } => {
                return Ok(Change::NotThere { state });
            }
            Place::Pending { .. }
            | Place::Delayed { .. }
            | Place::Shelf { shelf: Shelf::Waiting, .. } => {}
        }
        let layout = self.pool.layout();
        moved(publish::move_new(&found.path(layout), &layout.on_shelf(Shelf::Held, found.name))?)
    }

    /// Lets a held task go where it belongs.
    pub fn release(&mut self, found: &Found) -> Result<Change, Error> {
        let Place::Shelf { shelf: Shelf::Held, .. } = found.place else {
            return Ok(Change::NotThere { state: found.place.state() });
        };
        let layout = self.pool.layout();
        let Some(task) = found.read(layout)? else { return Ok(Change::Moved) };
        self.put_where_it_belongs(&found.path(layout), &task, found.name)
    }

    /// Takes a task back that ended because its file could not be understood, as `line` says, and
    /// that somebody has mended since.
    ///
    /// # Errors
    /// Where it still cannot be understood.
    pub fn take_back(&mut self, line: &Line) -> Result<Change, Error> {
        let layout = self.pool.layout();
        let (path, reason) = layout.rejected_task(line.next_name);
        let Some(task) = reject::read_task(layout, &path, line.id)? else {
            return Ok(Change::NotThere { state: "no longer in rejected/" });
        };
        let change = self.put_where_it_belongs(&path, &task, line.next_name)?;
        publish::remove(&reason)?;
        Ok(change)
    }

    fn put_where_it_belongs(
        &mut self,
        from: &Path,
        task: &Task,
        name: TaskName,
    ) -> Result<Change, Error> {
        if task.spec.after.is_empty() {
            return self.make_ready_from(from, task, name);
        }
        let waiting = self.pool.layout().on_shelf(Shelf::Waiting, name);
        let change = moved(publish::move_new(from, &waiting)?)?;
        self.ring(Bell::Brain);
        Ok(change)
    }

    /// Gives a task that failed for good a clean slate.
    pub fn retry(&mut self, found: &Found) -> Result<Change, Error> {
        let Place::Shelf { shelf: Shelf::Failed, .. } = found.place else {
            return Ok(Change::NotThere { state: found.place.state() });
        };
        let Some(task) = found.read(self.pool.layout())? else { return Ok(Change::Moved) };
        self.make_ready(found, &task, found.name.retried())
    }

    /// Moves a task to where nothing but, perhaps, its time holds it back.
    pub fn make_ready(
        &mut self,
        found: &Found,
        task: &Task,
        name: TaskName,
    ) -> Result<Change, Error> {
        self.make_ready_from(&found.path(self.pool.layout()), task, name)
    }

    fn make_ready_from(
        &mut self,
        from: &Path,
        task: &Task,
        name: TaskName,
    ) -> Result<Change, Error> {
        let layout = self.pool.layout();
        // What has run once has reached its time, whatever the clock says by now.
        let start = match name.attempt {
            1 => released(task, Moment::now()),
            _ => Start::Pending,
        };
        match start {
            Start::Delayed(at) => {
                let change = moved(publish::move_new(from, &layout.delayed_task(at, name))?)?;
                self.ring(Bell::Brain);
                Ok(change)
            }
            Start::Pending | Start::Waiting | Start::Held => {
                let requirements = self.pool.requirements_of(task);
                let lane = ensure_lane(layout, &requirements, &mut self.lanes)?;
                let segment = Segment::single(task.id);
                let dir = layout.pending_segment(&lane, task.priority(), &segment);
                let change = moved(publish::move_new(from, &dir.join(name.file_name()))?)?;
                self.ring(Bell::New(task.class()));
                Ok(change)
            }
        }
    }

    /// At once for the first task, so that nobody waits for all the others to be moved.
    fn ring(&mut self, bell: Bell) {
        if self.rung.insert(bell) {
            bell.ring(self.pool);
        } else {
            self.again.insert(bell);
        }
    }
}

impl Drop for Mover<'_> {
    fn drop(&mut self) {
        for bell in &self.again {
            bell.ring(self.pool);
        }
    }
}

impl Bell {
    fn ring(self, pool: &Pool) {
        match self {
            Self::New(class) => doorbell::ring_new(pool.layout(), class),
            Self::Brain => doorbell::ring_brain(pool.layout()),
        }
    }
}

/// Puts one task on the shelf of those that a person holds.
pub fn hold(pool: &Pool, found: &Found) -> Result<Change, Error> {
    Mover::new(pool).hold(found)
}

/// Lets one held task go where it belongs.
pub fn release(pool: &Pool, found: &Found) -> Result<Change, Error> {
    Mover::new(pool).release(found)
}

/// Gives one task that failed for good a clean slate.
pub fn retry(pool: &Pool, found: &Found) -> Result<Change, Error> {
    Mover::new(pool).retry(found)
}

fn moved(moved: Moved) -> Result<Change, Error> {
    Ok(match moved {
        Moved::Yes => Change::Done,
        Moved::SourceGone | Moved::TargetThere => Change::Moved,
    })
}
