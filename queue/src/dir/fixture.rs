//! What tests of the directory store share: pools, tasks, workers, and how they end.

use std::path::Path;

use shared::id::TaskId;
use shared::name::Name;
use shared::task::{Class, TaskName};
use tempfile::TempDir;

use super::claim::cursor::{Cursor, Pass, Wish};
use super::claim::one::{self, Claim, NotEnded};
use super::disk::listing::PassedOver;
use super::disk::place::Place;
use super::find::places;
use super::ledger::append::Ledger;
use super::presence::lease::{Lease, this_process};
use super::recover::reconcile::ready;
use super::submit::one::Submitter;
use super::{Pool, Privacy, Rules};
use crate::store::contract::{line, task};
use crate::wire::lease_record::Record;
use crate::wire::ledger_line::{Line, Writer};
use crate::wire::retry::Verdict;

/// A directory for a test: in memory where the machine has such a place, for a thousand crashes
/// flush ten thousand times.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_no_such_place| tempfile::tempdir()).unwrap()
}

pub(crate) const ALL: &[Class] = &[Class::Resource, Class::Script, Class::Cpu, Class::Llm];

pub(crate) const ANY: Wish<'_> = Wish { classes: ALL, open: &|_lane| true };

pub(crate) fn pool_at(root: &Path) -> Pool {
    ready(Pool::create(root, Rules::default(), Privacy::Owner).unwrap()).unwrap()
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn ledger(pool: &Pool, writer: &str) -> Ledger {
    Ledger::new(pool.layout().clone(), Writer::new(name(writer)))
}

pub(crate) fn submit(pool: &Pool, spec: &str) -> TaskId {
    let task = task(spec);
    Submitter::new(pool).unwrap().submit(&task).unwrap();
    task.id
}

pub(crate) fn cursor(pool: &Pool, worker: &str) -> Cursor {
    Cursor::new(pool, &name(worker), ledger(pool, worker).into())
}

pub(crate) fn claim(cursor: &mut Cursor) -> Option<Box<Claim>> {
    match cursor.pass(&ANY, &mut |_note| {}).unwrap() {
        Pass::Claimed { claim, .. } => Some(claim),
        Pass::Nothing { .. } => None,
    }
}

pub(crate) fn end(claim: Claim, ledger: &Ledger, verdict: Verdict) {
    let line = line(claim.task(), claim.name(), verdict);
    claim.end(ledger, &line).unwrap();
}

/// Ends several attempts as workers do: with one flush, and then one after the other.
pub(crate) fn end_all(ledger: &Ledger, ends: Vec<(Box<Claim>, Line)>) -> Vec<Result<(), NotEnded>> {
    let recorded = one::record_all(ledger, ends);
    recorded.into_iter().map(|end| end.and_then(one::Recorded::carry_out)).collect()
}

/// Says in a worker's lease who it is, as a worker does when it starts.
pub(crate) fn sign(lease: &Lease, ledger: &Ledger) {
    lease.write(&record(lease, ledger)).unwrap();
}

pub(crate) fn record(lease: &Lease, ledger: &Ledger) -> Record {
    let (worker, writer) = (lease.worker().clone(), ledger.writer().clone());
    let since = shared::time::Moment::now();
    let working = Record::of(worker, this_process(), writer.life.clone(), since);
    Record { writers: vec![writer], ..working }
}

/// All places, each of which can be looked into.
pub(crate) fn all_places(pool: &Pool) -> Vec<Place> {
    let mut passed_over = PassedOver::default();
    let places = places::all(pool.layout(), &mut passed_over).unwrap();
    assert!(passed_over.is_empty(), "{passed_over:?}");
    places
}

/// The state of a task that must be somewhere, and its name there.
pub(crate) fn state(pool: &Pool, id: TaskId) -> Option<(&'static str, TaskName)> {
    places::find(pool.layout(), id).unwrap().map(|found| (found.place.state(), found.name))
}
