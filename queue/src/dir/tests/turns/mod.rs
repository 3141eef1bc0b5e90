//! Interleavings: workers, a brain and people in one pool, each a thread with a store of its own,
//! in every order of their steps up to a number of preemptions. See [`schedule`] for what a step is.

mod scenes;
mod schedule;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use shared::id::TaskId;
use shared::outcome::{Next, Outcome};
use shared::task::TaskName;
use shared::time::Moment;

use super::plug::{Notes, lines, put_right, settle, what_must_hold};
use crate::dir::claim::cursor::Pass;
use crate::dir::claim::one::Claim;
use crate::dir::find::places;
use crate::dir::fixture::{claim, cursor, end, ledger, name, pool_at, scratch};
use crate::dir::ledger::append::Ledger;
use crate::dir::operate::{Change, Ender, Reason};
use crate::dir::presence::lease::Lease;
use crate::dir::recover::promote::Promoter;
use crate::dir::signal::control::{self, ControlVerb, Message};
use crate::dir::{Pool, fault};
use crate::store::contract::line;
use crate::wire::lease_record::Record;
use crate::wire::retry::Verdict;
use schedule::{Act, Explored, Grain, explore};

/// What the jobs and the people saw, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// A job of this attempt started.
    Began(TaskName),
    /// It ended, or its worker was killed, and it with it.
    Over(TaskName),
    /// A person was told that the task is cancelled.
    Cancelled(TaskId),
}

/// One pool, and what was seen in it.
#[derive(Clone)]
struct World {
    pool: Pool,
    tasks: Arc<Mutex<Vec<TaskId>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    _home: Arc<tempfile::TempDir>,
}

impl World {
    fn new() -> Self {
        let home = scratch();
        let pool = pool_at(&home.path().join("pool"));
        Self { pool, tasks: Arc::default(), seen: Arc::default(), _home: Arc::new(home) }
    }

    fn submit(&self, spec: &str) -> TaskId {
        let id = crate::dir::fixture::submit(&self.pool, spec);
        self.tasks.lock().unwrap().push(id);
        id
    }

    fn saw(&self, seen: Seen) {
        self.seen.lock().unwrap().push(seen);
    }

    /// An actor in this world.
    fn actor(&self, act: impl FnOnce(&Self) + Send + 'static) -> Act {
        let world = self.clone();
        Box::new(move || act(&world))
    }

    /// A worker's look for work: claims one task and ends it.
    fn work(&self, worker: &str, ledger: &Ledger, verdict: Verdict) -> Result<(), crate::Error> {
        let mut cursor = cursor(&self.pool, worker);
        let pass = cursor.pass(&crate::dir::fixture::ANY, &mut |_note| {})?;
        let Pass::Claimed { claim, .. } = pass else { return Ok(()) };
        self.run(*claim, ledger, verdict)
    }

    fn run(&self, claim: Claim, ledger: &Ledger, verdict: Verdict) -> Result<(), crate::Error> {
        let name = claim.name();
        self.saw(Seen::Began(name));
        let line = line(claim.task(), name, verdict);
        // The job is over before its end is written down.
        self.saw(Seen::Over(name));
        claim.end(ledger, &line).map_err(|not| not.error)
    }

    /// A worker with a lease, from its start to its end, or to its death at this change.
    fn live(&self, worker: &str, dies_at: Option<u32>, verdict: Verdict) {
        let ledger = ledger(&self.pool, worker);
        let lease = Lease::wait(&self.pool, &name(worker)).unwrap();
        if let Some(changes) = dies_at {
            fault::pull_after(changes);
        }
        let lived = settle(&self.pool, &ledger, &lease)
            .and_then(|()| lease.write(&without_jobs(crate::dir::fixture::record(&lease, &ledger))))
            .and_then(|()| self.work(worker, &ledger, verdict));
        assert!(lived.is_ok() || dies_at.is_some(), "{lived:?}");
    }

    /// A brain's thread that waits for a worker's death, and settles its affairs.
    fn watch(&self, worker: &str, meddle: fn(Option<Record>) -> Option<Record>) {
        let ledger = ledger(&self.pool, "brain");
        let lease = Lease::wait_existing(&self.pool, &name(worker)).unwrap();
        let Some(lease) = lease else { return };
        if let Some(record) = meddle(lease.record().unwrap()) {
            lease.write(&record).unwrap();
        }
        settle(&self.pool, &ledger, &lease).unwrap();
    }

    /// What `queue cancel --no-wait` does.
    fn cancel(&self, id: TaskId) {
        let ledger = ledger(&self.pool, "queue");
        loop {
            let Some(found) = places::find(self.pool.layout(), id).unwrap() else { return };
            let change = {
                let ender = Ender::wait(&self.pool, &ledger).unwrap();
                ender.end(&found, Reason::Cancel).unwrap()
            };
            match change {
                Change::Done => return self.saw(Seen::Cancelled(id)),
                Change::Moved => {}
                Change::Running { worker } => {
                    let message = Message::new(ControlVerb::Cancel, "ann");
                    let layout = self.pool.layout();
                    return control::ask_about(layout, &worker, found.name, message).unwrap();
                }
                Change::NotThere { .. } => return,
            }
        }
    }

    fn promote(&self, who: &str) {
        let ledger = ledger(&self.pool, who);
        let later = Moment::now().plus_millis(600_000);
        let done = Promoter::new(&self.pool).step(&ledger, later).unwrap();
        let failed = |p: &crate::dir::recover::promote::Promotion| {
            matches!(p, crate::dir::recover::promote::Promotion::Failed(..))
        };
        assert!(!done.iter().any(failed), "{done:?}");
    }

    /// When all actors are over, and what they left was put right.
    fn check(&self) {
        put_right(&self.pool).unwrap();
        let acknowledged = self.tasks.lock().unwrap().clone();
        let notes = Notes { acknowledged, together: Vec::new() };
        what_must_hold(&self.pool, &notes);
        self.what_was_seen_makes_sense();
        self.everything_comes_to_one_end(&notes);
    }

    fn what_was_seen_makes_sense(&self) {
        let seen = self.seen.lock().unwrap();
        let mut runs: HashMap<TaskId, Option<TaskName>> = HashMap::new();
        let mut last: HashMap<TaskId, u32> = HashMap::new();
        for event in seen.iter() {
            match event {
                Seen::Began(name) => {
                    assert_eq!(runs.insert(name.id, Some(*name)).flatten(), None, "two at once");
                    let before = last.insert(name.id, name.attempt);
                    assert!(before.is_none_or(|before| before < name.attempt), "again: {seen:?}");
                    assert!(
                        !seen[..]
                            .iter()
                            .take_while(|e| *e != event)
                            .any(|e| matches!(e, Seen::Cancelled(id) if *id == name.id)),
                        "run after it was cancelled: {seen:?}"
                    );
                }
                Seen::Over(name) => drop(runs.insert(name.id, None)),
                Seen::Cancelled(id) => {
                    let lines =
                        crate::dir::ledger::search::lines_of(self.pool.layout(), *id).unwrap();
                    assert_eq!(lines.last().map(|line| line.outcome), Some(Outcome::Cancelled));
                }
            }
        }
    }

    /// What is left is run; then every task has ended once.
    fn everything_comes_to_one_end(&self, notes: &Notes) {
        let (mut cursor, ledger) = (cursor(&self.pool, "later"), ledger(&self.pool, "later"));
        self.promote("later");
        while let Some(claim) = claim(&mut cursor) {
            end(*claim, &ledger, Verdict::Succeeded);
            self.promote("later");
        }
        let lines = lines(&self.pool);
        for id in &notes.acknowledged {
            let ends = |next| lines.iter().filter(|b| b.id == *id && b.next == next).count();
            let found = places::find(self.pool.layout(), *id).unwrap();
            let failed = found.as_ref().is_some_and(|found| found.place.state() == "failed");
            let held = found.as_ref().is_some_and(|found| found.place.state() == "held");
            let count = ends(Next::End) + usize::from(failed) + usize::from(held);
            assert_eq!(count, 1, "{id} is {found:?}: {lines:?}");
        }
    }
}

/// As if the machine had been started since: there are no jobs here, and looking for their
/// processes a thousand times takes long.
fn without_jobs(mut record: Record) -> Record {
    record.process.boot = "another start".to_owned();
    record
}

/// Plays all orders of a scene; there must be at least so many.
fn play(preemptions: u32, grain: Grain, scene: &dyn Fn(&World) -> Vec<Act>) -> Explored {
    let explored = explore(preemptions, grain, &|| {
        let world = World::new();
        let acts = scene(&world);
        (acts, Box::new(move || world.check()))
    });
    println!("{explored:?} with at most {preemptions} preemptions, {grain:?}");
    explored
}
