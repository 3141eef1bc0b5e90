//! After a power cut: the ledger's lines were flushed, the renames that followed perhaps not. So
//! whoever opens the pool first after the machine started carries out again what the last lines
//! say. Nobody claims before that.

use std::collections::{BTreeMap, HashMap, HashSet};

use shared::id::TaskId;
use shared::outcome::Next;
use shared::task::TaskName;
use shared::time::Moment;

use crate::Error;
use crate::dir::Pool;
use crate::dir::batch::roll_forward;
use crate::dir::disk::lane_files::{ensure_lane, is_newer, read_requirements};
use crate::dir::disk::listing::{self, PassedOver};
use crate::dir::disk::lock::{self, Holder};
use crate::dir::disk::place::{Found, Place};
use crate::dir::disk::reject;
use crate::dir::find::places;
use crate::dir::layout::{Layout, Shelf};
use crate::dir::ledger::carry_out;
use crate::dir::ledger::follow::Follower;
use crate::dir::presence::lease;
use crate::wire::lane::LaneName;
use crate::wire::lease_record::Process;
use crate::wire::ledger_line::Brief;

/// How much there was to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Ledger lines that were looked at.
    pub lines: u64,
    /// Tasks that were put right.
    pub moved: u64,
    /// Tasks and directories that could not be looked at, or not be put right, and are left as they
    /// are. It is not done again for them: by then others have moved tasks on from where they were.
    pub left: u64,
}

/// Lines this much older than the newest were carried out, and written to the disk, long before
/// the power went.
const WINDOW_SECONDS: f64 = 900.0;

/// With more lines in hand than that, those that have become too old are dropped.
const MANY: usize = 10_000;

/// For each machine, by its id or else its name, the start of it on which it was last done.
type Boots = BTreeMap<String, String>;

/// A pool that may be changed, by this process: it has its marker, and after a power cut history and
/// places are compared first.
pub fn ready(mut pool: Pool) -> Result<Pool, Error> {
    pool.mark()?;
    once_per_boot(&pool)?;
    Ok(pool)
}

/// Compares history and places, once per start of this machine. `None` when it was done already.
pub(in crate::dir) fn once_per_boot(pool: &Pool) -> Result<Option<Reconciled>, Error> {
    let Process { boot, host, machine, .. } = lease::this_process();
    // Under whichever name: containers of one machine have several, and start with it.
    let done = |boots: &Boots| boots.values().any(|done| *done == boot);
    let path = pool.layout().reconcile_lock();
    if lock::read_record::<Boots>(&path)?.is_some_and(|boots| done(&boots)) {
        return Ok(None);
    }
    let lock = pool.reconcile_lock()?;
    let mut boots: Boots = lock.record()?.unwrap_or_default();
    if done(&boots) {
        return Ok(None);
    }
    let reconciled = reconcile(pool)?;
    boots.insert(if machine.is_empty() { host } else { machine }, boot);
    lock.write_record(&boots)?;
    Ok(Some(reconciled))
}

/// Compares history and places. What cannot be looked at (a directory without permission, a damaged
/// line) does not keep the rest from it; a change that fails ends it, to be begun again.
pub fn reconcile(pool: &Pool) -> Result<Reconciled, Error> {
    let layout = pool.layout();
    let mut passed_over = PassedOver::default();
    // Whoever looks for a task of such a batch tries that again.
    passed_over.or_pass_over(roll_forward::forward_all(layout))?;
    let lines = last_lines(layout)?;
    let mut reconciled = Reconciled { lines: lines.len() as u64, ..Reconciled::default() };
    for (id, copies) in everything(pool, &mut passed_over)? {
        match put_right(pool, lines.get(&id), copies) {
            Ok(moved) => reconciled.moved += u64::from(moved),
            Err(Error::Garbled { .. }) => reconciled.left += 1,
            Err(err) => return Err(err),
        }
    }
    for lane in passed_over.or_pass_over(listing::lanes(layout))?.unwrap_or_default() {
        mend_lane(pool, &lane)?;
    }
    reconciled.left += passed_over.errors().len() as u64;
    Ok(reconciled)
}

/// Carries out again what the last line about a task says. Whether there was anything to do.
fn put_right(pool: &Pool, brief: Option<&Brief>, copies: Vec<Found>) -> Result<bool, Error> {
    let layout = pool.layout();
    let found = keep_furthest(pool, copies)?;
    let Some(brief) = brief else { return Ok(false) };
    if !is_undone(brief, &found) || is_held_by_living(pool, &found)? {
        return Ok(false);
    }
    let line = crate::dir::ledger::search::line_of(layout, brief.id, brief.attempt, None)?;
    let Some(line) = line else { return Ok(false) };
    carry_out::carry_out(pool, &found.path(layout), &line.task, &line)?;
    Ok(true)
}

/// Who finds a lane's file does not flush it, and whoever wrote it may have been about to: so a
/// task may be there without its lane's file, and nobody would ever take it. The file's content
/// follows from the task.
fn mend_lane(pool: &Pool, lane: &LaneName) -> Result<(), Error> {
    if read_requirements(pool.layout(), lane).is_ok() || is_newer(pool.layout(), lane)? {
        return Ok(());
    }
    let mut known = HashSet::new();
    let mut passed_over = PassedOver::default();
    for place in places::pending_places(pool.layout(), lane, &mut passed_over)? {
        let names = passed_over.or_pass_over(listing::tasks_in(&place.dir(pool.layout())))?;
        for name in names.unwrap_or_default().tasks {
            let found = Found { place: place.clone(), name };
            // What is garbled is put aside by whoever claims it.
            let Ok(Some(task)) = found.read(pool.layout()) else { continue };
            if ensure_lane(pool.layout(), &pool.requirements_of(&task), &mut known)? == *lane {
                return Ok(());
            }
            // Other limits hold now than when it was submitted.
            carry_out::to_pending(pool, &found.path(pool.layout()), &task, name)?;
        }
    }
    Ok(())
}

/// The last line about each task, of the last minutes before the end.
fn last_lines(layout: &Layout) -> Result<HashMap<TaskId, Brief>, Error> {
    let mut last: HashMap<TaskId, Brief> = HashMap::new();
    let mut newest = None::<Moment>;
    let is_recent = |brief: &Brief, newest: Option<Moment>| {
        newest.is_none_or(|newest| newest.seconds_since(brief.ended_at) <= WINDOW_SECONDS)
    };
    let mut enough = MANY;
    Follower::from_start().follow(layout, |brief| {
        newest = newest.max(Some(brief.ended_at));
        let known = last.get(&brief.id).is_some_and(|other| other.attempt >= brief.attempt);
        if !known && is_recent(&brief, newest) {
            last.insert(brief.id, brief);
        }
        if last.len() > enough {
            last.retain(|_id, brief| is_recent(brief, newest));
            enough = last.len().max(MANY) * 2;
        }
    })?;
    last.retain(|_id, brief| is_recent(brief, newest));
    Ok(last)
}

/// Whether the task is still where it was before the line was carried out.
fn is_undone(brief: &Brief, found: &Found) -> bool {
    if found.name.attempt > brief.attempt {
        return false;
    }
    let there = match (&found.place, brief.next) {
        (Place::Shelf { shelf: Shelf::Failed, .. }, Next::Failed)
        | (Place::Pending { .. } | Place::Processing { .. }, Next::Pending)
        | (Place::Delayed { .. }, Next::Delayed(_)) => found.name == brief.next_name,
        _ => false,
    };
    !there
}

fn is_held_by_living(pool: &Pool, found: &Found) -> Result<bool, Error> {
    match &found.place {
        Place::Processing { worker } => {
            Ok(lease::probe(pool.layout(), worker)? == Holder::Somebody)
        }
        Place::Pending { .. }
        | Place::Delayed { .. }
        | Place::Shelf { .. }
        | Place::Ending { .. } => Ok(false),
    }
}

fn everything(
    pool: &Pool,
    passed_over: &mut PassedOver,
) -> Result<HashMap<TaskId, Vec<Found>>, Error> {
    let mut all: HashMap<TaskId, Vec<Found>> = HashMap::new();
    for place in places::all(pool.layout(), passed_over)? {
        let names = passed_over.or_pass_over(listing::tasks_in(&place.dir(pool.layout())))?;
        for name in names.unwrap_or_default().tasks {
            all.entry(name.id).or_default().push(Found { place: place.clone(), name });
        }
    }
    Ok(all)
}

/// A rename that was half written may leave a task in two places: the one that is further on
/// stays, the other is put aside.
fn keep_furthest(pool: &Pool, mut copies: Vec<Found>) -> Result<Found, Error> {
    copies.sort_by_key(|found| (found.name.attempt, further(&found.place, found.name)));
    let furthest = copies.pop().expect("a task was met at least once");
    for copy in copies {
        let problem =
            format!("a second copy after a power cut; the task is {}", furthest.place.state());
        reject::reject(pool.layout(), &copy.path(pool.layout()), &problem)?;
    }
    Ok(furthest)
}

fn further(place: &Place, name: TaskName) -> (u32, u8) {
    let place = match place {
        Place::Shelf { shelf: Shelf::Waiting, .. } => 0,
        Place::Shelf { shelf: Shelf::Held, .. } => 1,
        Place::Delayed { .. } => 2,
        Place::Pending { .. } => 3,
        Place::Processing { .. } => 4,
        Place::Shelf { shelf: Shelf::Failed, .. } => 5,
        Place::Ending { .. } => 6,
    };
    (name.failures + name.deaths, place)
}
