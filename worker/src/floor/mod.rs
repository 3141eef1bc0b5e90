//! The main thread: claims while a slot is free, follows what is asked of it, and sleeps on its
//! doorbells otherwise.

mod alone;
mod asked;
mod claiming;
mod crew;
mod own_loads;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, after, never, select};
use queue::dir::Pool;
use queue::dir::census::Census;
use queue::dir::cursor::Cursor;
use queue::dir::doorbell::Listener;
use queue::dir::promote::Promoter;
use queue::eligible::SlotKind;
use shared::emit;
use shared::event::{Event, Repeater, Say};
use shared::reason::Code;
use shared::settings::Settings;
use shared::task::{Class, TaskName};

use crate::run::Bench;
use crew::Crew;

/// The main thread's things.
pub struct Floor {
    bench: Arc<Bench>,
    pool: Pool,
    settings: Settings,
    cursor: Cursor,
    census: Census,
    listener: Listener,
    signals: Receiver<i32>,
    /// What is newly known of the model server.
    news: Receiver<()>,
    /// Since when no brain holds its lock, as far as this worker saw.
    alone_since: Option<Instant>,
    /// Attempts that ended.
    ended: Receiver<Ended>,
    /// Who runs attempts.
    crew: Crew,
    /// Kinds of slot for which a look could find something new.
    look: Look,
    /// The shape of the last report that was said at INFO.
    said: Option<Vec<(Code, Option<String>)>>,
    promoter: Option<Promoter>,
    stopping: Option<Stopping>,
    /// Cancels and stalls that were passed on.
    asked: HashSet<TaskName>,
    trouble: Repeater,
    begun: Instant,
    /// Dropped to tell runs that they must not wait for anything.
    hurry: Option<Sender<()>>,
}

struct Ended {
    name: TaskName,
    class: Class,
    panic: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    gpu: bool,
    cpu: bool,
}

impl Look {
    const ALL: Self = Self { gpu: true, cpu: true };
    const NONE: Self = Self { gpu: false, cpu: false };

    fn at(&mut self, kind: SlotKind) -> &mut bool {
        match kind {
            SlotKind::Gpu => &mut self.gpu,
            SlotKind::Cpu => &mut self.cpu,
        }
    }
}

/// A worker that ends: first it lets its jobs finish, then it gives them back.
#[derive(Clone, Copy)]
enum Stopping {
    Letting { until: Instant },
    Returning,
}

/// What the loop needs from outside.
pub struct Tools {
    /// What every attempt needs.
    pub bench: Arc<Bench>,
    /// The settings.
    pub settings: Settings,
    /// Its bells.
    pub listener: Listener,
    /// TERM and INT.
    pub signals: Receiver<i32>,
    /// Dropped to tell runs that they must not wait for anything.
    pub hurry: Sender<()>,
}

impl Floor {
    /// Ready to work.
    #[must_use]
    pub fn new(tools: Tools) -> Self {
        let Tools { bench, settings, listener, signals, hurry } = tools;
        let pool = bench.surroundings.pool.clone();
        let news = bench.models.as_ref().map_or_else(never, |models| models.news().clone());
        let cursor = Cursor::new(&pool, bench.desk.name());
        let (end, ended) = crossbeam_channel::unbounded();
        Self {
            bench,
            pool,
            settings,
            cursor,
            census: Census::default(),
            listener,
            signals,
            news,
            alone_since: None,
            ended,
            crew: Crew::new(end),
            look: Look::ALL,
            said: None,
            promoter: None,
            stopping: None,
            asked: HashSet::new(),
            trouble: Repeater::default(),
            begun: Instant::now(),
            hurry: Some(hurry),
        }
    }

    /// Works until it is told to stop and nothing runs any more.
    pub fn work(mut self) {
        loop {
            if let Err(err) = self.turn() {
                self.say_trouble(&err);
            } else {
                self.trouble.cleared(self.begun.elapsed());
            }
            if self.is_done() {
                return;
            }
            self.wait();
        }
    }

    /// Everything that can be done without waiting.
    fn turn(&mut self) -> Result<(), queue::Error> {
        self.follow_messages()?;
        self.follow_standing()?;
        self.promote()?;
        self.load_alone()?;
        while self.may_claim() {
            if !self.claim()? {
                break;
            }
            self.take_ended();
        }
        Ok(())
    }

    fn say_trouble(&mut self, err: &queue::Error) {
        let error = err.to_string();
        match self.trouble.seen(self.begun.elapsed()) {
            Some(Say::First) => emit!(Event::ClaimFailed { error, count: 1 }),
            Some(Say::Again { count, .. }) => emit!(Event::ClaimFailed { error, count }),
            Some(Say::Cleared { .. }) | None => {}
        }
    }

    fn is_done(&self) -> bool {
        self.bench.desk.look(|state| {
            let leaves = state.stopping || state.ability.draining.is_some();
            leaves && state.jobs.is_empty()
        })
    }

    /// Sleeps until something happens, or until it is time to look anyway.
    fn wait(&mut self) {
        self.listener.arm();
        let (hearing, deaf) = (self.settings.idle_poll.0, self.settings.poll_without_notify.0);
        let patience = self.until_due(self.listener.patience(hearing, deaf));
        let until = match self.stopping {
            Some(Stopping::Letting { until }) => {
                patience.min(until.saturating_duration_since(Instant::now()))
            }
            Some(Stopping::Returning) | None => patience,
        };
        let signals = self.signals.clone();
        let ended = self.ended.clone();
        select! {
            recv(self.listener.rung()) -> _rung => self.look = Look::ALL,
            recv(self.news) -> _told => self.look = Look::ALL,
            recv(ended) -> done => self.note_ended(done),
            recv(signals) -> signal => self.note_signal(signal.ok()),
            recv(after(until)) -> _now => {
                self.look = Look::ALL;
                self.hurry_up();
            }
        }
        self.take_ended();
    }

    fn take_ended(&mut self) {
        while let Ok(done) = self.ended.try_recv() {
            self.note_ended(Ok(done));
        }
    }

    fn note_ended(&mut self, done: Result<Ended, crossbeam_channel::RecvError>) {
        let Ok(Ended { name, class, panic }) = done else { return };
        self.bench.desk.clear(name);
        self.asked.remove(&name);
        *self.look.at(SlotKind::of(class)) = true;
        if let Some(error) = panic {
            let doing = format!("running {}", name.id.short());
            emit!(Event::ProcessFailed { doing, error });
        }
    }
}
