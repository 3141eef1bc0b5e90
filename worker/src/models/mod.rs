//! What this worker knows about its model server, and the thread that finds it out.
//!
//! The truth is [`server_state::Book`]; after each change it lies on the desk, where eligibility and the
//! heartbeat read it. Looks at the server never hold up claiming: they have a thread of their own,
//! and what they find wakes the main one.

mod in_flight;
pub mod server_state;
mod speed;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, select};
use shared::emit;
use shared::event::Event;
use shared::llm::{Answer, Health, ModelServer};
use shared::name::Name;
use shared::settings::Settings;
use shared::task::Class;

use crate::server::{Failure, Server};
use crate::worker_state::Desk;
use server_state::{Book, Now, Pace};

pub use in_flight::{Alone, Asking};
pub use server_state::Expected;

/// The worker's model server and what is known of it.
#[derive(Debug)]
pub struct Models {
    server: Arc<dyn Server>,
    ollama_host: Option<String>,
    book: Mutex<Book>,
    patience: Patience,
    crowd: Arc<in_flight::Crowd>,
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

impl Models {
    /// Nothing known yet.
    #[must_use]
    pub fn new(worker: Name, server: Arc<dyn Server>, patience: Patience) -> Self {
        let book = Mutex::new(Book::new(worker, server.as_ref(), Now::new()));
        let (crowd, wake, news) = (Arc::default(), bounded(1), bounded(1));
        Self { server, ollama_host: None, book, patience, crowd, wake, news }
    }

    /// The same, where it is known whether the server is there.
    #[must_use]
    pub fn expecting(self, expected: Expected) -> Self {
        self.book().expected = expected;
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
        self.book().is_there().then_some(host)
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &dyn Server {
        self.server.as_ref()
    }

    /// What is known of it.
    #[must_use]
    pub fn known(&self) -> ModelServer {
        self.book().server().clone()
    }

    /// Receives a message when something may have become claimable.
    #[must_use]
    pub fn news(&self) -> &Receiver<()> {
        &self.news.1
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Every change is complete in itself: a panic elsewhere leaves nothing half written.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes something into the book, lays it on the desk and says what is to be said.
    pub fn note(&self, desk: &Desk, write: impl FnOnce(&mut Book, Now) -> Vec<Event>) {
        let events = {
            let mut book = self.book();
            let events = write(&mut book, Now::new());
            let now = book.server();
            if desk.look(|state| state.ability.server.as_ref() != Some(now)) {
                desk.change(|state| state.ability.server = Some(now.clone()));
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
        in_flight::Crowd::enter(&self.crowd)
    }

    /// Waits until no request of this worker runs.
    pub fn alone(&self, cancel: &crate::server::Cancel) -> Alone {
        in_flight::Crowd::wait_alone(&self.crowd, cancel)
    }

    /// A request was answered.
    pub fn answered(&self, desk: &Desk, model: &str, answer: &Answer) {
        let beside = self.crowd.count();
        self.note(desk, |book, _now| book.answered(model, answer, beside));
    }

    /// A request failed, and it may be the server's fault: until a canary has lived, the model is
    /// asked nothing. Looks at once.
    pub fn doubt(&self, desk: &Desk, model: &str) {
        self.note(desk, |book, now| {
            book.doubt(model, now);
            Vec::new()
        });
        let _already_called = self.wake.0.try_send(());
    }

    /// What the server holds, now. `false` when it does not answer.
    pub fn look(&self, desk: &Desk) -> bool {
        match self.server.held() {
            Ok(held) => {
                let loads = self.server.loads();
                self.note(desk, |book, now| book.holds(held, loads, now));
                true
            }
            Err(failure) => {
                self.note(desk, |book, now| book.silent(&failure, now));
                false
            }
        }
    }

    fn look_around(&self, desk: &Desk) {
        if self.look(desk)
            // A server that does not say now said so before, or will.
            && let Ok(known) = self.server.known()
        {
            self.note(desk, |book, _now| {
                book.knows(known);
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
        desk: &Desk,
        model: &str,
        load: Option<Duration>,
    ) -> Result<Duration, Failure> {
        let failure = match self.server.canary(model, self.patience.canary) {
            Ok(took) => {
                self.note(desk, |book, now| book.proven(model, (took, load), now));
                return Ok(took);
            }
            Err(failure) => failure,
        };
        match self.server.ping() {
            Ok(()) => self.note(desk, |book, now| book.mute(model, &failure, now)),
            Err(silence) => self.note(desk, |book, now| book.silent(&silence, now)),
        }
        Err(failure)
    }

    /// Looks at the server, and has its models answer, until `end` is closed.
    pub fn keep(&self, desk: &Desk, end: &Receiver<()>) {
        let mut looked: Option<Instant> = None;
        self.server.wait_until_up();
        loop {
            if self.may_look(desk, looked) {
                self.look_around(desk);
                self.send_canary(desk);
                looked = Some(Instant::now());
            }
            select! {
                recv(end) -> _closed => return,
                recv(self.wake.1) -> _called => looked = None,
                recv(after(self.patience.poll)) -> _now => {}
            }
        }
    }

    /// While a model works its requests tell enough; while one is loaded, the load does.
    fn may_look(&self, desk: &Desk, looked: Option<Instant>) -> bool {
        let runs = |class| desk.look(|s| s.jobs.iter().any(|job| job.run.class == class));
        let Some(looked) = looked else { return true };
        !runs(Class::Resource)
            && (!runs(Class::Llm) || looked.elapsed() >= self.patience.canary_interval)
    }

    fn send_canary(&self, desk: &Desk) {
        let busy = desk.look(|s| s.jobs.iter().any(|job| job.run.class == Class::Llm));
        let pace = if busy { Pace::Busy } else { Pace::Idle(self.patience.canary_interval) };
        let (due, health) = {
            let book = self.book();
            (book.due(Now::new(), pace), book.server().health)
        };
        let (Some(model), false) = (due, health == Health::Down) else { return };
        // A load that begins meanwhile waits, so that the canary does not meet it half way.
        let _asking = self.asking();
        // Written into the book, with what went wrong.
        let lives = self.canary(desk, &model, None).is_ok();
        let wedged = self.book().server().health == Health::Wedged;
        if !lives && wedged && self.server.restart() {
            self.look(desk);
        }
    }
}

#[cfg(test)]
pub mod fixture;
