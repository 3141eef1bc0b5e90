//! The store that is a directory, seen through the seam.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shared::id::TaskId;
use shared::name::Name;
use shared::task::{Task, TaskName};
use shared::time::Moment;

use super::batch::roll_forward;
use super::claim::cursor::{Cursor, Pass};
use super::claim::one::{Claim, NotEnded};
use super::disk::place::{Found, Place};
use super::find::places;
use super::layout::Shelf;
use super::ledger::append::Ledger;
use super::operate::{self, Change, Ender, Reason};
use super::pool::{Pool, Privacy, Rules};
use super::presence::lease::{Lease, this_process};
use super::recover::promote::{Promoter, Promotion};
use super::recover::reconcile::ready;
use super::recover::settle::{Patience, Settler};
use super::signal::control::{self, Message};
use super::signal::doorbell;
use super::submit::bulk::Bulk;
use super::submit::one::Submitter;
use crate::Error;
use crate::store::{Answer, Claimed, SettleAnswer, State, Store, TaskVerb, Whereabouts, Wish};
use crate::wire::fate::Fate;
use crate::wire::lease_record::Record;
use crate::wire::ledger_line::{Line, Writer};

/// A pool and what one process needs to work with it.
#[derive(Debug)]
pub struct DirStore {
    pool: Pool,
    ledger: std::sync::Arc<Ledger>,
    promoter: Mutex<Promoter>,
}

/// A worker's lease, and its look at what is pending.
#[derive(Debug)]
pub struct DirSeat {
    _lease: Lease,
    cursor: Cursor,
}

/// A claim, and the ledger in which its end is recorded.
#[derive(Debug)]
pub struct DirClaim {
    claim: Claim,
    ledger: std::sync::Arc<Ledger>,
}

/// How long the jobs of a dead worker are given.
const PATIENCE: Patience =
    Patience { grace: Duration::from_secs(10), give_up: Duration::from_secs(60) };

impl DirStore {
    /// Opens the pool at `root`, making it where it is missing. `name` is that of this process.
    pub fn open(root: &Path, rules: Rules, name: Name) -> Result<Self, Error> {
        let pool = ready(Pool::create(root, rules, Privacy::Owner)?)?;
        roll_forward::forward_all(pool.layout())?;
        let ledger = Ledger::new(pool.layout().clone(), Writer::new(name)).into();
        let promoter = Promoter::new(&pool).into();
        Ok(Self { pool, ledger, promoter })
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    fn record(&self, worker: &Name) -> Record {
        let writer = self.ledger.writer().clone();
        let working =
            Record::of(worker.clone(), this_process(), writer.life.clone(), Moment::now());
        Record { writers: vec![writer], ..working }
    }

    fn apply(&self, found: &Found, verb: TaskVerb) -> Result<Change, Error> {
        match verb {
            TaskVerb::Cancel => Ender::wait(&self.pool, &self.ledger)?.end(found, Reason::Cancel),
            TaskVerb::Hold => operate::hold(&self.pool, found),
            TaskVerb::Release => operate::release(&self.pool, found),
            TaskVerb::Retry => operate::retry(&self.pool, found),
        }
    }

    fn ask(&self, found: &Found, worker: Name) -> Result<Answer, Error> {
        let by = self.ledger.writer().name.as_str();
        let message = Message::new(control::ControlVerb::Cancel, by);
        control::ask_about(self.pool.layout(), &worker, found.name, message)?;
        Ok(Answer::Asked { worker })
    }

    /// How a task ended that is in no place any more.
    fn ended(&self, id: TaskId) -> Result<Option<Whereabouts>, Error> {
        let last = crate::dir::ledger::search::history_of(self.pool.layout(), id)?.last()?;
        Ok(last.map(|line| Whereabouts { name: line.next_name, state: State::Ended(line.outcome) }))
    }
}

fn state_of(place: &Place) -> State {
    match place {
        Place::Pending { .. } => State::Pending,
        Place::Processing { worker } => State::Processing { worker: worker.clone() },
        Place::Delayed { .. } => State::Delayed,
        Place::Shelf { shelf: Shelf::Waiting, .. } => State::Waiting,
        Place::Shelf { shelf: Shelf::Held, .. } => State::Held,
        Place::Shelf { shelf: Shelf::Failed, .. } => State::Failed,
        Place::Ending { .. } => State::Ending,
    }
}

impl Store for DirStore {
    type Seat = DirSeat;
    type Claim = DirClaim;

    fn submit(&self, task: &Task) -> Result<(), Error> {
        Submitter::new(&self.pool)?.submit(task)?;
        doorbell::ring_class(self.pool.layout(), task.class());
        Ok(())
    }

    fn submit_all(&self, tasks: &[Task]) -> Result<(), Error> {
        let mut bulk = Bulk::new(&self.pool)?;
        for task in tasks {
            bulk.add(task)?;
        }
        bulk.commit()?;
        for task in tasks {
            doorbell::ring_class(self.pool.layout(), task.class());
        }
        Ok(())
    }

    fn join(&self, worker: &Name) -> Result<Option<DirSeat>, Error> {
        let Some(lease) = Lease::try_take(&self.pool, worker)? else { return Ok(None) };
        let dir = self.pool.layout().processing_of(worker);
        if !crate::dir::disk::listing::tasks_in(&dir)?.tasks.is_empty() {
            return Ok(None);
        }
        lease.write(&self.record(worker))?;
        Ok(Some(DirSeat {
            _lease: lease,
            cursor: Cursor::new(&self.pool, worker, self.ledger.clone()),
        }))
    }

    fn claim(&self, seat: &mut DirSeat, wish: &Wish<'_>) -> Result<Option<DirClaim>, Error> {
        match seat.cursor.pass(wish, &mut |_note| {})? {
            Pass::Claimed { claim, .. } => {
                Ok(Some(DirClaim { claim: *claim, ledger: self.ledger.clone() }))
            }
            Pass::Nothing { .. } => Ok(None),
        }
    }

    fn find(&self, id: TaskId) -> Result<Option<Whereabouts>, Error> {
        match places::find(self.pool.layout(), id)? {
            Some(found) => {
                Ok(Some(Whereabouts { name: found.name, state: state_of(&found.place) }))
            }
            None => self.ended(id),
        }
    }

    fn change(&self, id: TaskId, verb: TaskVerb) -> Result<Answer, Error> {
        loop {
            let Some(found) = places::find(self.pool.layout(), id)? else {
                let ended = self.ended(id)?;
                return Ok(ended.map_or(Answer::Unknown, |ended| Answer::NotThere(ended.state)));
            };
            match self.apply(&found, verb)? {
                Change::Done => return Ok(Answer::Done),
                Change::Moved => {}
                Change::Running { worker } if verb == TaskVerb::Cancel => {
                    return self.ask(&found, worker);
                }
                Change::Running { .. } | Change::NotThere { .. } => {
                    return Ok(Answer::NotThere(state_of(&found.place)));
                }
            }
        }
    }

    fn settle(&self, worker: &Name) -> Result<SettleAnswer, Error> {
        let Some(lease) = Lease::try_take(&self.pool, worker)? else {
            return Ok(SettleAnswer::Living);
        };
        let settler = Settler::new(&self.pool, &self.ledger, PATIENCE);
        let (mut settled, mut left) = (0, 0);
        let settling = settler.settle(&lease)?;
        for (_name, fate) in settling.fates {
            match fate? {
                Fate::Kept(_) => left += 1,
                Fate::Finished(_) | Fate::PutBack { .. } | Fate::Cancelled | Fate::Rejected(_) => {
                    settled += 1
                }
            }
        }
        settling.servers?;
        Ok(SettleAnswer::Dead { settled, left })
    }

    fn promote(&self, now: Moment) -> Result<u64, Error> {
        roll_forward::forward_all(self.pool.layout())?;
        crate::dir::submit::staging::sweep_incoming(&self.pool)?;
        if let Some(ender) = Ender::try_new(&self.pool, &self.ledger)? {
            ender.finish_all()?;
        }
        let mut promoter = self.promoter.lock().unwrap_or_else(PoisonError::into_inner);
        let mut moved = 0;
        for promotion in promoter.step(&self.ledger, now)? {
            match promotion {
                Promotion::Due(_)
                | Promotion::Ready { .. }
                | Promotion::Hopeless { .. }
                | Promotion::Rejected(..) => moved += 1,
                Promotion::Damaged(_) => {}
                Promotion::Failed(_, err) => return Err(err),
            }
        }
        Ok(moved)
    }
}

impl Claimed for DirClaim {
    fn task(&self) -> &Task {
        self.claim.task()
    }

    fn name(&self) -> TaskName {
        self.claim.name()
    }

    fn end(self, line: &Line) -> Result<(), (Self, Error)> {
        let Self { claim, ledger } = self;
        match claim.end(&ledger, line) {
            Ok(()) => Ok(()),
            Err(NotEnded { claim, error }) => Err((Self { claim: *claim, ledger }, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::dir::fixture::scratch;
    use crate::store::contract::exercise;

    #[test]
    fn a_store_that_is_a_directory_keeps_the_contract() {
        let (home, count) = (scratch(), Cell::new(0));
        exercise(|| {
            count.set(count.get() + 1);
            let root = home.path().join(count.get().to_string());
            DirStore::open(&root, Rules::default(), "contract".parse().unwrap()).unwrap()
        });
    }
}
