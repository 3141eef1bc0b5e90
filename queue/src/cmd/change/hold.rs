//! `queue retry`, `hold` and `release`: what a person does to tasks that nobody runs. Each is one
//! rename; a task that moves meanwhile is looked for again.

use clap::Args;
use queue::dir::disk::place::Found;
use queue::dir::find::places;
use queue::dir::lookup::{self, Standing};
use queue::dir::operate::{self, Change};
use queue::wire::ledger_line::Line;
use queue::{Error, Pool};
use serde_json::json;
use shared::event::Event;
use shared::exit;
use shared::id::TaskId;
use shared::outcome::Next;

use crate::cmd::{App, Stop, me, note};

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
    act: fn(&Pool, &Found) -> Result<Change, Error>,
    event: fn(&Found, String) -> Event,
    /// What it does with a task that could not be understood, where it does anything.
    mended: Option<TakeBack>,
}

type TakeBack = fn(&Pool, &Line) -> Result<Change, Error>;

const RETRY: Verb = Verb {
    name: "retry",
    done: "retried",
    needs: "only failed tasks can be retried",
    act: operate::retry,
    event: |found, by| Event::TaskRetried {
        task: found.name.id,
        attempt: found.name.retried().attempt,
        by,
    },
    mended: Some(operate::take_back),
};

const HOLD: Verb = Verb {
    name: "hold",
    done: "held",
    needs: "only tasks that have not started can be held",
    act: operate::hold,
    event: |found, by| Event::TaskHeld { task: found.name.id, by },
    mended: None,
};

const RELEASE: Verb = Verb {
    name: "release",
    done: "released",
    needs: "only held tasks can be released",
    act: operate::release,
    event: |found, by| Event::TaskReleased { task: found.name.id, by },
    mended: None,
};

fn run(app: &mut App, texts: &[String], verb: &Verb) -> Result<u8, Stop> {
    let (pool, _resolved) = app.ready()?;
    let ids = app.tasks(&pool, texts)?;
    let (mut results, mut refused) = (Vec::new(), 0);
    for id in ids {
        let (result, state) = change(&pool, id, verb)?;
        match result {
            "refused" => {
                refused += 1;
                if !app.json() {
                    note(format!("{} is {state}: {}", id.short(), verb.needs));
                }
            }
            done if !app.json() => app.out.line(format!("{} {done}", id.short()))?,
            _ => {}
        }
        results.push(json!({"id": id, "result": result, "state": state}));
    }
    if app.json() {
        app.out.json(verb.name, &json!({ "tasks": results }))?;
    }
    Ok(if refused > 0 { exit::NO_MATCH } else { exit::OK })
}

/// What was done to a task, and the state it is in now.
fn change(pool: &Pool, id: TaskId, verb: &Verb) -> Result<(&'static str, String), Stop> {
    let layout = pool.layout();
    loop {
        let Some(found) = places::find(layout, id)? else {
            // It was there when the id was looked up: now it is history, or on its way there.
            let Some(standing) = lookup::standing(layout, id)? else {
                return Err(Stop::no_match(format!("no task `{id}`")));
            };
            match (&standing, verb.mended) {
                (Standing::Ended(line), Some(take_back)) if line.next == Next::Rejected => {
                    return mended(pool, verb, line, take_back);
                }
                _ if standing.ended().is_some() => {
                    return Ok(("refused", standing.state().to_owned()));
                }
                _ => continue,
            }
        };
        match (verb.act)(pool, &found)? {
            Change::Done => {
                shared::emit!((verb.event)(&found, me()));
                let now = places::find(layout, id)?;
                let state = now.map_or("gone", |found| found.place.state());
                return Ok((verb.done, state.to_owned()));
            }
            Change::Moved => {}
            // Asked for twice is done once.
            Change::NotThere { state } if state == verb.done => {
                return Ok((verb.done, state.to_owned()));
            }
            Change::NotThere { state } => return Ok(("refused", state.to_owned())),
            Change::Running { worker } => {
                return Ok(("refused", format!("processing on {worker}")));
            }
        }
    }
}

/// A task that could not be understood, and perhaps can be now.
fn mended(
    pool: &Pool,
    verb: &Verb,
    line: &Line,
    take_back: TakeBack,
) -> Result<(&'static str, String), Stop> {
    match take_back(pool, line)? {
        Change::Done => {
            let (task, attempt) = (line.id, line.next_name.attempt);
            shared::emit!(Event::TaskRetried { task, attempt, by: me() });
            Ok((verb.done, "pending".to_owned()))
        }
        Change::NotThere { state } => Ok(("refused", state.to_owned())),
        Change::Moved | Change::Running { .. } => Ok((verb.done, "moved".to_owned())),
    }
}
