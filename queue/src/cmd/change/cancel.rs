//! `queue cancel`: ends tasks for good. What nobody runs is ended here; what runs is ended by its
//! worker, which is asked. Finding and acting are repeated until the task has ended.

use std::collections::HashSet;

use clap::Args;
use queue::Pool;
use queue::dir::disk::place::{Found, Place};
use queue::dir::find::places;
use queue::dir::ledger::append::Ledger;
use queue::dir::lookup::{self, Standing};
use queue::dir::operate::{Change, Ender, Reason};
use queue::dir::signal::control::{self, ControlVerb, Message};
use queue::view::{self, Brain};
use queue::wire::ledger_line::Writer;
use serde_json::json;
use shared::event::{Ending, Event};
use shared::exit;
use shared::id::TaskId;
use shared::name::Name;
use shared::outcome::Outcome;
use shared::settings::Settings;
use shared::task::TaskName;
use shared::time::Moment;

use crate::cmd::watch::{Deadline, Watch};
use crate::cmd::{App, Stop, end_on_interrupt, me, note};

/// End tasks for good; waits until those that run have ended
#[derive(Args, Debug)]
pub(crate) struct Cancel {
    /// Tasks or batches; - reads them from stdin
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Only ask the workers, and do not wait
    #[arg(long)]
    no_wait: bool,
}

/// What came of cancelling one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// It is cancelled.
    Cancelled,
    /// It had ended before, like this.
    Ended(Outcome),
    /// Its worker was asked.
    Asked,
    /// Its worker was asked, but is dead, and nobody is there to settle its affairs.
    Orphaned,
}

impl Came {
    const fn word(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Ended(_) => "already_ended",
            Self::Asked => "asked",
            Self::Orphaned => "worker_dead",
        }
    }

    fn text(self) -> String {
        match self {
            Self::Cancelled => "cancelled".to_owned(),
            Self::Ended(outcome) => format!("had ended before: {}", lookup::ended_state(outcome)),
            Self::Asked => "cancel asked of its worker".to_owned(),
            Self::Orphaned => "cancel noted; its worker is dead and no brain runs to settle its \
                               affairs (start `brain`, or a worker of that name)"
                .to_owned(),
        }
    }
}

impl Cancel {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        end_on_interrupt();
        let (pool, resolved) = app.ready()?;
        let ids = app.tasks(&pool, &self.ids)?;
        let name: Name = "queue".parse().expect("letters are a name");
        let ledger = Ledger::new(pool.layout().clone(), Writer::new(name));
        let mut canceller = Canceller {
            pool: &pool,
            settings: &resolved.settings,
            ledger: &ledger,
            watch: None,
            asked: HashSet::new(),
        };
        let mut results = Vec::new();
        // All are asked before one is waited for.
        let mut waiting = Vec::new();
        for id in ids {
            match canceller.step(id)? {
                Some(result) => results.push((id, result)),
                None if self.no_wait => results.push((id, Came::Asked)),
                None => waiting.push(id),
            }
        }
        for id in waiting {
            results.push((id, canceller.finish(id)?));
        }
        say(app, &results)
    }
}

fn say(app: &mut App, results: &[(TaskId, Came)]) -> Result<u8, Stop> {
    if app.json() {
        let tasks = results.iter().map(|(id, result)| json!({"id": id, "result": result.word()}));
        app.out.json("cancel", &json!({ "tasks": tasks.collect::<Vec<_>>() }))?;
    } else {
        for (id, result) in results {
            app.out.line(format!("{} {}", id.short(), result.text()))?;
        }
    }
    let orphaned = results.iter().any(|(_id, result)| *result == Came::Orphaned);
    Ok(if orphaned { exit::TRY_LATER } else { exit::OK })
}

struct Canceller<'a> {
    pool: &'a Pool,
    settings: &'a Settings,
    ledger: &'a Ledger,
    watch: Option<Watch>,
    /// Attempts whose worker was asked.
    asked: HashSet<TaskName>,
}

impl Canceller<'_> {
    /// Does what can be done now. `None` when a worker has to end it.
    fn step(&mut self, id: TaskId) -> Result<Option<Came>, Stop> {
        let layout = self.pool.layout();
        loop {
            let Some(found) = places::find(layout, id)? else {
                match lookup::standing(layout, id)? {
                    Some(Standing::Ended(line)) => return Ok(Some(self.ended(&line))),
                    Some(Standing::There(_)) => continue,
                    None => return Err(Stop::no_match(format!("no task `{id}`"))),
                }
            };
            let task = found.read(layout)?;
            // Held only for one task at a time: others end tasks too.
            let ender = Ender::wait(self.pool, self.ledger)?;
            match ender.end(&found, Reason::Cancel)? {
                Change::Done => {
                    self.say_cancelled(&found, task.map(|task| (task.class(), task.name())));
                    return Ok(Some(Came::Cancelled));
                }
                Change::Moved => {
                    // What somebody began to end and did not finish is finished now.
                    ender.finish_all()?;
                }
                Change::NotThere { .. } => return Ok(Some(Came::Ended(Outcome::Failed))),
                Change::Running { worker } => {
                    drop(ender);
                    self.ask(&worker, &found)?;
                    return Ok(None);
                }
            }
        }
    }

    /// How a task that is history counts: one that ended because we asked was cancelled by us.
    fn ended(&self, line: &queue::wire::ledger_line::Line) -> Came {
        let ours = self.asked.iter().any(|name| name.id == line.id);
        match (line.outcome, ours) {
            (Outcome::Cancelled, true) => Came::Cancelled,
            (outcome, _) => Came::Ended(outcome),
        }
    }

    fn say_cancelled(&self, found: &Found, task: Option<(shared::task::Class, String)>) {
        let short = found.name.id.short();
        let what =
            task.map_or(short.clone(), |(class, name)| format!("{class} task: {short} ({name})"));
        let ending = Ending::cancelled();
        shared::emit!(Event::ended(found.name.id, found.name.attempt, what, ending));
    }

    fn ask(&mut self, worker: &Name, found: &Found) -> Result<(), Stop> {
        if !self.asked.insert(found.name) {
            return Ok(());
        }
        let message = Message::new(ControlVerb::Cancel, &me());
        control::ask_about(self.pool.layout(), worker, found.name, message)?;
        let (task, attempt) = (found.name.id, found.name.attempt);
        shared::emit!(Event::TaskCancelAsked { task, attempt, worker: worker.clone(), by: me() });
        Ok(())
    }

    /// Waits until a task that a worker has to end has ended.
    fn finish(&mut self, id: TaskId) -> Result<Came, Stop> {
        let mut told = false;
        loop {
            if let Some(result) = self.step(id)? {
                return Ok(result);
            }
            if let Some(trouble) = self.trouble(id)? {
                match trouble {
                    Trouble::Orphaned => return Ok(Came::Orphaned),
                    Trouble::Slow(text) if !told => {
                        told = true;
                        note(format!("{}: {text}", id.short()));
                    }
                    Trouble::Slow(_) => {}
                }
            }
            let watch =
                self.watch.get_or_insert_with(|| Watch::on(&[&self.pool.layout().ledger()]));
            watch.wait(Deadline::after(None));
        }
    }

    /// Why the worker that was asked may not do it.
    fn trouble(&self, id: TaskId) -> Result<Option<Trouble>, Stop> {
        let Some(found) = places::find(self.pool.layout(), id)? else { return Ok(None) };
        let Place::Processing { worker } = &found.place else { return Ok(None) };
        let seen = view::worker(self.pool, self.settings, Moment::now(), worker.clone())?;
        let life = seen.map(|seen| seen.life);
        Ok(match life {
            Some(view::Life::Alive | view::Life::Unproven) => None,
            Some(view::Life::Hung { .. }) => {
                Some(Trouble::Slow(format!("{worker} was asked, but it is hung; waiting")))
            }
            Some(view::Life::Dead { settling: Some(by) }) => {
                Some(Trouble::Slow(format!("{worker} is dead; {by} settles its affairs, waiting")))
            }
            Some(view::Life::Dead { settling: None } | view::Life::Over { .. }) | None => {
                if Brain::see(self.pool)?.alive {
                    Some(Trouble::Slow(format!(
                        "{worker} is dead; waiting for the brain to settle its affairs"
                    )))
                } else {
                    Some(Trouble::Orphaned)
                }
            }
        })
    }
}

/// What stands in the way of an end that was asked for.
enum Trouble {
    /// Nobody is there who could do it.
    Orphaned,
    /// It may take longer, for this reason.
    Slow(String),
}
