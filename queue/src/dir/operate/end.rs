//! Ending tasks that nobody runs. One is taken into `ending/`, its line is written and flushed, its
//! file removed. Of many, all are taken, then all lines are written, with one flush, then all files
//! are removed: whoever dies in between leaves each as if it had been ended alone.

use std::path::PathBuf;

use shared::id::TaskId;
use shared::outcome::{Cause, Next};
use shared::task::{Class, Task, TaskName};
use shared::time::Moment;

use super::Change;
use crate::Error;
use crate::dir::Pool;
use crate::dir::disk::listing::{self, PassedOver};
use crate::dir::disk::lock::Lock;
use crate::dir::disk::place::{Found, Place};
use crate::dir::disk::publish::{self, Moved};
use crate::dir::disk::reject;
use crate::dir::layout::Shelf;
use crate::dir::ledger::append::{Ledger, Ticket};
use crate::dir::ledger::rejection::{self, Unreadable};
use crate::dir::ledger::search::RecordedEnds;
use crate::dir::ledger::{carry_out, search};
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

/// A task that nobody runs, and why it is ended.
#[derive(Clone, Copy, Debug)]
pub struct ToEnd<'a> {
    /// Where it was found.
    pub found: &'a Found,
    /// Why.
    pub reason: Reason,
}

/// A task whose end is recorded: what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedTask {
    /// Its file's name; the attempt in it was never begun.
    pub name: TaskName,
    /// Its class.
    pub class: Class,
    /// What people call it.
    pub task_name: String,
}

/// So many tasks at a time share one flush. Others who end tasks wait as long as that takes.
pub const GROUP: usize = 1024;

/// A task that was taken into `ending/`.
#[derive(Clone, Copy, Debug)]
struct Begun {
    name: TaskName,
    reason: Reason,
    by: By,
}

/// Who took a task into `ending/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// This process, just now.
    Us,
    /// Another one, that may have recorded the end.
    Another,
}

/// What came of taking one.
enum Taken {
    Begun(Begun),
    Not(Change),
}

/// What the file of a task holds.
enum Content {
    Task(Box<Task>),
    /// What is wrong with it.
    Unreadable(String),
    /// It is not there any more.
    Gone,
}

/// How far the end of one is.
enum Stage {
    /// Its line, which says this, is on the disk.
    Recorded(Next),
    /// Its line, which says this, is written, and perhaps not flushed.
    Written(Ticket, Next),
    /// Its line could not be written.
    Unwritten,
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
        let mut changes = self.end_group(&[ToEnd { found, reason }], &mut |_ended| {})?;
        changes.pop().expect("there is one for each task")
    }

    /// Ends tasks that nobody runs, with one flush for all: not more than [`GROUP`], so that others
    /// need not wait long for the right. Returns what came of each, in order, and shows each whose
    /// end is recorded. One that was taken and could not be ended waits in `ending/`, to be finished
    /// by anyone.
    ///
    /// # Errors
    /// When history cannot be read, and must be: somebody else had begun to end one of them.
    pub fn end_group(
        &self,
        tasks: &[ToEnd<'_>],
        see: &mut dyn FnMut(EndedTask),
    ) -> Result<Vec<Result<Change, Error>>, Error> {
        let taken: Vec<_> = tasks.iter().map(|task| self.take(*task)).collect();
        let begun = taken.iter().filter_map(|taken| match taken {
            Ok(Taken::Begun(begun)) => Some(*begun),
            Ok(Taken::Not(_)) | Err(_) => None,
        });
        let mut finished = self.finish(&begun.collect::<Vec<_>>(), see)?.into_iter();
        let mut came = |taken| match taken {
            Taken::Not(change) => Ok(change),
            Taken::Begun(_) => {
                finished.next().expect("one for each that was begun").map(|()| Change::Done)
            }
        };
        Ok(taken.into_iter().map(|taken| taken.and_then(&mut came)).collect())
    }

    fn take(&self, task: ToEnd<'_>) -> Result<Taken, Error> {
        let ToEnd { found, reason } = task;
        let (layout, name, state) = (self.pool.layout(), found.name, found.place.state());
        match &found.place {
            Place::Processing { worker } => {
                return Ok(Taken::Not(Change::Running { worker: worker.clone() }));
            }
            // We have the right, so whoever began to end it has died.
            Place::Ending { verb } => {
                let reason = Reason::ALL.into_iter().find(|reason| reason.verb() == verb);
                let begun = reason.map(|reason| Begun { name, reason, by: By::Another });
                return Ok(begun.map_or(Taken::Not(Change::NotThere { state }), Taken::Begun));
            }
            Place::Shelf { shelf: Shelf::Failed, .. } => {
                return Ok(Taken::Not(Change::NotThere { state }));
            }
            Place::Pending { .. }
            | Place::Delayed { .. }
            | Place::Shelf { shelf: Shelf::Waiting | Shelf::Held, .. } => {}
        }
        let path = layout.ending_task(reason.verb(), name);
        Ok(match publish::move_new(&found.path(layout), &path)? {
            Moved::Yes => Taken::Begun(Begun { name, reason, by: By::Us }),
            Moved::SourceGone | Moved::TargetThere => Taken::Not(Change::Moved),
        })
    }

    /// Ends what a process that died had begun to end. Returns how many. One that cannot be ended
    /// does not stop the others; its error comes last.
    pub fn finish_all(&self) -> Result<u32, Error> {
        let begun = begun_by_others(self.pool)?;
        let (mut finished, mut last) = (0, Ok(()));
        for result in self.finish(&begun, &mut |_ended| {})? {
            match result {
                Ok(()) => finished += 1,
                Err(err) => last = Err(err),
            }
        }
        last.map(|()| finished)
    }

    /// Ends what was begun, [`GROUP`] by group; what came of each, in order.
    fn finish(
        &self,
        begun: &[Begun],
        see: &mut dyn FnMut(EndedTask),
    ) -> Result<Vec<Result<(), Error>>, Error> {
        // Nobody can have ended an attempt that was not begun; and all of history is long.
        let others = begun.iter().filter(|begun| begun.by == By::Another);
        let others: Vec<_> = others.map(|begun| begun.name).collect();
        let recorded = search::recorded(self.pool.layout(), &others)?;
        let mut results = Vec::with_capacity(begun.len());
        for group in begun.chunks(GROUP) {
            self.finish_group(group, &recorded, see, &mut results);
        }
        if results.iter().any(Result::is_ok) {
            carry_out::ring_after_end(self.pool.layout());
        }
        Ok(results)
    }

    /// First every line is written, then all are flushed at once, then what they say is carried out.
    fn finish_group(
        &self,
        group: &[Begun],
        recorded: &RecordedEnds,
        see: &mut dyn FnMut(EndedTask),
        results: &mut Vec<Result<(), Error>>,
    ) {
        let write = |begun: &Begun| {
            let id = begun.name.id;
            if let Some(damaged) = recorded.unknown.get(&id) {
                let what = format!("how attempt {} of task {id} ended", begun.name.attempt);
                return Err(damaged.error(&what));
            }
            let stage = recorded.next.get(&id).map(|next| Stage::Recorded(*next));
            match (self.read(*begun)?, stage) {
                (Content::Gone, _) => Ok(None),
                (Content::Task(task), stage) => {
                    let (class, task_name) = (task.class(), task.name());
                    let told = EndedTask { name: begun.name, class, task_name };
                    let stage = stage.unwrap_or_else(|| self.write(*begun, *task));
                    Ok(Some((stage, Some(told))))
                }
                (Content::Unreadable(_), Some(stage)) => Ok(Some((stage, None))),
                (Content::Unreadable(problem), None) => {
                    let (path, name) = (self.path(*begun), begun.name);
                    let unreadable = Unreadable { path: &path, name, problem: &problem };
                    rejection::end(self.pool, self.ledger, unreadable)?;
                    Ok(None)
                }
            }
        };
        let written: Vec<Result<_, Error>> = group.iter().map(write).collect();
        for (begun, written) in group.iter().zip(written) {
            results.push(written.and_then(|written| {
                let Some((stage, told)) = written else { return Ok(()) };
                self.carry_out(*begun, stage)?;
                told.into_iter().for_each(&mut *see);
                Ok(())
            }));
        }
    }

    fn read(&self, begun: Begun) -> Result<Content, Error> {
        let (layout, path) = (self.pool.layout(), self.path(begun));
        match reject::read_task(layout, &path, begun.name.id) {
            Ok(Some(task)) => Ok(Content::Task(Box::new(task))),
            Ok(None) => Ok(Content::Gone),
            Err(Error::Garbled { problem, .. }) => Ok(Content::Unreadable(problem)),
            Err(err) => Err(err),
        }
    }

    /// Writes the line. What cannot be written now is tried again alone.
    fn write(&self, begun: Begun, task: Task) -> Stage {
        let line = self.line(begun, task);
        let written = self.ledger.write(&line);
        written.map_or(Stage::Unwritten, |ticket| Stage::Written(ticket, line.next))
    }

    fn carry_out(&self, begun: Begun, stage: Stage) -> Result<(), Error> {
        let path = self.path(begun);
        let on_disk = match stage {
            Stage::Recorded(next) => Some(next),
            // The first one flushes for all that were written by then.
            Stage::Written(ticket, next) => self.ledger.flush(ticket).ok().map(|()| next),
            Stage::Unwritten => None,
        };
        let next = match on_disk {
            Some(next) => next,
            None => {
                // Alone, with the reserve given up where the disk is full.
                let Content::Task(task) = self.read(begun)? else { return Ok(()) };
                let line = self.line(begun, *task);
                self.ledger.append(&line)?;
                line.next
            }
        };
        if next == Next::End {
            return publish::remove(&path).map(|_removed| ());
        }
        // Whoever's line it is, what it says is to be done.
        let TaskName { id, attempt, .. } = begun.name;
        let line = search::line_of(self.pool.layout(), id, attempt, None)?;
        line.map_or(Ok(()), |line| carry_out::carry_out(self.pool, &path, &line.task, &line))
    }

    fn path(&self, begun: Begun) -> PathBuf {
        self.pool.layout().ending_task(begun.reason.verb(), begun.name)
    }

    fn line(&self, begun: Begun, task: Task) -> Line {
        let (name, reason) = (begun.name, begun.reason);
        let (verdict, policy) = (reason.verdict(), &self.pool.rules().retry);
        let end = retry::next(name, verdict, policy, Moment::now(), 0.0);
        let mut line = Line::new(task, name, verdict, end);
        line.error_message = reason.message();
        line.written_by = Some(self.ledger.writer().name.to_string());
        line
    }
}

/// Ends what a process that died had begun to end; nothing while somebody ends tasks. Returns how
/// many. Costs two listings where there is nothing.
pub fn finish_begun(pool: &Pool, ledger: &Ledger) -> Result<u32, Error> {
    if begun_by_others(pool)?.is_empty() {
        return Ok(0);
    }
    // Held: whoever began them is at it.
    Ender::try_new(pool, ledger)?.map_or(Ok(0), |ender| ender.finish_all())
}

/// What somebody has begun to end. What cannot be listed is passed over: whoever counts the tasks
/// says so.
fn begun_by_others(pool: &Pool) -> Result<Vec<Begun>, Error> {
    let (mut begun, mut passed_over) = (Vec::new(), PassedOver::default());
    for reason in Reason::ALL {
        let dir = pool.layout().ending().join(reason.verb());
        let names = passed_over.or_pass_over(listing::tasks_in(&dir))?.unwrap_or_default();
        let of_verb = names.tasks.into_iter();
        begun.extend(of_verb.map(|name| Begun { name, reason, by: By::Another }));
    }
    Ok(begun)
}
