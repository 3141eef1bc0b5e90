//! What this worker knows about its model server, and the thread that finds it out.
//!
//! The truth is [`ServerState`]; after each change it is in [`WorkerState`], where eligibility and the
//! heartbeat read it. Looks at the server never hold up claiming: they have a thread of their own,
//! and what they find wakes the main one.

mod busy;
mod in_flight;
mod now;
pub mod server_state;
mod speed;
#[cfg(test)]
mod tests;
mod trouble;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, select};
use shared::emit;
use shared::event::Event;
use shared::llm::{Answer, Health, ModelServer};
use shared::name::Name;
use shared::settings::Settings;
use shared::task::Class;

use crate::server::{Again, Failure, Server};
use crate::worker_state::WorkerState;
use now::Now;
use server_state::{Pace, ServerState};

pub use in_flight::{Alone, Asking};
pub use server_state::Expected;

/// The worker's model server and what is known of it.
#[derive(Debug)]
pub struct Models {
    server: Arc<dyn Server>,
    ollama_host: Option<String>,
    server_state: Mutex<ServerState>,
    patience: Patience,
    in_flight: Arc<in_flight::InFlight>,
    /// Wakes the thread that looks.
    wake: (Sender<()>, Receiver<()>),
    /// Wakes the main thread: something may be claimed that could not before.
    news: (Sender<()>, Receiver<()>),
}

/// How often it is looked at, and how long a model may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From one look to the next.
    pub poll: Duration,
    /// From one canary to the next, for a model that is not asked anything.
    pub canary_interval: Duration,
    /// For a canary's one token.
    pub canary: Duration,
}

impl Patience {
    /// As the settings say.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        Self {
            poll: settings.server_poll.0,
            canary_interval: settings.canary_interval.0,
            canary: settings.canary_patience.0,
        }
    }
}

/// The pauses between two looks.
#[derive(Debug)]
struct Pauses {
    /// The longest, and that between looks at a server that answers.
    poll: Duration,
    next: Duration,
}

/// A server that is starting, or has just gone down, is looked at again after this.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

impl Pauses {
    const fn new(poll: Duration) -> Self {
        Self { poll, next: FIRST_PAUSE }
    }

    /// The next one: short at first where the server does not answer, so that servers and workers
    /// that start together lose no time.
    fn next(&mut self, health: Health) -> Duration {
        match health {
            Health::Up | Health::Wedged => {
                self.next = FIRST_PAUSE;
                self.poll
            }
            Health::Unknown | Health::Down => {
                let pause = self.next.min(self.poll);
                self.next = pause.saturating_mul(2);
                pause
            }
        }
    }
}

impl Models {
    /// Nothing known yet.
    #[must_use]
    pub fn new(worker: Name, server: Arc<dyn Server>, patience: Patience) -> Self {
        let server_state =
            Mutex::new(ServerState::new(worker, server.as_ref(), patience, Now::new()));
        let (in_flight, wake, news) = (Arc::default(), bounded(1), bounded(1));
        Self { server, ollama_host: None, server_state, patience, in_flight, wake, news }
    }

    /// The same, where it is known whether the server is there.
    #[must_use]
    pub fn expecting(self, expected: Expected) -> Self {
        self.server_state().expected = expected;
        self
    }

    /// The same, where jobs find it at this OLLAMA_HOST.
    #[must_use]
    pub fn telling(self, ollama_host: Option<String>) -> Self {
        Self { ollama_host, ..self }
    }

    /// What jobs find in OLLAMA_HOST. As long as there may be no server, whatever they would find
    /// without us is left to them.
    #[must_use]
    pub fn ollama_host(&self) -> Option<&str> {
        let host = self.ollama_host.as_deref()?;
        self.server_state().is_there().then_some(host)
    }

    /// The server itself: each call to it blocks the calling thread.
    #[must_use]
    pub fn server(&self) -> &dyn Server {
        self.server.as_ref()
    }

    /// What is known of it.
    #[must_use]
    pub fn known(&self) -> ModelServer {
        self.server_state().server().clone()
    }

    /// Receives a message when something may have become claimable.
    #[must_use]
    pub fn news(&self) -> &Receiver<()> {
        &self.news.1
    }

    fn server_state(&self) -> MutexGuard<'_, ServerState> {
        // Every change is complete in itself: a panic elsewhere leaves nothing half written.
        self.server_state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, shows it in the worker's state, and says what is to be said.
    pub fn note(
        &self,
        worker_state: &WorkerState,
        write: impl FnOnce(&mut ServerState, Now) -> Vec<Event>,
    ) {
        let events = {
            let mut server_state = self.server_state();
            let events = write(&mut server_state, Now::new());
            let now = server_state.server();
            if worker_state.look(|state| state.ability.server.as_ref() != Some(now)) {
                worker_state.change(|state| state.ability.server = Some(now.clone()));
                // Full means that the main thread will look anyway.
                let _ = self.news.0.try_send(());
            }
            events
        };
        for event in events {
            emit!(event);
        }
    }

    /// A request begins. A load that waits for its turn lets no more begin: eligibility sees it.
    pub fn asking(&self) -> Asking {
        in_flight::InFlight::enter(&self.in_flight)
    }

    /// Waits until no request of this worker runs.
    pub fn alone(&self, cancel: &crate::server::Cancel) -> Alone {
        in_flight::InFlight::wait_alone(&self.in_flight, cancel)
    }

    /// A request was answered.
    pub fn answered(&self, worker_state: &WorkerState, model: &str, answer: &Answer) {
        let beside = self.in_flight.count();
        self.note(worker_state, |server_state, _now| server_state.answered(model, answer, beside));
    }

    /// A request failed, and it may be the server's fault: until a canary has lived, the model is
    /// asked nothing. Looks at once.
    pub fn doubt(&self, worker_state: &WorkerState, model: &str) {
        self.note(worker_state, |server_state, now| {
            server_state.doubt(model, now);
            Vec::new()
        });
        let _already_called = self.wake.0.try_send(());
    }

    /// The server had no time for a request, or for a load: the model is asked for nothing for a while.
    pub fn busy(&self, worker_state: &WorkerState, model: &str, failure: &Failure) {
        self.note(worker_state, |server_state, now| server_state.busy(model, failure, now));
        let _already_called = self.wake.0.try_send(());
    }

    /// Tasks wait for these models, by their one spelling: what of them is held must prove that it
    /// works, and a server that was down is looked at now.
    pub fn want(&self, models: BTreeSet<String>) {
        if self.server_state().want(models) {
            let _already_called = self.wake.0.try_send(());
        }
    }

    /// What the server holds, now. `false` when it does not answer.
    pub fn look(&self, worker_state: &WorkerState) -> bool {
        match self.server.held() {
            Ok(held) => {
                let loads = self.server.loads();
                self.note(worker_state, |server_state, now| server_state.holds(held, loads, now));
                true
            }
            Err(failure) => {
                self.note(worker_state, |server_state, now| server_state.silent(&failure, now));
                false
            }
        }
    }

    fn look_around(&self, worker_state: &WorkerState) {
        if self.look(worker_state)
            // A server that does not say now said so before, or will.
            && let Ok(known) = self.server.known()
        {
            self.note(worker_state, |server_state, _now| {
                server_state.knows(known);
                Vec::new()
            });
        }
    }

    /// Has a model answer one token. `load` is how long its loading took, where that was ours.
    ///
    /// # Errors
    /// When none came.
    pub fn canary(
        &self,
        worker_state: &WorkerState,
        model: &str,
        load: Option<Duration>,
    ) -> Result<Duration, Failure> {
        let failure = match self.server.canary(model, self.patience.canary) {
            Ok(took) => {
                self.note(worker_state, |server_state, now| {
                    server_state.proven(model, took, load, now)
                });
                return Ok(took);
            }
            Err(failure) => failure,
        };
        if failure.again == Again::Later {
            self.note(worker_state, |server_state, now| server_state.busy(model, &failure, now));
            return Err(failure);
        }
        match self.server.ping() {
            Ok(()) => {
                // A canary that is no load's is among those that run.
                let others = self.in_flight.count().saturating_sub(u32::from(load.is_none()));
                self.note(worker_state, |server_state, now| {
                    server_state.mute(model, &failure, others, now)
                });
            }
            Err(silence) => {
                self.note(worker_state, |server_state, now| server_state.silent(&silence, now))
            }
        }
        Err(failure)
    }

    /// Looks at the server, and has its models answer, until `end` is closed.
    pub fn keep(&self, worker_state: &WorkerState, end: &Receiver<()>) {
        let mut looked: Option<Instant> = None;
        let mut pauses = Pauses::new(self.patience.poll);
        self.server.wait_until_up();
        loop {
            self.go_on(worker_state);
            if self.may_look(worker_state, looked) {
                self.look_around(worker_state);
                // What is known of one model should not wait for the next look at the server.
                while self.send_canary(worker_state) == Sent::Answered {}
                looked = Some(Instant::now());
            }
            select! {
                recv(end) -> _closed => return,
                recv(self.wake.1) -> _called => {
                    looked = None;
                    pauses = Pauses::new(self.patience.poll);
                }
                recv(after(self.pause(&mut pauses))) -> _now => {}
            }
        }
    }

    /// What was left alone for a while may be asked again where that is over.
    fn go_on(&self, worker_state: &WorkerState) {
        if !self.server_state().server().busy.is_empty() {
            self.note(worker_state, |server_state, now| {
                server_state.go_on(now);
                Vec::new()
            });
        }
    }

    /// While a model works its requests tell enough; while one is loaded, the load does.
    fn may_look(&self, worker_state: &WorkerState, looked: Option<Instant>) -> bool {
        let runs = |class| worker_state.look(|s| s.jobs.iter().any(|job| job.run.class == class));
        let Some(looked) = looked else { return true };
        !runs(Class::Resource)
            && (!runs(Class::Llm) || looked.elapsed() >= self.patience.canary_interval)
    }

    /// Until the next look, or until a model that did not answer is to be asked again.
    fn pause(&self, pauses: &mut Pauses) -> Duration {
        let server_state = self.server_state();
        let look = pauses.next(server_state.server().health);
        let canary = server_state.next_turn();
        let canary = canary.map(|at| at.saturating_duration_since(Instant::now()));
        // At once is now: whoever is due now and was not asked is kept waiting by something else.
        let canary = canary.filter(|pause| !pause.is_zero());
        canary.map_or(look, |pause| pause.min(look))
    }

    fn send_canary(&self, worker_state: &WorkerState) -> Sent {
        let busy = worker_state.look(|s| s.jobs.iter().any(|job| job.run.class == Class::Llm));
        let pace = if busy { Pace::Busy } else { Pace::Idle(self.patience.canary_interval) };
        let (due, health) = {
            let server_state = self.server_state();
            (server_state.due(Now::new(), pace), server_state.server().health)
        };
        let (Some(model), false) = (due, health == Health::Down) else { return Sent::None };
        // A load that begins meanwhile waits, so that the canary does not meet it half way.
        let _asking = self.asking();
        // Known from here on, with what went wrong.
        let Err(failure) = self.canary(worker_state, &model, None) else { return Sent::Answered };
        let wedged = self.server_state().server().health == Health::Wedged;
        if wedged && self.server.restart() {
            self.look(worker_state);
        }
        if failure.refused.is_some() { Sent::Answered } else { Sent::Unanswered }
    }
}

/// What came of a canary.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// No model is due for one.
    None,
    /// Nothing came of it: the server is to be looked at first.
    Unanswered,
    /// The server answered, be it that the model fails.
    Answered,
}

#[cfg(test)]
pub mod fixture;
