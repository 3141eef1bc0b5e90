//! `queue settle`: puts back a task that a dead worker left, as the brain does by itself. With
//! `--abandon` on a person's word, where something is in the way that will never go.

use std::time::Duration;

use clap::Args;
use queue::Pool;
use queue::cli::Failure;
use queue::dir::disk::listing;
use queue::dir::disk::place::{Found, Place};
use queue::dir::find::places;
use queue::dir::ledger::append::Ledger;
use queue::dir::presence::heartbeats;
use queue::dir::presence::lease::{self, Lease};
use queue::dir::recover::settle::{Abandon, Patience, Settler};
use queue::dir::signal::control::{self, ControlVerb, Message};
use queue::wire::fate::Fate;
use queue::wire::lease_record::Role;
use queue::wire::ledger_line::Writer;
use serde_json::json;
use shared::event::Event;
use shared::id::TaskId;
use shared::name::Name;
use shared::outcome::Next;
use shared::{emit, exit};

use crate::cmd::watch::{Deadline, Watch};
use crate::cmd::{App, Stop, end_on_interrupt, me, note};

/// From KILL until processes are called unkillable.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Whoever settles lets go of the lease between two tries.
const WAIT: Duration = Duration::from_secs(20);

/// Put back a task that a dead worker left; the brain does so by itself
#[derive(Args, Debug)]
pub(crate) struct Settle {
    /// The task
    #[arg(value_name = "ID")]
    id: String,
    /// Take your word for it that nothing of the task runs any more: it is put back even where
    /// something is in the way. If you are wrong, it runs twice
    #[arg(long)]
    abandon: bool,
}

/// What came of it.
enum Came {
    /// Nobody died with it.
    NotLeft(&'static str),
    /// A living worker runs it.
    Runs,
    /// It was put back, or its end carried out.
    Settled(String),
    /// It may still run.
    Kept(String),
}

impl Came {
    const fn word(&self) -> &'static str {
        match self {
            Self::NotLeft(_) => "not_left",
            Self::Runs => "runs",
            Self::Settled(_) => "settled",
            Self::Kept(_) => "kept",
        }
    }

    fn text(&self) -> String {
        match self {
            Self::NotLeft(state) => format!("it is {state}: no dead worker has it"),
            Self::Runs => "it runs, and its worker lives: `queue cancel` ends it".to_owned(),
            Self::Settled(what) => what.clone(),
            Self::Kept(why) => format!("not put back: {why}"),
        }
    }
}

impl Settle {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        end_on_interrupt();
        let (pool, resolved) = app.ready()?;
        let id = app.task(&pool, &self.id)?;
        let grace = resolved.settings.grace_period.0;
        let came = match places::find(pool.layout(), id)? {
            Some(Found { place: Place::Processing { worker }, .. }) => {
                self.settle(&pool, &worker, id, Patience { grace, give_up: GIVE_UP })?
            }
            Some(found) => Came::NotLeft(found.place.state()),
            None => Came::NotLeft("over"),
        };
        let (result, text) = (came.word(), came.text());
        match app.json() {
            true => app.out.json("settle", &json!({"id": id, "result": result, "text": text}))?,
            false => app.out.line(format!("{} {text}", id.short()))?,
        }
        Ok(match came {
            Came::NotLeft(_) | Came::Settled(_) => exit::OK,
            Came::Runs if self.abandon => exit::BLOCKED,
            Came::Runs => exit::OK,
            Came::Kept(_) => exit::BLOCKED,
        })
    }

    fn settle(
        &self,
        pool: &Pool,
        worker: &Name,
        id: TaskId,
        patience: Patience,
    ) -> Result<Came, Stop> {
        let Some(lease) = take(pool, worker)? else {
            return self.let_go(pool, worker, id);
        };
        let name: Name = "queue".parse().expect("letters are a name");
        let ledger = Ledger::new(pool.layout().clone(), Writer::new(name));
        let by = me();
        let abandon = self.abandon.then_some(Abandon { task: id, by: &by });
        let settled =
            Settler { abandon, ..Settler::new(pool, &ledger, patience) }.settle(&lease)?;
        drop(lease);
        let fate = settled.fates.into_iter().find(|(name, _fate)| name.id == id);
        let Some((name, fate)) = fate else { return Ok(Came::NotLeft("put back already")) };
        if let (Ok(Fate::PutBack { .. } | Fate::Cancelled), Some(_word)) = (&fate, abandon) {
            let (attempt, worker) = (name.attempt, worker.clone());
            emit!(Event::TaskAbandoned { task: id, attempt, worker, by });
        }
        Ok(match fate? {
            Fate::PutBack { next: Next::Failed, name, .. } => {
                Came::Settled(format!("failed: it ran at {} worker deaths", name.deaths))
            }
            Fate::PutBack { name, .. } => {
                Came::Settled(format!("put back; attempt {} comes next", name.attempt))
            }
            Fate::Finished(_) => Came::Settled("it had ended; that is carried out".to_owned()),
            Fate::Cancelled => Came::Settled("cancelled".to_owned()),
            Fate::Rejected(why) => Came::Settled(format!("no task, put aside: {why}")),
            Fate::Kept(obstacle) => Came::Kept(obstacle.to_string()),
        })
    }
}

impl Settle {
    /// A living worker ends its attempt itself; where something of its job may be left, on a
    /// person's word.
    fn let_go(&self, pool: &Pool, worker: &Name, id: TaskId) -> Result<Came, Stop> {
        let beat = heartbeats::read(pool, worker)?;
        let run = beat.into_iter().flat_map(|beat| beat.current).find(|run| run.task_id == id);
        let Some((run, obstacle)) = run.and_then(|run| run.kept.clone().map(|kept| (run, kept)))
        else {
            return Ok(Came::Runs);
        };
        if !self.abandon {
            return Ok(Came::Kept(obstacle.to_string()));
        }
        let by = me();
        let found =
            places::find(pool.layout(), id)?.filter(|found| found.name.attempt == run.attempt);
        let Some(found) = found else { return Ok(Came::NotLeft("over")) };
        let about = Some(found.name.to_string());
        let message = Message { task: about, ..Message::new(ControlVerb::Abandon, &by) };
        control::send(pool.layout(), worker, &message)?;
        let watch = Watch::on(&[&pool.layout().processing_of(worker)]);
        let deadline = Deadline::after(Some(WAIT));
        while !deadline.is_over() {
            let still = listing::tasks_in(&pool.layout().processing_of(worker))?.tasks;
            if !still.contains(&found.name) {
                let (attempt, worker) = (found.name.attempt, worker.clone());
                emit!(Event::TaskAbandoned { task: id, attempt, worker, by });
                return Ok(Came::Settled("goes on, on your word".to_owned()));
            }
            watch.wait(deadline);
        }
        let text = format!("{worker} was asked to let it go, and has not done so; try again later");
        Err(Failure::new(exit::TRY_LATER, text).into())
    }
}

/// The dead worker's lease. `None` where it lives.
fn take(pool: &Pool, worker: &Name) -> Result<Option<Lease>, Stop> {
    let deadline = Deadline::after(Some(WAIT));
    let locks = pool.layout().worker_locks();
    let watch = Watch::on(&[&locks]);
    let mut said = false;
    loop {
        if let Some(lease) = Lease::try_take(pool, worker)? {
            return Ok(Some(lease));
        }
        let by = match lease::read(pool.layout(), worker)?.map(|record| record.role) {
            Some(Role::Settling(by)) => by,
            Some(Role::Working | Role::Settled(_) | Role::Over) | None => return Ok(None),
        };
        if deadline.is_over() {
            let text = format!("{by} is at it; try again later");
            return Err(Failure::new(exit::TRY_LATER, text).into());
        }
        if !std::mem::replace(&mut said, true) {
            note(format!("{by} is at it: waiting"));
        }
        watch.wait(deadline);
    }
}
