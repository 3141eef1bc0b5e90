//! `queue wait`: until tasks have ended. The ledger is followed; a task whose end stands there may
//! have been given another chance since, so what failed is looked up once.

use std::collections::{BTreeMap, HashMap, HashSet};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use queue::Pool;
use queue::dir::disk::listing::{self, PassedOver};
use queue::dir::disk::place::Place;
use queue::dir::find::places;
use queue::dir::layout::Shelf;
use queue::dir::ledger::follow::Follower;
use queue::dir::ledger::search::recorded_end;
use queue::dir::lookup::{self, Standing};
use serde_json::json;
use shared::exit;
use shared::id::TaskId;
use shared::outcome::{Cause, Outcome};
use shared::quantity::{Span, counted};

use crate::cmd::out::Tone;
use crate::cmd::watch::{Deadline, Watch};
use crate::cmd::{App, Stop, end_on_interrupt, note, warn};

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
        while !ends.open.is_empty() && !deadline.is_over() {
            bar.set_position((ids.len() - ends.open.len()) as u64);
            watch.wait(deadline);
            ends.look(&pool)?;
        }
        bar.finish_and_clear();
        say(app, &ids, &ends)
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
}

/// Which tasks have ended, and how; and which have not.
pub(in crate::cmd) struct Ends {
    pub(in crate::cmd) open: HashSet<TaskId>,
    pub(in crate::cmd) ended: HashMap<TaskId, End>,
    follower: Follower,
}

/// Up to so many tasks are looked up one by one; for more, all places and all history are read.
const FEW: usize = 32;

impl Ends {
    /// What is known now, and from now on.
    pub(in crate::cmd) fn new(pool: &Pool, ids: HashSet<TaskId>) -> Result<Self, Stop> {
        // Before the look-up, so that no end falls between the two.
        let follower = Follower::from_now(pool.layout())?;
        let mut ends = Self { open: ids, ended: HashMap::new(), follower };
        if ends.open.len() <= FEW {
            for id in ends.open.clone() {
                let Some(standing) = lookup::standing(pool.layout(), id)? else {
                    return Err(Stop::no_match(format!("no task `{id}`")));
                };
                if let Some(end) = end_of(pool, id, &standing)? {
                    ends.end(id, end);
                }
            }
        } else {
            ends.follower = Follower::from_start();
            ends.look(pool)?;
            ends.reopen_retried(pool)?;
        }
        Ok(ends)
    }

    fn end(&mut self, id: TaskId, end: End) {
        if self.open.remove(&id) {
            self.ended.insert(id, end);
        }
    }

    /// Reads what history has got since the last look.
    pub(in crate::cmd) fn look(&mut self, pool: &Pool) -> Result<(), Stop> {
        let Self { open, ended, follower } = self;
        follower.follow(pool.layout(), |brief| {
            if let Some(outcome) = brief.end_of_task()
                && open.remove(&brief.id)
            {
                ended.insert(brief.id, End { outcome, cause: brief.cause });
            }
        })?;
        for damaged in follower.take_damaged() {
            if damaged.task.is_none_or(|id| open.contains(&id)) {
                warn(damaged.error("whether a task that is waited for has ended").to_string());
            }
        }
        Ok(())
    }

    /// A task that failed and was retried since has not ended.
    fn reopen_retried(&mut self, pool: &Pool) -> Result<(), Stop> {
        let layout = pool.layout();
        let failed = |end: &End| end.outcome == Outcome::Failed;
        if !self.ended.values().any(failed) {
            return Ok(());
        }
        let mut passed_over = PassedOver::default();
        for place in places::all(layout, &mut passed_over)? {
            if matches!(place, Place::Shelf { shelf: Shelf::Failed, .. }) {
                continue;
            }
            let names = passed_over.or_pass_over(listing::tasks_in(&place.dir(layout)))?;
            for name in names.unwrap_or_default().tasks {
                if self.ended.get(&name.id).is_some_and(failed) {
                    self.ended.remove(&name.id);
                    self.open.insert(name.id);
                }
            }
        }
        for err in passed_over.errors() {
            warn(format!("{err}; a task that failed and was retried since may be there"));
        }
        Ok(())
    }
}

/// How a task ended, if it has: also where its file has not been moved yet.
fn end_of(pool: &Pool, id: TaskId, standing: &Standing) -> Result<Option<End>, Stop> {
    Ok(match (standing, standing.ended()) {
        (Standing::Ended(line), _) => Some(End { outcome: line.outcome, cause: line.cause }),
        (Standing::There(_), Some(outcome)) => Some(End { outcome, cause: last_cause(pool, id)? }),
        (Standing::There(found), None) => recorded_end(pool.layout(), found)?
            .map(|line| End { outcome: line.outcome, cause: line.cause }),
    })
}

fn last_cause(pool: &Pool, id: TaskId) -> Result<Option<Cause>, Stop> {
    let lines = queue::dir::ledger::search::lines_of(pool.layout(), id)?;
    Ok(lines.last().and_then(|line| line.cause))
}

fn say(app: &mut App, ids: &[TaskId], ends: &Ends) -> Result<u8, Stop> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for end in ends.ended.values() {
        *counts.entry(lookup::ended_state(end.outcome)).or_default() += 1;
    }
    let count = |state: &str| counts.get(state).copied().unwrap_or(0);
    let (succeeded, open) = (count("succeeded"), ends.open.len());
    let end_of = |id: &TaskId| ends.ended.get(id);
    if app.json() {
        let tasks = ids.iter().map(|id| {
            let end = end_of(id);
            json!({
                "id": id,
                "state": end.map(|end| lookup::ended_state(end.outcome)),
                "cause": end.and_then(|end| end.cause),
            })
        });
        let fields = json!({
            "tasks": tasks.collect::<Vec<_>>(),
            "succeeded": succeeded, "failed": count("failed"), "cancelled": count("cancelled"),
            "open": open, "timed_out": open > 0,
        });
        app.out.json("wait", &fields)?;
    } else {
        for id in ids {
            let Some(end) = end_of(id).filter(|end| end.outcome != Outcome::Succeeded) else {
                continue;
            };
            let cause = end.cause.filter(|cause| *cause != Cause::Cancelled);
            let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
            let state = app.out.paint(Tone::Bad, lookup::ended_state(end.outcome));
            app.out.line(format!("{} {state}{cause}", id.short()))?;
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
