//! `queue wait`: until tasks have ended. The ledger is followed; a task whose end stands there may
//! have been given another chance since, so what failed is looked up once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use queue::Pool;
use queue::dir::disk::listing::PassedOver;
use queue::dir::disk::place::{Found, Place};
use queue::dir::find::{gone, places};
use queue::dir::layout::Shelf;
use queue::dir::ledger::follow::Follower;
use queue::dir::ledger::search;
use queue::dir::lookup;
use queue::dir::operate;
use queue::wire::brake::{Brake, BrakeKey};
use queue::wire::ledger_line::Brief;
use serde_json::json;
use shared::exit;
use shared::id::TaskId;
use shared::llm::Flaw;
use shared::outcome::{Cause, Outcome};
use shared::quantity::{Span, counted};
use shared::time::Moment;

use super::flaws::Flaws;
use crate::cmd::out::Tone;
use crate::cmd::watch::{Deadline, Watch};
use crate::cmd::{App, GONE, Stop, end_on_interrupt, note, warn};

/// Wait until tasks have ended; exit 0 if all succeeded, 100 if not, 75 on timeout
#[derive(Args, Debug)]
pub(crate) struct Wait {
    /// Tasks, or batches by their id or key; - reads them from stdin
    #[arg(value_name = "ID|BATCH|-", required = true)]
    ids: Vec<String>,
    /// Wait no longer than this
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Span>,
}

impl Wait {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        end_on_interrupt();
        let deadline = Deadline::after(self.timeout.map(|span| span.0));
        let (pool, _resolved) = app.open()?;
        let ids = app.tasks(&pool, &self.ids)?;
        let mut ends = Ends::new(&pool, ids.iter().copied().collect())?;
        let bar = bar(ids.len() as u64);
        let watch = Watch::on(&[&pool.layout().ledger()]);
        let (mut brakes, mut held) = (Brakes::default(), HeldTasks::default());
        brakes.look(&pool, &ends.open)?;
        held.look(&pool, &ends.open)?;
        while !ends.are_all(&pool)? && !deadline.is_over() {
            bar.set_position((ids.len() - ends.open.len()) as u64);
            watch.wait(deadline);
            ends.look(&pool)?;
            brakes.look(&pool, &ends.open)?;
            held.look(&pool, &ends.open)?;
        }
        if !ends.open.is_empty() {
            ends.look_again(&pool)?;
        }
        bar.finish_and_clear();
        say(app, &ids, &ends)
    }
}

/// Brakes that hold what is waited for: each is told of on stderr, at once and once.
#[derive(Default)]
struct Brakes {
    told: HashMap<BrakeKey, Moment>,
}

impl Brakes {
    fn look(&mut self, pool: &Pool, open: &HashSet<TaskId>) -> Result<(), Stop> {
        let all = pool.brakes().all()?;
        let since = |brake: &Brake| brake.held.as_ref().map(|held| held.since);
        let is_new = |brake: &Brake| since(brake) != self.told.get(&brake.key).copied();
        if all.values().any(is_new) {
            for held in operate::brakes_of(pool, open)?.iter().filter(|held| is_new(&held.brake)) {
                warn(&held.brake.reason().text);
            }
        }
        let held = all.values().filter_map(|brake| Some((brake.key.clone(), since(brake)?)));
        self.told = held.collect();
        Ok(())
    }
}

/// Tasks that are waited for and that a person holds: said on stderr, when there are more of them.
#[derive(Default)]
struct HeldTasks {
    told: usize,
    looked: Option<Instant>,
}

/// They are looked for no more often than this.
const HELD_PAUSE: Duration = Duration::from_secs(1);

impl HeldTasks {
    fn look(&mut self, pool: &Pool, open: &HashSet<TaskId>) -> Result<(), Stop> {
        if self.looked.is_some_and(|looked| looked.elapsed() < HELD_PAUSE) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        // What cannot be listed is told of by whoever counts the tasks.
        let held = places::held(pool.layout(), &mut PassedOver::default())?;
        let held: Vec<TaskId> =
            held.into_iter().map(|name| name.id).filter(|id| open.contains(id)).collect();
        if held.len() > self.told {
            let (tasks, are) =
                (counted(held.len(), "task"), if held.len() == 1 { "is" } else { "are" });
            let one = held[0].short();
            warn(format!(
                "{tasks} that this waits for {are} held by a person, {one} for one: \
                 `queue release {one}` lets it run"
            ));
        }
        self.told = held.len();
        Ok(())
    }
}

/// Says how one task ended, unless all is well; the exit code for it.
pub(in crate::cmd) fn told(id: TaskId, outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Succeeded => exit::OK,
        Outcome::Failed | Outcome::Cancelled | Outcome::Returned => {
            note(format!("{} {}", id.short(), lookup::ended_state(outcome)));
            exit::TASK_FAILED
        }
    }
}

/// A bar on stderr, if that is a terminal.
pub(in crate::cmd) fn bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length).with_message("ended");
    match ProgressStyle::with_template("{msg} {pos} of {len} {bar:30} {elapsed}") {
        Ok(style) => bar.with_style(style),
        Err(_default_is_fine) => bar,
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cmd) struct End {
    pub(in crate::cmd) outcome: Outcome,
    pub(in crate::cmd) cause: Option<Cause>,
    pub(in crate::cmd) flaw: Option<Flaw>,
}

impl End {
    fn of(brief: &Brief, outcome: Outcome) -> Self {
        let flaw = brief.answer.and_then(|answer| answer.flaw);
        Self { outcome, cause: brief.cause, flaw }
    }
}

/// Which tasks have ended, and how; and which have not.
pub(in crate::cmd) struct Ends {
    pub(in crate::cmd) open: HashSet<TaskId>,
    pub(in crate::cmd) ended: HashMap<TaskId, End>,
    /// Those of them whose files somebody has removed before they ended: they count as failed.
    gone: HashSet<TaskId>,
    follower: Follower,
}

impl Ends {
    /// What is known now, and from now on: all are looked for at once, in the places and then in
    /// history, so that what ends in between is met in one of them or followed.
    pub(in crate::cmd) fn new(pool: &Pool, ids: HashSet<TaskId>) -> Result<Self, Stop> {
        let layout = pool.layout();
        // Before the look-up, so that no end falls between the two.
        let follower = Follower::from_now(layout)?;
        let mut passed_over = PassedOver::default();
        let there = places::find_some(layout, &ids, &mut passed_over)?;
        // Between the line about an end and what it says lies a flush, and may lie a crash.
        let may_have_ended = |id: &TaskId| match there.get(id).map(|found| &found.place) {
            Some(Place::Pending { .. } | Place::Delayed { .. }) => false,
            Some(Place::Shelf { shelf, .. }) => *shelf == Shelf::Failed,
            Some(Place::Processing { .. } | Place::Ending { .. }) | None => true,
        };
        let asked: HashSet<TaskId> = ids.iter().copied().filter(may_have_ended).collect();
        let lines = search::last_of(layout, &asked)?;
        let (ended, gone) = (HashMap::new(), HashSet::new());
        let mut ends = Self { open: ids, ended, gone, follower };
        for id in asked {
            match (there.get(&id), lines.last.get(&id)) {
                // Unless it is where nobody may look, or the line about it cannot be understood.
                (None, None) => {
                    passed_over.none_was()?;
                    lines.all_was_read()?;
                    return Err(Stop::no_match(format!("no task `{id}`")));
                }
                // It may have ended with an attempt whose line cannot be understood.
                (None, Some(_earlier)) if lines.damaged.contains_key(&id) => {
                    lines.all_was_read()?;
                }
                (found, brief) => ends.ended.extend(end_of(found, brief).map(|end| (id, end))),
            }
        }
        ends.open.retain(|id| !ends.ended.contains_key(id));
        let missed = ends.open.iter().copied().filter(|id| !there.contains_key(id)).collect();
        if passed_over.is_empty() {
            for id in gone::gone(layout, missed)? {
                // Nobody will ever run it: waiting for its end would never end.
                ends.open.remove(&id);
                ends.ended.insert(id, End { outcome: Outcome::Failed, cause: None, flaw: None });
                ends.gone.insert(id);
            }
        }
        Ok(ends)
    }

    /// Whether all have ended. What failed meanwhile may have been given another chance since:
    /// then it has not.
    pub(in crate::cmd) fn are_all(&mut self, pool: &Pool) -> Result<bool, Stop> {
        if self.open.is_empty() {
            self.look_again(pool)?;
        }
        Ok(self.open.is_empty())
    }

    /// Looks again for what did not succeed.
    fn look_again(&mut self, pool: &Pool) -> Result<(), Stop> {
        let failed = self.ended.iter().filter(|(_id, end)| end.outcome != Outcome::Succeeded);
        let failed: HashSet<TaskId> = failed.map(|(id, _end)| *id).collect();
        if !failed.is_empty() {
            let ends = Self::new(pool, failed)?;
            self.ended.extend(ends.ended);
            self.gone.extend(ends.gone);
            self.ended.retain(|id, _end| !ends.open.contains(id));
            self.open.extend(ends.open);
        }
        Ok(())
    }

    /// Reads what history has got since the last look.
    pub(in crate::cmd) fn look(&mut self, pool: &Pool) -> Result<(), Stop> {
        let Self { open, ended, follower, .. } = self;
        follower.follow(pool.layout(), |brief| {
            if let Some(outcome) = brief.end_of_task()
                && open.remove(&brief.id)
            {
                ended.insert(brief.id, End::of(&brief, outcome));
            }
        })?;
        for damaged in follower.take_damaged() {
            if damaged.task.is_none_or(|id| open.contains(&id)) {
                warn(damaged.error("whether a task that is waited for has ended").to_string());
            }
        }
        Ok(())
    }
}

/// How a task ended, if it has, from where it is and the last line about it.
fn end_of(found: Option<&Found>, last: Option<&Brief>) -> Option<End> {
    let is_failed =
        |found: &Found| matches!(found.place, Place::Shelf { shelf: Shelf::Failed, .. });
    let recorded = last.and_then(|brief| {
        // A retried one has the line of its attempt before.
        let is_newer = found.is_none_or(|found| brief.attempt >= found.name.attempt);
        let outcome = brief.end_of_task().filter(|_outcome| is_newer)?;
        Some(End::of(brief, outcome))
    });
    match found {
        Some(found) if is_failed(found) => {
            let cause = last.and_then(|brief| brief.cause);
            Some(End { outcome: Outcome::Failed, cause, flaw: None })
        }
        Some(_) | None => recorded,
    }
}

fn say(app: &mut App, ids: &[TaskId], ends: &Ends) -> Result<u8, Stop> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for end in ends.ended.values() {
        *counts.entry(lookup::ended_state(end.outcome)).or_default() += 1;
    }
    let count = |state: &str| counts.get(state).copied().unwrap_or(0);
    let (succeeded, open) = (count("succeeded"), ends.open.len());
    let mut flaws = Flaws::default();
    let good = ends.ended.values().filter(|end| end.outcome == Outcome::Succeeded);
    good.filter_map(|end| end.flaw).for_each(|flaw| flaws.add(flaw));
    let end_of = |id: &TaskId| ends.ended.get(id);
    if app.json() {
        let tasks = ids.iter().map(|id| {
            let end = end_of(id);
            json!({
                "id": id,
                "state": end.map(|end| lookup::ended_state(end.outcome)),
                "cause": end.and_then(|end| end.cause),
                "flaw": end.and_then(|end| end.flaw),
            })
        });
        let fields = json!({
            "tasks": tasks.collect::<Vec<_>>(),
            "succeeded": succeeded, "failed": count("failed"), "cancelled": count("cancelled"),
            "open": open, "timed_out": open > 0, "flaws": flaws.to_json(),
        });
        app.out.json("wait", &fields)?;
    } else {
        for id in ids {
            if ends.gone.contains(id) {
                warn(format!("{}: {GONE}", id.short()));
            }
            let Some(end) = end_of(id).filter(|end| end.outcome != Outcome::Succeeded) else {
                continue;
            };
            let cause = end.cause.filter(|cause| *cause != Cause::Cancelled);
            let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
            let state = app.out.paint(Tone::Bad, lookup::ended_state(end.outcome));
            app.out.line(format!("{} {state}{cause}", id.short()))?;
        }
        if flaws.count() > 0 {
            warn(format!("{succeeded} succeeded{}", flaws.in_brackets()));
        }
        if open > 0 {
            note(format!("timeout: {open} of {} not ended", counted(ids.len(), "task")));
        }
    }
    let all = succeeded == ids.len() as u64;
    Ok(match (open, all) {
        (1.., _) => exit::TRY_LATER,
        (0, true) => exit::OK,
        (0, false) => exit::TASK_FAILED,
    })
}
