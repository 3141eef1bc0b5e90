//! `queue retry`, `hold` and `release`: what a person does to tasks that nobody runs. Each is one
//! rename; all are looked for at once, and those that move meanwhile again. Whoever is stopped in the
//! middle has changed some of them; the same command goes on with the others.

use std::collections::{HashMap, HashSet};

use clap::Args;
use queue::dir::disk::listing::PassedOver;
use queue::dir::disk::place::Found;
use queue::dir::find::{gone, places};
use queue::dir::layout::Layout;
use queue::dir::ledger::search;
use queue::dir::lookup;
use queue::dir::operate::{self, Change, Mover};
use queue::wire::ledger_line::{Brief, Line};
use queue::{Error, Pool};
use serde_json::json;
use shared::event::Event;
use shared::exit;
use shared::id::TaskId;
use shared::outcome::Next;

use crate::cmd::{App, GONE, Stop, me, note};

/// Give tasks that failed another chance, with a clean slate
#[derive(Args, Debug)]
pub(crate) struct Retry {
    /// Tasks or batches; - reads them from stdin
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

/// Keep tasks from being run until they are released
#[derive(Args, Debug)]
pub(crate) struct Hold {
    /// Tasks or batches; - reads them from stdin
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

/// Let held tasks go where they belong
#[derive(Args, Debug)]
pub(crate) struct Release {
    /// Tasks or batches; - reads them from stdin
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

impl Retry {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        run(app, &self.ids, &RETRY)
    }
}

impl Hold {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        run(app, &self.ids, &HOLD)
    }
}

impl Release {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        run(app, &self.ids, &RELEASE)
    }
}

/// One of the three.
struct Verb {
    name: &'static str,
    done: &'static str,
    /// What the task must be for it.
    needs: &'static str,
    /// What is done to the brakes that hold them; returns the tasks that are so let go.
    brakes: fn(&Pool, &[TaskId]) -> Result<HashSet<TaskId>, Stop>,
    act: fn(&mut Mover<'_>, &Found) -> Result<Change, Error>,
    event: fn(&Found, String) -> Event,
    /// What it does with a task that could not be understood, where it does anything.
    mended: Option<TakeBack>,
}

type TakeBack = fn(&mut Mover<'_>, &Line) -> Result<Change, Error>;

const RETRY: Verb = Verb {
    name: "retry",
    done: "retried",
    needs: "only failed tasks can be retried",
    brakes: let_go,
    act: |mover, found| mover.retry(found),
    event: |found, by| Event::TaskRetried {
        task: found.name.id,
        attempt: found.name.retried().attempt,
        by,
    },
    mended: Some(|mover, line| mover.take_back(line)),
};

const HOLD: Verb = Verb {
    name: "hold",
    done: "held",
    needs: "only tasks that have not started can be held",
    brakes: |_pool, _ids| Ok(HashSet::new()),
    act: |mover, found| mover.hold(found),
    event: |found, by| Event::TaskHeld { task: found.name.id, by },
    mended: None,
};

const RELEASE: Verb = Verb {
    name: "release",
    done: "released",
    needs: "only held tasks can be released",
    brakes: let_go,
    act: |mover, found| mover.release(found),
    event: |found, by| Event::TaskReleased { task: found.name.id, by },
    mended: None,
};

/// What came of it for one task.
enum Came {
    /// It was done, or had been done before.
    Done,
    /// The task is in this state, in which it cannot be done.
    Refused(String),
    /// The task is in this state, in which nothing had to be done but to let go of its brake.
    LetGo(String),
    /// Its file was removed.
    Gone,
}

/// Lets go of the brakes that hold some of these tasks, and nothing of what a person holds: that is
/// undone first.
fn let_go(pool: &Pool, ids: &[TaskId]) -> Result<HashSet<TaskId>, Stop> {
    let mut tasks = HashSet::new();
    let of_persons = places::held(pool.layout(), &mut PassedOver::default())?;
    let of_persons: HashSet<TaskId> = of_persons.into_iter().map(|name| name.id).collect();
    let braked = ids.iter().copied().filter(|id| !of_persons.contains(id)).collect();
    for held in operate::brakes_of(pool, &braked)? {
        if let Some(brake) = operate::let_go(pool, &held.brake.key)? {
            let (batch, what) = (brake.batch, brake.what());
            note(format!("released {what}"));
            shared::emit!(Event::BrakeReleased { batch, what, by: format!("by {}", me()) });
        }
        tasks.extend(held.tasks);
    }
    Ok(tasks)
}

fn run(app: &mut App, texts: &[String], verb: &Verb) -> Result<u8, Stop> {
    let (pool, _resolved) = app.ready()?;
    let ids = app.tasks(&pool, texts)?;
    let let_go = (verb.brakes)(&pool, &ids)?;
    let mut came = HashMap::with_capacity(ids.len());
    let changed = change_all(&pool, &ids, verb, &mut came);
    for (_id, came) in came.iter_mut().filter(|(id, _came)| let_go.contains(id)) {
        if let Came::Refused(state) = came {
            *came = Came::LetGo(std::mem::take(state));
        }
    }
    match changed {
        Err(stop) if came.is_empty() => Err(stop),
        changed => {
            // What was done is said, also where something then went wrong.
            let code = say(app, &pool, verb, &ids, &came)?;
            changed.map(|()| code)
        }
    }
}

/// Does it to all of them, and looks again for those that moved meanwhile.
fn change_all(
    pool: &Pool,
    ids: &[TaskId],
    verb: &Verb,
    came: &mut HashMap<TaskId, Came>,
) -> Result<(), Stop> {
    let (layout, mut mover) = (pool.layout(), Mover::new(pool));
    let mut open: Vec<TaskId> = ids.to_vec();
    while !open.is_empty() {
        let found = places::find_all(layout, &open.iter().copied().collect())?;
        for id in &open {
            let Some(found) = found.get(id) else { continue };
            let now = match (verb.act)(&mut mover, found)? {
                Change::Done => {
                    shared::emit!((verb.event)(found, me()));
                    Came::Done
                }
                Change::Moved => continue,
                // Asked for twice is done once.
                Change::NotThere { state } if state == verb.done => Came::Done,
                Change::NotThere { state } => Came::Refused(state.to_owned()),
                Change::Running { worker } => Came::Refused(format!("processing on {worker}")),
            };
            came.insert(*id, now);
        }
        // It was there when the id was looked up: now it is history, or on its way there.
        let gone = open.iter().copied().filter(|id| !found.contains_key(id)).collect();
        for (id, brief) in ended(layout, &gone)? {
            let now = match (brief.next, verb.mended) {
                (Next::Rejected, Some(take_back)) => mended(pool, &mut mover, &brief, take_back)?,
                (_, _) => brief.end_of_task().map(lookup::ended_state).map(refused),
            };
            came.extend(now.map(|now| (id, now)));
        }
        open.retain(|id| !came.contains_key(id));
        let missed = open.iter().copied().filter(|id| !found.contains_key(id)).collect();
        let lost = gone::gone(layout, missed)?;
        open.retain(|id| !lost.contains(id));
        came.extend(lost.into_iter().map(|id| (id, Came::Gone)));
    }
    Ok(())
}

fn refused(state: &'static str) -> Came {
    Came::Refused(state.to_owned())
}

/// The last lines of these tasks, which are nowhere any more.
fn ended(layout: &Layout, gone: &HashSet<TaskId>) -> Result<HashMap<TaskId, Brief>, Stop> {
    let lines = search::last_of(layout, gone)?;
    lines.all_was_read()?;
    let last = lines.last;
    if let Some(id) = gone.iter().find(|id| !last.contains_key(id)) {
        return Err(Stop::no_match(format!("no task `{id}`")));
    }
    Ok(last)
}

/// What came of it for a task that was not in the state for the verb, as JSON says it.
fn let_go_word(verb: &Verb, state: &str) -> &'static str {
    match state {
        "pending" | "delayed" => verb.done,
        _ => "unchanged",
    }
}

fn say(
    app: &mut App,
    pool: &Pool,
    verb: &Verb,
    ids: &[TaskId],
    came: &HashMap<TaskId, Came>,
) -> Result<u8, Stop> {
    let refused = came.values().any(|came| matches!(came, Came::Refused(_) | Came::Gone));
    if app.json() {
        let now = places::find_all(pool.layout(), &ids.iter().copied().collect())?;
        let told = ids.iter().filter_map(|id| {
            let (result, state) = match came.get(id)? {
                Came::Done => (verb.done, now.get(id).map_or("gone", |now| now.place.state())),
                Came::Refused(state) => ("refused", state.as_str()),
                Came::LetGo(state) => (let_go_word(verb, state), state.as_str()),
                Came::Gone => ("refused", "gone"),
            };
            Some(json!({"id": id, "result": result, "state": state}))
        });
        app.out.json(verb.name, &json!({ "tasks": told.collect::<Vec<_>>() }))?;
    } else {
        for id in ids {
            match came.get(id) {
                Some(Came::Done) => app.out.line(format!("{} {}", id.short(), verb.done))?,
                Some(Came::Refused(state)) => {
                    note(format!("{} is {state}: {}", id.short(), verb.needs));
                }
                Some(Came::Gone) => note(format!("{}: {GONE}", id.short())),
                // Of those it is told once, by their brake.
                Some(Came::LetGo(_)) | None => {}
            }
        }
    }
    Ok(if refused { exit::NO_MATCH } else { exit::OK })
}

/// What came of it for a task that could not be understood, and perhaps can be now. `None` when it
/// moved meanwhile.
fn mended(
    pool: &Pool,
    mover: &mut Mover<'_>,
    brief: &Brief,
    take_back: TakeBack,
) -> Result<Option<Came>, Stop> {
    let Some(line) = search::line_of(pool.layout(), brief.id, brief.attempt, None)? else {
        return Ok(None);
    };
    Ok(match take_back(mover, &line)? {
        Change::Done => {
            let (task, attempt) = (line.id, line.next_name.attempt);
            shared::emit!(Event::TaskRetried { task, attempt, by: me() });
            Some(Came::Done)
        }
        Change::NotThere { state } => Some(refused(state)),
        Change::Moved | Change::Running { .. } => None,
    })
}
