//! The main thread: fills slots that are free, follows what is asked of it, and sleeps on its
//! doorbells otherwise. A thread whose job is over takes the next task itself.

mod dropped;
mod messages;
mod own_loads;
pub mod report;
mod run_threads;
mod search;
mod without_brain;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, never, select};
use queue::dir::Pool;
use queue::dir::presence::lease::Lease;
use queue::dir::recover::promote::Promoter;
use queue::dir::recover::strays::Strays;
use queue::dir::signal::doorbell::Listener;
use shared::emit;
use shared::event::{Event, Repeater, Say};
use shared::settings::Settings;
use shared::task::TaskName;

use crate::attempt::context::AttemptContext;
use crate::recorder::{Nudge, Recorder};
use crate::worker_state::Facts;
use dropped::Dropped;
use run_threads::{RunThread, RunThreads};
use search::{SharedSearch, Work};

/// The main thread's things.
pub struct MainLoop {
    context: Arc<AttemptContext>,
    pool: Pool,
    settings: Settings,
    listener: Listener,
    signals: Receiver<i32>,
    /// What is newly known of the model server.
    news: Receiver<()>,
    /// Since when no brain holds its lock, as far as this worker saw.
    without_brain_since: Option<Instant>,
    /// Something ended that this thread may wait for.
    nudged: Receiver<()>,
    search: SharedSearch,
    /// Who runs attempts.
    run_threads: RunThreads,
    promoter: Option<Promoter>,
    strays: Strays,
    dropped: Dropped,
    stopping: Option<Stopping>,
    /// When a signal first told it to stop.
    told: Option<Instant>,
    lease: Arc<Lease>,
    /// Cancels and stalls that were passed on.
    asked: HashSet<TaskName>,
    trouble: Repeater,
    begun: Instant,
    /// Dropped to tell runs that they must not wait for anything.
    hurry: Option<Sender<()>>,
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
    pub context: Arc<AttemptContext>,
    /// The settings, as they were when the worker started.
    pub settings: Settings,
    /// Rings for messages to this worker, and for new tasks of its classes.
    pub listener: Listener,
    /// TERM and INT: the first lets jobs finish for a while, one later on kills them.
    pub signals: Receiver<i32>,
    /// Dropped to tell runs that they must not wait for anything.
    pub hurry: Sender<()>,
    /// Where it says that it was told to stop.
    pub lease: Arc<Lease>,
}

impl MainLoop {
    /// Ready to work.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(tools: Tools) -> std::io::Result<Self> {
        let Tools { context, settings, listener, signals, hurry, lease } = tools;
        let pool = context.surroundings.pool.clone();
        let strays = Strays::new(pool.layout());
        let dropped = Dropped::new(settings.heartbeat_interval.0);
        let news = context.models.as_ref().map_or_else(never, |models| models.news().clone());
        let (nudge, nudged) = Nudge::new();
        let search = SharedSearch::new(context.clone());
        let recorder = Recorder::start(context.clone(), nudge.clone())?;
        let thread =
            RunThread { context: context.clone(), search: search.clone(), recorder, nudge };
        Ok(Self {
            context,
            pool,
            settings,
            listener,
            signals,
            news,
            without_brain_since: None,
            nudged,
            run_threads: RunThreads::new(thread),
            search,
            promoter: None,
            strays,
            dropped,
            stopping: None,
            told: None,
            lease,
            asked: HashSet::new(),
            trouble: Repeater::default(),
            begun: Instant::now(),
            hurry: Some(hurry),
        })
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
        self.forget_ended();
        self.load_without_brain()?;
        self.dropped.step(&self.context)?;
        self.try_again();
        while let Some(work) = self.claim()? {
            self.run_threads.run(work);
        }
        Ok(())
    }

    fn claim(&self) -> Result<Option<Work>, queue::Error> {
        let mut search = self.search.lock();
        if !search.may_claim() {
            return Ok(None);
        }
        // The thread comes first: what is claimed and has none is run by nobody.
        if let Err(err) = self.run_threads.ready() {
            drop(search);
            self.context.starve(format!("could not start a thread: {err}"));
            return Ok(None);
        }
        let won = search.claim()?;
        drop(search);
        Ok(won.map(|won| won.told(&self.context)))
    }

    /// A pause for want of threads or processes is over.
    fn try_again(&self) {
        let state = &self.context.worker_state;
        if state.look(Facts::may_try_again) {
            state.change(|state| state.ability.starved = None);
            self.search.lock().look_again();
        }
    }

    /// When there is something to do besides what others tell of.
    fn until_next(&self) -> Duration {
        let starved = self.context.worker_state.look(|s| s.starvation.left(Instant::now()));
        starved.unwrap_or(Duration::MAX).min(self.dropped.until_look())
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
        self.context.worker_state.look(|state| {
            let leaves = state.stopping || state.ability.draining.is_some();
            leaves && state.jobs.is_empty()
        })
    }

    /// Sleeps until something happens, or until it is time to look anyway.
    fn wait(&mut self) {
        self.listener.arm();
        let (hearing, deaf) = (self.settings.idle_poll.0, self.settings.poll_without_notify.0);
        let patience = self.until_due(self.listener.patience(hearing, deaf)).min(self.until_next());
        let until = match self.stopping {
            Some(Stopping::Letting { until }) => {
                patience.min(until.saturating_duration_since(Instant::now()))
            }
            Some(Stopping::Returning) | None => patience,
        };
        let signals = self.signals.clone();
        select! {
            recv(self.listener.rung()) -> _rung => self.search.lock().look_again(),
            recv(self.news) -> _told => self.search.lock().look_again(),
            recv(self.nudged) -> _ended => self.search.lock().look_again(),
            recv(signals) -> signal => self.note_signal(signal.ok()),
            recv(after(until)) -> _now => {
                self.search.lock().look_again();
                self.hurry_up();
            }
        }
    }

    fn forget_ended(&mut self) {
        let worker_state = &self.context.worker_state;
        self.asked.retain(|name| {
            worker_state.look(|state| state.jobs.iter().any(|job| job.name == *name))
        });
    }
}
