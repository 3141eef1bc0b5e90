//! `queue pause`, `resume` and `drain`: what workers may take.

use clap::Args;
use queue::cli::Resolved;
use queue::dir::signal::control::{self, ControlVerb, Message};
use queue::dir::signal::doorbell;
use queue::{Pool, view};
use serde_json::json;
use shared::event::Event;
use shared::exit;
use shared::name::Name;
use shared::quantity::Span;
use shared::task::Class;
use shared::time::Moment;

use crate::cmd::look::workers;
use crate::cmd::watch::{Deadline, Watch};
use crate::cmd::{App, Stop, end_on_interrupt, me, note};

/// Take nothing new until resumed: one worker, or the whole pool
#[derive(Args, Debug)]
pub(crate) struct Pause {
    /// The worker [default: all]
    worker: Option<String>,
    /// Why, for those who ask
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

/// End a pause; a worker that drains goes on too
#[derive(Args, Debug)]
pub(crate) struct Resume {
    /// The worker [default: the pause of the whole pool]
    worker: Option<String>,
}

/// Let a worker finish what it runs, take nothing new, and stop
#[derive(Args, Debug)]
pub(crate) struct Drain {
    /// The worker
    worker: String,
    /// Wait until it has stopped
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this (exit 75)
    #[arg(long, value_name = "DURATION", requires = "wait")]
    timeout: Option<Span>,
}

impl Pause {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        let (pool, resolved) = app.ready()?;
        let message = Message { why: self.why, ..Message::new(ControlVerb::Pause, &me()) };
        let scope = match &self.worker {
            Some(text) => {
                let worker = workers::known(&pool, &resolved.settings, text)?;
                control::send(pool.layout(), &worker.name, &message)?;
                worker.name.to_string()
            }
            None => {
                control::pause_pool(pool.layout(), &message)?;
                ring_all(&pool);
                "pool".to_owned()
            }
        };
        shared::emit!(Event::PoolPaused { by: me(), scope: scope.clone(), until: None });
        done(app, "pause", &scope, "paused")
    }
}

impl Resume {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        let (pool, resolved) = app.ready()?;
        let layout = pool.layout();
        let (scope, was) = match &self.worker {
            Some(text) => {
                let name = workers::known(&pool, &resolved.settings, text)?.name;
                let paused = control::withdraw(layout, &name, ControlVerb::Pause)?;
                let draining = control::withdraw(layout, &name, ControlVerb::Drain)?;
                (name.to_string(), paused || draining)
            }
            None => {
                let was = control::resume_pool(layout)?;
                ring_all(&pool);
                ("pool".to_owned(), was)
            }
        };
        if was {
            shared::emit!(Event::PoolResumed { by: me(), scope: scope.clone() });
        }
        done(app, "resume", &scope, if was { "resumed" } else { "was not paused" })
    }
}

impl Drain {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        let (pool, resolved) = app.ready()?;
        let worker = workers::known(&pool, &resolved.settings, &self.worker)?;
        if !worker.is_alive() {
            let text = format!("{} is not running; there is nothing to drain", worker.name);
            return Err(Stop::no_match(text));
        }
        control::send(pool.layout(), &worker.name, &Message::new(ControlVerb::Drain, &me()))?;
        shared::emit!(Event::DrainAsked { worker: worker.name.clone(), by: me() });
        if self.wait && !wait_for(&pool, &resolved, &worker.name, self.timeout)? {
            note(format!("timeout: {} has not stopped yet", worker.name));
            return Ok(exit::TRY_LATER);
        }
        let result = if self.wait { "has stopped" } else { "is draining" };
        done(app, "drain", worker.name.as_str(), result)
    }
}

/// Waits until a worker has stopped. `false` when time was up first.
fn wait_for(
    pool: &Pool,
    resolved: &Resolved,
    name: &Name,
    timeout: Option<Span>,
) -> Result<bool, Stop> {
    end_on_interrupt();
    let deadline = Deadline::after(timeout.map(|span| span.0));
    let layout = pool.layout();
    let watch = Watch::on(&[&layout.worker_locks(), &layout.workers()]);
    loop {
        let seen = view::worker(pool, &resolved.settings, Moment::now(), name.clone())?;
        if seen.is_none_or(|worker| !worker.is_alive()) {
            return Ok(true);
        }
        if deadline.is_over() {
            return Ok(false);
        }
        watch.wait(deadline);
    }
}

/// A pause of the pool, or a limit, concerns everybody.
pub(in crate::cmd) fn ring_all(pool: &Pool) {
    for class in Class::ALL {
        doorbell::ring_class(pool.layout(), *class);
    }
    doorbell::ring_brain(pool.layout());
}

fn done(app: &mut App, verb: &str, scope: &str, result: &str) -> Result<u8, Stop> {
    if app.json() {
        app.out.json(verb, &json!({"scope": scope, "result": result}))?;
    } else {
        let scope = if scope == "pool" { "the pool" } else { scope };
        app.out.line(format!("{scope} {result}"))?;
    }
    Ok(exit::OK)
}
