//! The plug: a scene is played again and again, and each time it is cut off one change later (or
//! one change fails); then the world is restarted, and what must hold is checked.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use rustix::io::Errno;
use shared::id::TaskId;
use shared::outcome::Next;
use shared::time::Moment;

use crate::Error;
use crate::dir::batch::roll_forward;
use crate::dir::disk::listing;
use crate::dir::disk::place::Found;
use crate::dir::fixture::{all_places, claim, cursor, end, ledger, name, pool_at, scratch};
use crate::dir::ledger::append::Ledger;
use crate::dir::ledger::follow::Follower;
use crate::dir::operate::Ender;
use crate::dir::presence::lease::{self, Lease};
use crate::dir::recover::promote::Promoter;
use crate::dir::recover::reconcile;
use crate::dir::recover::settle::{Patience, Settler};
use crate::dir::{Pool, Rules, fault};
use crate::wire::ledger_line::Brief;
use crate::wire::retry::Verdict;

/// What is promised so far.
#[derive(Debug, Default)]
pub(in crate::dir) struct Notes {
    /// Must be somewhere, or have ended.
    pub(in crate::dir) acknowledged: Vec<TaskId>,
    /// Must be there all, or not at all.
    pub(in crate::dir) together: Vec<TaskId>,
}

/// What is cut off. Says what it promised.
pub(in crate::dir) type Act<'a, T> =
    dyn Fn(&Pool, &Ledger, T, &mut Notes) -> Result<(), Error> + 'a;

/// A scene: what was there before, and what is cut off.
pub(in crate::dir) struct Scene<'a, T> {
    pub(in crate::dir) prepare: &'a dyn Fn(&Pool, &mut Notes) -> T,
    pub(in crate::dir) act: &'a Act<'a, T>,
    /// What must hold beside the rest, after the restart. Told whether the act went through.
    pub(in crate::dir) check: &'a dyn Fn(&Pool, &Notes, Acted),
}

/// What the act itself said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dir) enum Acted {
    Through,
    /// Everything stopped.
    Died,
    /// One change failed, and the act said so.
    Failed,
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    /// The process dies.
    Dies,
    /// The power is cut, too: history is compared with the places at the restart.
    Power,
    /// The process dies, and so does the next one while it recovers.
    DiesTwice,
    Error(Errno),
}

/// What must hold after the restart, whatever the scene.
pub(super) type Holds = fn(&Pool, &Notes);

/// Plays the scene with every cut at every change.
pub(in crate::dir) fn play<T>(scene: &Scene<'_, T>) {
    play_where(scene, what_must_hold);
}

/// The same, for a scene after which something else must hold.
pub(super) fn play_where<T>(scene: &Scene<'_, T>, holds: Holds) {
    use Errno as E;
    for cut in [
        Cut::Dies,
        Cut::Power,
        Cut::DiesTwice,
        Cut::Error(E::NOSPC),
        Cut::Error(E::IO),
        Cut::Error(E::ACCESS),
    ] {
        let mut n = 0;
        while play_once(scene, holds, cut, n) {
            n += 1;
            assert!(n < 1000, "the scene does not end");
        }
        assert!(n > 0, "nothing was changed");
    }
}

/// Returns whether something was cut.
fn play_once<T>(scene: &Scene<'_, T>, holds: Holds, cut: Cut, n: u32) -> bool {
    let home = scratch();
    let root = home.path().join("pool");
    let pool = pool_at(&root);
    let mut notes = Notes::default();
    let prepared = (scene.prepare)(&pool, &mut notes);
    match cut {
        Cut::Dies | Cut::Power | Cut::DiesTwice => fault::pull_after(n),
        Cut::Error(errno) => fault::fail_at(n, errno),
    }
    let acted = (scene.act)(&pool, &ledger(&pool, "act"), prepared, &mut notes);
    let what = fault::what_failed();
    fault::plug_in();
    let acted = match (acted, cut) {
        (Ok(()), _) => Acted::Through,
        (Err(_), Cut::Dies | Cut::Power | Cut::DiesTwice) => Acted::Died,
        (Err(_), Cut::Error(_)) => Acted::Failed,
    };
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        if matches!(cut, Cut::DiesTwice) {
            fault::pull_after((n * 7 + 3) % 41);
            let _dies_too = recover(&pool_at_rest(&root), cut);
            fault::plug_in();
        }
        let pool = pool_at(&root);
        recover(&pool, cut).unwrap();
        holds(&pool, &notes);
        (scene.check)(&pool, &notes, acted);
        goes_on(&pool);
    }));
    if let Err(panic) = told {
        eprintln!(
            "{cut:?} at change {n} ({what:?}), the act: {acted:?}; kept in {}",
            home.keep().display()
        );
        std::panic::resume_unwind(panic);
    }
    what.is_some()
}

fn pool_at_rest(root: &std::path::Path) -> Pool {
    Pool::open(root, Rules::default()).unwrap()
}

/// What is done when the world starts again.
fn recover(pool: &Pool, cut: Cut) -> Result<(), Error> {
    if matches!(cut, Cut::Power) {
        reconcile::reconcile(pool)?;
    }
    put_right(pool)
}

/// What the brain does again and again.
pub(super) fn put_right(pool: &Pool) -> Result<(), Error> {
    roll_forward::forward_all(pool.layout())?;
    crate::dir::submit::staging::sweep_incoming(pool)?;
    let ledger = ledger(pool, "recovery");
    let mut workers = lease::workers(pool.layout())?;
    workers.extend(listing::holders(pool.layout())?);
    for worker in workers {
        if let Some(lease) = Lease::try_take(pool, &worker)? {
            settle(pool, &ledger, &lease)?;
        }
    }
    Ender::wait(pool, &ledger)?.finish_all()?;
    Ok(())
}

pub(super) fn everything(pool: &Pool) -> Vec<Found> {
    let mut all = Vec::new();
    for place in all_places(pool) {
        let names = listing::tasks_in(&place.dir(pool.layout())).unwrap();
        assert_eq!(names.foreign, [] as [std::path::PathBuf; 0]);
        all.extend(names.tasks.into_iter().map(|name| Found { place: place.clone(), name }));
    }
    all
}

pub(super) fn lines(pool: &Pool) -> Vec<Brief> {
    Follower::from_start().poll(pool.layout()).unwrap()
}

pub(super) fn what_must_hold(pool: &Pool, notes: &Notes) {
    let left = listing::entries(&pool.layout().rejected()).unwrap();
    assert!(left.is_empty(), "rejected: {left:?}");
    what_must_hold_but_for_copies(pool, notes);
}

/// The same, where a copy of a task may have been put aside.
pub(super) fn what_must_hold_but_for_copies(pool: &Pool, notes: &Notes) {
    let layout = pool.layout();
    for dir in [layout.incoming(), layout.publishing()] {
        let left = listing::entries(&dir).unwrap();
        assert!(left.is_empty(), "left in {}: {left:?}", dir.display());
    }
    let mut places: HashMap<TaskId, Found> = HashMap::new();
    for found in everything(pool) {
        assert!(!["processing", "ending"].contains(&found.place.state()), "left: {found:?}");
        let task = found.read(layout).unwrap().expect("it is there");
        assert_eq!(task.id, found.name.id);
        if let Some(other) = places.insert(found.name.id, found) {
            panic!("doubled: {other:?} and {:?}", places[&other.name.id]);
        }
    }
    let mut last: HashMap<TaskId, Brief> = HashMap::new();
    for brief in lines(pool) {
        if let Some(other) = last.get(&brief.id) {
            let same = (other.outcome, other.next, other.next_name)
                == (brief.outcome, brief.next, brief.next_name);
            assert!(other.attempt != brief.attempt || same, "two ends: {other:?}, {brief:?}");
            if other.attempt >= brief.attempt {
                continue;
            }
        }
        last.insert(brief.id, brief);
    }
    for (id, brief) in &last {
        follows(brief, places.get(id));
    }
    let there = |id: &TaskId| {
        places.contains_key(id) || last.get(id).is_some_and(|brief| is_history(brief.next))
    };
    for id in &notes.acknowledged {
        assert!(there(id), "lost: {id}");
    }
    let count = notes.together.iter().filter(|id| there(id)).count();
    assert!(count == 0 || count == notes.together.len(), "{count} of {}", notes.together.len());
}

/// Which attempts have ended.
pub(super) fn ends(pool: &Pool) -> Vec<(TaskId, u32)> {
    lines(pool).iter().map(|brief| (brief.id, brief.attempt)).collect()
}

/// Life goes on: all that can run is run, no attempt twice, and then has ended.
pub(super) fn goes_on(pool: &Pool) {
    let mut ended: BTreeSet<(TaskId, u32)> = ends(pool).into_iter().collect();
    let ledger = ledger(pool, "later");
    let later = Moment::now().plus_millis(3_600_000);
    Promoter::new(pool).step(&ledger, later).unwrap();
    let mut cursor = cursor(pool, "later");
    while let Some(claim) = claim(&mut cursor) {
        let name = claim.name();
        assert!(ended.insert((name.id, name.attempt)), "{name} is run twice");
        end(*claim, &ledger, Verdict::Succeeded);
    }
    for found in everything(pool) {
        let state = found.place.state();
        assert!(["held", "waiting", "failed", "delayed"].contains(&state), "nobody runs {found:?}");
    }
}

/// Whether nothing of the task is left where tasks are.
fn is_history(next: Next) -> bool {
    matches!(next, Next::End | Next::Rejected)
}

/// What the last line about a task says was done.
fn follows(brief: &Brief, found: Option<&Found>) {
    let state = found.map(|found| (found.place.state(), found.name));
    let Some((state, name)) = state else {
        assert!(is_history(brief.next), "lost after its last line: {brief:?}");
        return;
    };
    if name.attempt > brief.next_name.attempt {
        assert_eq!(brief.next, Next::Failed, "only a retried task is further on than its line");
        return;
    }
    assert_eq!(name, brief.next_name, "attempt numbers only grow");
    match brief.next {
        Next::End | Next::Rejected => panic!("it has ended, and is {state}: {brief:?}"),
        Next::Failed => assert_eq!(state, "failed"),
        Next::Pending => assert_eq!(state, "pending"),
        Next::Delayed(_) => assert!(["delayed", "pending", "held"].contains(&state), "{state}"),
    }
}

/// The lease of the worker of a scene; dropped when it dies.
pub(super) fn lease_of(pool: &Pool, worker: &str, ledger: &Ledger) -> Lease {
    let lease = Lease::try_take(pool, &name(worker)).unwrap().unwrap();
    crate::dir::fixture::sign(&lease, ledger);
    lease
}

/// Settles a dead worker's affairs; the first error comes back.
pub(super) fn settle(pool: &Pool, ledger: &Ledger, lease: &Lease) -> Result<(), Error> {
    let patience = Patience { grace: Duration::ZERO, give_up: Duration::ZERO };
    let settled = Settler::new(pool, ledger, patience).settle(lease)?;
    settled.fates.into_iter().try_for_each(|(_name, fate)| fate.map(|_fate| ()))?;
    settled.servers.map(|_ended| ())
}
