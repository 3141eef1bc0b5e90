//! What a person's commands do to a task: cancel, hold, release, retry. Each is one rename; only
//! ending a task takes more steps, and can be finished by anyone.

use std::collections::HashSet;
use std::path::Path;

use shared::id::TaskId;
use shared::name::Name;
use shared::outcome::Cause;
use shared::task::{Task, TaskName};
use shared::time::Moment;

use super::Pool;
use super::disk::lane_files::ensure_lane;
use super::disk::lock::Lock;
use super::disk::place::{Found, Place};
use super::disk::publish::{self, Moved};
use super::disk::{listing, reject};
use super::layout::{Layout, Shelf};
use super::ledger::append::Ledger;
use super::ledger::carry_out;
use super::ledger::rejection::{self, Unreadable};
use super::signal::doorbell;
use crate::Error;
use crate::store::start::{Start, released};
use crate::wire::ledger_line::Line;
use crate::wire::retry::{self, Verdict};

/// Why a task is ended that nobody runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A person said so.
    Cancel,
    /// What it depends on did not end as needed.
    Dependency {
        /// Which task that was; unknown to whoever finishes what another process had begun.
        needed: Option<TaskId>,
    },
    /// Its file could not be understood.
    Unreadable,
}

impl Reason {
    const ALL: [Self; 3] = [Self::Cancel, Self::Dependency { needed: None }, Self::Unreadable];

    const fn verb(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Dependency { .. } => "dependency",
            Self::Unreadable => "unreadable",
        }
    }

    const fn verdict(self) -> Verdict {
        match self {
            Self::Cancel => Verdict::Cancelled(Cause::Cancelled),
            Self::Dependency { .. } => Verdict::Cancelled(Cause::DependencyFailed),
            Self::Unreadable => Verdict::Rejected,
        }
    }

    fn message(self) -> Option<String> {
        match self {
            Self::Cancel => None,
            Self::Dependency { needed: Some(id) } => {
                Some(format!("{}, which it waited for, did not end as needed", id.short()))
            }
            Self::Dependency { needed: None } => {
                Some("a task that it waited for did not end as needed".to_owned())
            }
            // Whoever met it could not read it; whoever ends it can.
            Self::Unreadable => Some("it could not be read where it was".to_owned()),
        }
    }
}

/// How many tasks somebody has begun to end, and perhaps died.
pub fn being_ended(layout: &Layout) -> Result<usize, Error> {
    let dirs = Reason::ALL.map(|reason| layout.ending().join(reason.verb()));
    dirs.iter().map(|dir| Ok(listing::tasks_in(dir)?.tasks.len())).sum()
}

/// Who took a task into `ending/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    /// This process, just now.
    ByUs,
    /// Another one, that may have recorded the end.
    Earlier,
}

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

/// The right to end tasks that nobody runs. Held by one process at a time, so that an end is
/// never recorded twice.
#[derive(Debug)]
pub struct Ender<'a> {
    pool: &'a Pool,
    ledger: &'a Ledger,
    _lock: Lock,
}

impl<'a> Ender<'a> {
    /// Waits for the right.
    pub fn wait(pool: &'a Pool, ledger: &'a Ledger) -> Result<Self, Error> {
        let lock = Lock::wait(&pool.layout().ending().join(".lock"))?;
        Ok(Self { pool, ledger, _lock: lock })
    }

    /// The right, unless somebody has it.
    pub fn try_new(pool: &'a Pool, ledger: &'a Ledger) -> Result<Option<Self>, Error> {
        let lock = Lock::try_take(&pool.layout().ending().join(".lock"))?;
        Ok(lock.map(|lock| Self { pool, ledger, _lock: lock }))
    }

    /// Ends a task that nobody runs.
    pub fn end(&self, found: &Found, reason: Reason) -> Result<Change, Error> {
        let layout = self.pool.layout();
        let path = layout.ending_task(reason.verb(), found.name);
        match &found.place {
            Place::Processing { worker } => return Ok(Change::Running { worker: worker.clone() }),
            // We have the right, so whoever began to end it has died.
            Place::Ending { verb } => return self.go_on(verb, found),
            Place::Shelf { shelf: Shelf::Failed, .. } => {
                return Ok(Change::NotThere { state: found.place.state() });
            }
            Place::Pending { .. }
            | Place::Delayed { .. }
            | Place::Shelf { shelf: Shelf::Waiting | Shelf::Held, .. } => {}
        }
        match publish::move_new(&found.path(layout), &path)? {
            Moved::Yes => {}
            Moved::SourceGone | Moved::TargetThere => return Ok(Change::Moved),
        }
        self.finish(reason, found.name, Begun::ByUs)?;
        Ok(Change::Done)
    }

    fn go_on(&self, verb: &str, found: &Found) -> Result<Change, Error> {
        let Some(reason) = Reason::ALL.into_iter().find(|reason| reason.verb() == verb) else {
            return Ok(Change::NotThere { state: found.place.state() });
        };
        self.finish(reason, found.name, Begun::Earlier)?;
        Ok(Change::Done)
    }

    /// Ends what a process that died had begun to end. Returns how many. One that cannot be ended
    /// does not stop the others; its error comes last.
    pub fn finish_all(&self) -> Result<u32, Error> {
        let (mut finished, mut last) = (0, Ok(()));
        for reason in Reason::ALL {
            let dir = self.pool.layout().ending().join(reason.verb());
            for name in listing::tasks_in(&dir)?.tasks {
                match self.finish(reason, name, Begun::Earlier) {
                    Ok(()) => finished += 1,
                    Err(err) => last = Err(err),
                }
            }
        }
        last.map(|()| finished)
    }

    fn finish(&self, reason: Reason, name: TaskName, begun: Begun) -> Result<(), Error> {
        let layout = self.pool.layout();
        let path = layout.ending_task(reason.verb(), name);
        let task = match reject::read_task(layout, &path, name.id) {
            Ok(Some(task)) => Ok(task),
            Ok(None) => return Ok(()),
            Err(Error::Garbled { problem, .. }) => Err(problem),
            Err(err) => return Err(err),
        };
        let recorded = match begun {
            // Nobody can have ended an attempt that was not begun; and all of history is long.
            Begun::ByUs => None,
            Begun::Earlier => {
                crate::dir::ledger::search::line_of(layout, name.id, name.attempt, None)?
            }
        };
        let line = match (recorded, task) {
            (Some(line), _) => line,
            (None, Ok(task)) => self.record(task, name, reason)?,
            (None, Err(problem)) => {
                let unreadable = Unreadable { path: &path, name, problem: &problem };
                return rejection::end(self.pool, self.ledger, unreadable);
            }
        };
        carry_out::carry_out(self.pool, &path, &line.task, &line)
    }

    fn record(&self, task: Task, name: TaskName, reason: Reason) -> Result<Line, Error> {
        let (verdict, policy) = (reason.verdict(), &self.pool.rules().retry);
        let end = retry::next(name, verdict, policy, Moment::now(), 0.0);
        let mut line = Line::new(task, name, verdict, end);
        line.error_message = reason.message();
        line.written_by = Some(self.ledger.writer().name.to_string());
        self.ledger.append(&line)?;
        Ok(line)
    }
}

/// Puts a task on the shelf of those that a person holds.
pub fn hold(pool: &Pool, found: &Found) -> Result<Change, Error> {
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
    let layout = pool.layout();
    moved(publish::move_new(&found.path(layout), &layout.on_shelf(Shelf::Held, found.name))?)
}

/// Lets a held task go where it belongs.
pub fn release(pool: &Pool, found: &Found) -> Result<Change, Error> {
    let Place::Shelf { shelf: Shelf::Held, .. } = found.place else {
        return Ok(Change::NotThere { state: found.place.state() });
    };
    let Some(task) = found.read(pool.layout())? else { return Ok(Change::Moved) };
    put_where_it_belongs(pool, &found.path(pool.layout()), &task, found.name)
}

fn put_where_it_belongs(
    pool: &Pool,
    from: &Path,
    task: &Task,
    name: TaskName,
) -> Result<Change, Error> {
    if task.spec.after.is_empty() {
        return make_ready_from(pool, from, task, name);
    }
    let waiting = pool.layout().on_shelf(Shelf::Waiting, name);
    let change = moved(publish::move_new(from, &waiting)?)?;
    doorbell::ring_brain(pool.layout());
    Ok(change)
}

/// Takes a task back that ended because its file could not be understood, as `line` says, and that
/// somebody has mended since. An error where it still cannot.
pub fn take_back(pool: &Pool, line: &Line) -> Result<Change, Error> {
    let layout = pool.layout();
    let (path, reason) = layout.rejected_task(line.next_name);
    let Some(task) = reject::read_task(layout, &path, line.id)? else {
        return Ok(Change::NotThere { state: "no longer in rejected/" });
    };
    let change = put_where_it_belongs(pool, &path, &task, line.next_name)?;
    publish::remove(&reason)?;
    Ok(change)
}

/// Gives a task that failed for good a clean slate.
pub fn retry(pool: &Pool, found: &Found) -> Result<Change, Error> {
    let Place::Shelf { shelf: Shelf::Failed, .. } = found.place else {
        return Ok(Change::NotThere { state: found.place.state() });
    };
    let Some(task) = found.read(pool.layout())? else { return Ok(Change::Moved) };
    make_ready(pool, found, &task, found.name.retried())
}

/// Moves a task to where nothing but, perhaps, its time holds it back.
pub fn make_ready(
    pool: &Pool,
    found: &Found,
    task: &Task,
    name: TaskName,
) -> Result<Change, Error> {
    make_ready_from(pool, &found.path(pool.layout()), task, name)
}

fn make_ready_from(pool: &Pool, from: &Path, task: &Task, name: TaskName) -> Result<Change, Error> {
    let layout = pool.layout();
    // What has run once has reached its time, whatever the clock says by now.
    let start = match name.attempt {
        1 => released(task, Moment::now()),
        _ => Start::Pending,
    };
    match start {
        Start::Delayed(at) => {
            let change = moved(publish::move_new(from, &layout.delayed_task(at, name))?)?;
            doorbell::ring_brain(layout);
            Ok(change)
        }
        Start::Pending | Start::Waiting | Start::Held => {
            let lane = ensure_lane(layout, &pool.requirements_of(task), &mut HashSet::new())?;
            let segment = super::layout::Segment::single(task.id);
            let dir = layout.pending_segment(&lane, task.priority(), &segment);
            let change = moved(publish::move_new(from, &dir.join(name.file_name()))?)?;
            doorbell::ring_new(layout, task.class());
            Ok(change)
        }
    }
}

fn moved(moved: Moved) -> Result<Change, Error> {
    Ok(match moved {
        Moved::Yes => Change::Done,
        Moved::SourceGone | Moved::TargetThere => Change::Moved,
    })
}
