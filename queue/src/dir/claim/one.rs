//! Claiming: one rename into `processing/<me>/`. Exactly one rename wins.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use shared::name::Name;
use shared::task::{Task, TaskName};

use super::limit_slots::{self, SlotUse, Slots};
use super::prefetch::Prefetched;
use crate::Error;
use crate::dir::brake::BrakeTurn;
use crate::dir::disk::publish::{self, Moved};
use crate::dir::disk::reject;
use crate::dir::layout::Segment;
use crate::dir::ledger::append::{Ledger, Ticket};
use crate::dir::ledger::carry_out;
use crate::dir::ledger::rejection::{self, Unreadable};
use crate::dir::{Pool, fault};
use crate::wire::lane::{LaneName, Requirements};
use crate::wire::ledger_line::Line;

/// A claimed task: the right, and the duty, to end this attempt. Ending it consumes the value.
///
/// Dropped without that (a panic), the task stays in `processing/` and is put back by whoever
/// settles the worker's affairs.
#[derive(Debug)]
#[must_use = "a claimed task must be ended, or nobody runs it until this worker has died"]
pub struct Claim {
    pool: Pool,
    worker: Name,
    name: TaskName,
    task: Task,
    path: PathBuf,
    /// Its end, once somebody tried to record it: the line may be on the disk even after an error,
    /// so nothing else can be said about this attempt.
    end: Option<(Line, OnDisk)>,
    slots: Slots,
    turn: BrakeTurn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnDisk {
    Perhaps,
    Yes,
}

/// An attempt that has ended: its line is on the disk, and will be carried out by whoever finds
/// it, whatever becomes of this value.
#[derive(Debug)]
#[must_use = "what the line says should be carried out soon"]
pub struct Recorded(Box<Claim>);

/// An attempt that could not be ended, with the claim to try again.
#[derive(Debug)]
pub struct NotEnded {
    /// The claim, still held.
    pub claim: Box<Claim>,
    /// Why: the line could not be written or flushed, or what it says not be carried out.
    pub error: Error,
}

impl Claim {
    /// The whole task, as its file says it.
    #[must_use]
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Its file's name: which attempt this is.
    #[must_use]
    pub fn name(&self) -> TaskName {
        self.name
    }

    /// The worker in whose `processing/<worker>/` the file is.
    #[must_use]
    pub fn worker(&self) -> &Name {
        &self.worker
    }

    /// What it is to the brake that counts it.
    #[must_use]
    pub fn turn(&self) -> BrakeTurn {
        self.turn
    }

    /// Ends the attempt: the line is written and flushed, then what it says is carried out.
    ///
    /// When that is tried again after an error, the first line stays the only one: an attempt has
    /// one end.
    pub fn end(mut self, ledger: &Ledger, line: &Line) -> Result<(), NotEnded> {
        self.end.get_or_insert_with(|| (line.clone(), OnDisk::Perhaps));
        Box::new(self).recorded(ledger)?.carry_out()
    }

    /// Records the line that was given first, unless it is known to be on the disk.
    fn recorded(mut self: Box<Self>, ledger: &Ledger) -> Result<Recorded, NotEnded> {
        if let Some((line, on_disk @ OnDisk::Perhaps)) = &mut self.end {
            match ledger.append(line) {
                Ok(()) => *on_disk = OnDisk::Yes,
                Err(error) => return Err(NotEnded { claim: self, error }),
            }
        }
        Ok(Recorded(self))
    }

    /// Nothing of its job is left: the limits that count the task count it no more, also while
    /// its end is not recorded yet.
    pub fn free_slots(&mut self) {
        self.slots.free();
    }
}

impl Recorded {
    /// The name of the attempt that has ended, not that of the next one.
    #[must_use]
    pub fn name(&self) -> TaskName {
        self.0.name
    }

    /// Carries out what the line says.
    pub fn carry_out(self) -> Result<(), NotEnded> {
        let Self(claim) = self;
        let Some((line, _on_disk)) = &claim.end else { return Ok(()) };
        let done = carry_out::carry_out(&claim.pool, &claim.path, &claim.task, line);
        done.map_err(|error| NotEnded { claim, error })
    }
}

impl NotEnded {
    /// Tries again. The line that was given first stays the only one.
    pub fn try_again(self, ledger: &Ledger) -> Result<(), Self> {
        self.claim.recorded(ledger)?.carry_out()
    }
}

/// Records the ends of several attempts, in this order, with one flush for all: first every line
/// is written, then all are flushed. For each, what came of it; what has ended is to be carried
/// out.
pub fn record_all(
    ledger: &Ledger,
    ends: Vec<(Box<Claim>, Line)>,
) -> Vec<Result<Recorded, NotEnded>> {
    let write = |(mut claim, line): (Box<Claim>, Line)| {
        // What could not be written is tried again below, alone, with the reserve given up.
        let ticket = ledger.write(&line).ok();
        claim.end = Some((line, OnDisk::Perhaps));
        (claim, ticket)
    };
    let written: Vec<_> = ends.into_iter().map(write).collect();
    let flush = |(mut claim, ticket): (Box<Claim>, Option<Ticket>)| {
        // The first one flushes for all that were written by then.
        let flushed = ticket.is_some_and(|ticket| ledger.flush(ticket).is_ok());
        if let Some((_line, on_disk)) = claim.end.as_mut().filter(|_end| flushed) {
            *on_disk = OnDisk::Yes;
        }
        claim
    };
    let flushed: Vec<_> = written.into_iter().map(flush).collect();
    flushed.into_iter().map(|claim| claim.recorded(ledger)).collect()
}

/// What came of trying for one task.
#[derive(Debug)]
pub enum Try {
    /// It is ours: its file is in `processing/<worker>/` now.
    Won(Box<Claim>),
    /// Somebody else was first.
    LostRace,
    /// A limit that counts it is used up.
    Limited(limit_slots::UsedUp),
    /// A limit that is newer than its lane counts it: it is in another lane now.
    CountedAnew,
    /// It was ours for a moment, but is no task; it is in `rejected/` now.
    Rejected {
        /// What is wrong with the file, in words.
        problem: String,
    },
}

/// One task that can be tried for, as the path
/// `pending/<lane>/<priority>/<segment>/<name>` says.
#[derive(Clone, Copy, Debug)]
pub struct ClaimTarget<'a> {
    /// Its lane.
    pub lane: &'a LaneName,
    /// What the lane requires.
    pub requirements: &'a Requirements,
    /// Its priority.
    pub priority: u8,
    /// The numbered directory that it is in.
    pub segment: &'a Segment,
    /// Its name.
    pub name: TaskName,
}

/// Who tries for a task.
#[derive(Clone, Copy, Debug)]
pub(in crate::dir) struct Claimer<'a> {
    /// The pool.
    pub(in crate::dir) pool: &'a Pool,
    /// The worker that it is claimed for, whose lease is held.
    pub(in crate::dir) worker: &'a Name,
    /// The worker's own ledger, in which a task is ended that cannot be read.
    pub(in crate::dir) ledger: &'a Ledger,
}

/// Tries for one task, which may have been read ahead.
pub(in crate::dir) fn try_claim(
    claimer: Claimer<'_>,
    target: ClaimTarget<'_>,
    prefetched: Option<Prefetched>,
) -> Result<Try, Error> {
    let Claimer { pool, worker, ledger } = claimer;
    let by = SlotUse::of(worker, target.name);
    let mut slots = match limit_slots::take(pool, &target.requirements.limits, &by)? {
        Ok(slots) => slots,
        Err(used_up) => return Ok(Try::Limited(used_up)),
    };
    let layout = pool.layout();
    let from = layout
        .pending_segment(target.lane, target.priority, target.segment)
        .join(target.name.file_name());
    let path = layout.processing_of(worker).join(target.name.file_name());
    match take_file(&from, &path)? {
        Took::Ours => {}
        Took::LostRace => {
            slots.free();
            return Ok(Try::LostRace);
        }
        // Tried again and again it would keep the whole lane from ever being used up.
        Took::Copy => {
            slots.free();
            let problem = format!("a second copy of a task that {worker} has already");
            return reject_copy(pool, &from, problem);
        }
    }
    let name = target.name;
    let read = match prefetched.and_then(|prefetched| prefetched.of_moved(&from, &path)) {
        Some(task) => Ok(Some(task)),
        None => reject::read_task(layout, &path, name.id),
    };
    match read {
        Ok(Some(task)) => {
            let taken = Taken { pool, name, path: &path, task: &task };
            match taken.turn(target.requirements) {
                Ok(Some(turn)) => {
                    let (pool, worker) = (pool.clone(), worker.clone());
                    let claim = Claim { pool, worker, name, task, path, end: None, slots, turn };
                    Ok(Try::Won(Box::new(claim)))
                }
                Ok(None) => {
                    slots.free();
                    Ok(Try::CountedAnew)
                }
                // It would be nobody's where it is now.
                Err(err) => {
                    publish::move_new(&path, &from)?;
                    Err(err)
                }
            }
        }
        // Somebody removed it by hand.
        Ok(None) => Ok(Try::LostRace),
        Err(Error::Garbled { problem, .. }) => {
            let unreadable = Unreadable { path: &path, name, problem: &problem };
            match rejection::end(pool, ledger, unreadable) {
                Ok(()) => Ok(Try::Rejected { problem }),
                // Perhaps recorded, perhaps not: found out when this worker's affairs are settled.
                Err(err) => Err(err),
            }
        }
        // Not the file's fault (no descriptors left, say): nobody would run it here, so it goes
        // back. If that fails too, it is put back when this worker's affairs are settled.
        Err(err) => {
            publish::move_new(&path, &from)?;
            Err(err)
        }
    }
}

/// A task whose file has just come to the worker.
struct Taken<'a> {
    pool: &'a Pool,
    name: TaskName,
    path: &'a Path,
    task: &'a Task,
}

impl Taken<'_> {
    /// What it is to the brake that counts it. `None` where it belongs in another lane by now, to which
    /// it was moved.
    fn turn(&self, requirements: &Requirements) -> Result<Option<BrakeTurn>, Error> {
        let Self { pool, name, path, task } = *self;
        if let Some(now) = limit_slots::counted_anew(pool, requirements, task) {
            carry_out::to_requirements(pool, path, task, &now, name)?;
            return Ok(None);
        }
        pool.brakes().begin(&requirements.limits, task).map(Some)
    }
}

enum Took {
    Ours,
    LostRace,
    /// There is one in `pending/` and one in `processing/<me>/`.
    Copy,
}

/// Two threads of one worker take turns. Over NFS "not found, but the target is there" means that
/// our own rename has succeeded; between such threads it would mean that both have the task.
static TURN: Mutex<()> = Mutex::new(());

fn take_file(from: &Path, to: &Path) -> Result<Took, Error> {
    let _turn =
        (!fault::is_own_process()).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner));
    if publish::is_there(to)? {
        return Ok(if publish::is_there(from)? { Took::Copy } else { Took::LostRace });
    }
    Ok(match publish::move_new(from, to)? {
        Moved::Yes => Took::Ours,
        Moved::SourceGone | Moved::TargetThere => Took::LostRace,
    })
}

/// The task itself is in hand.
fn reject_copy(pool: &Pool, path: &Path, problem: String) -> Result<Try, Error> {
    match reject::reject(pool.layout(), path, &problem) {
        Ok(_target) => Ok(Try::Rejected { problem }),
        // Put aside as well, with more to tell.
        Err(Error::Garbled { problem, .. }) => Ok(Try::Rejected { problem }),
        Err(err) => Err(err),
    }
}
