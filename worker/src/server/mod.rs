//! Model servers, whatever they speak: one trait, so that the rest of the worker knows none of them.
//!
//! Every call blocks the thread that makes it and can be given up from another one through
//! [`Cancel`]. Nothing in here touches the pool.

mod canary;
mod error;
mod http;
mod key;
mod lines;
mod managed;
mod ollama;
mod openai;

use std::fmt::Debug;
use std::io::Write;
use std::time::Duration;

use shared::llm::{Answer, HeldModel, Loads, Refused, ServerKind};
use shared::outcome::Cause;
use shared::task::Spec;

pub use http::Limits;
pub use key::Key;
pub use managed::{Managed, Program, Start};
pub use ollama::Ollama;
pub use openai::OpenAi;
pub use shared::address::{Address, BadAddress};

/// A model server that the threads of a worker share.
pub trait Server: Debug + Send + Sync {
    /// Which protocol it speaks.
    fn kind(&self) -> ServerKind;

    /// Its address, as `http://127.0.0.1:11437`.
    fn address(&self) -> &str;

    /// How it comes to hold a model.
    fn loads(&self) -> Loads;

    /// Whether it answers at all. Costs a millisecond.
    ///
    /// # Errors
    /// When it does not.
    fn ping(&self) -> Result<(), Failure>;

    /// The models it could load.
    ///
    /// # Errors
    /// When it does not say.
    fn known(&self) -> Result<Vec<String>, Failure>;

    /// The models it holds in memory.
    ///
    /// # Errors
    /// When it does not say.
    fn held(&self) -> Result<Vec<HeldModel>, Failure>;

    /// Loads a model with these options, which all later requests for it carry too, and returns
    /// when it is loaded.
    ///
    /// # Errors
    /// When it is not.
    fn load(&self, model: &str, options: &Options, cancel: &Cancel) -> Result<(), Failure>;

    /// Unloads a model, and returns when it is gone. One that is not loaded is gone already.
    ///
    /// # Errors
    /// When it is still there.
    fn unload(&self, model: &str, cancel: &Cancel) -> Result<(), Failure>;

    /// Asks a model for one token, or for an embedding where it gives no text, and says how long that
    /// took.
    ///
    /// # Errors
    /// When none came within `patience`.
    fn canary(&self, model: &str, patience: Duration) -> Result<Duration, Failure>;

    /// Asks what an `llm` task asks. The text of the answer goes to `sink` as it comes.
    ///
    /// # Errors
    /// When there is no complete answer.
    fn ask(&self, spec: &Spec, cancel: &Cancel, sink: &mut dyn Sink) -> Result<Answer, Failure>;

    /// Returns when a server that we have just started answers, or has not for a while. Others are
    /// as they are.
    fn wait_until_up(&self) {}

    /// Ends the server and starts it anew, where it is ours to start; `false` where it is not.
    fn restart(&self) -> bool {
        false
    }

    /// The worker ends: so does, with all that it started, a server that is ours. Returns when it
    /// is gone. Others are left alone.
    fn end(&self) {}
}

/// Where the text of an answer goes as it comes.
pub trait Sink: Write {
    /// The server has begun to answer: there is a while until the first text.
    fn begins(&mut self) {}
}

impl Sink for Vec<u8> {}
impl Sink for std::io::Sink {}

/// Options of a model, by name, as `num_ctx`.
pub type Options = serde_json::Map<String, serde_json::Value>;

/// Why a call to a server failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What it was, by the status and the words of the server.
    pub cause: Cause,
    /// Whether another try could end differently.
    pub again: Again,
    /// What happened, with the server's address and its own words.
    pub message: String,
    /// What the server answered, where it refused.
    pub refused: Option<Box<Refused>>,
}

/// Whether another try could end differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It could.
    Maybe,
    /// The server is busy, and says so: later, and it counts as no failure.
    Later,
    /// It could not: what was asked for is wrong.
    Never,
    /// We gave it up ourselves.
    GivenUp,
}

/// How a call is given up from another thread.
#[derive(Clone, Debug, Default)]
pub struct Cancel(std::sync::Arc<std::sync::Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    given_up: bool,
    /// Ends the connection of the call that runs now.
    end: Option<Box<dyn FnOnce() + Send>>,
}

impl Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("given_up", &self.given_up).finish_non_exhaustive()
    }
}

impl Cancel {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Gives up the call that runs with this handle, and every later one.
    pub fn give_up(&self) {
        let mut inner = self.inner();
        inner.given_up = true;
        // Under the lock: whoever says that the call is over knows that its connection is not ended
        // later, when it may serve somebody else's call.
        if let Some(end) = inner.end.take() {
            end();
        }
    }

    /// Whether it was given up: from then on every call with it fails.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.inner().given_up
    }

    /// How the call that begins now is ended, in place of what was said before; `false` when it is
    /// given up already. `end` must not wait, and must leave this handle alone.
    pub fn begins(&self, end: impl FnOnce() + Send + 'static) -> bool {
        let mut inner = self.inner();
        if inner.given_up {
            return false;
        }
        inner.end = Some(Box::new(end));
        true
    }

    /// The call is over: nothing is left to end. `false` when it was given up: its connections are
    /// of no use any more.
    pub fn ended(&self) -> bool {
        let mut inner = self.inner();
        inner.end = None;
        !inner.given_up
    }

    /// Waits so long, or until it is given up; `false` when it is.
    pub fn pause(&self, length: Duration) -> bool {
        let (give_up, given_up) = crossbeam_channel::bounded(1);
        let begun = self.begins(move || {
            // Nobody listens any more once the pause is over.
            let _over = give_up.send(());
        });
        let over = begun && given_up.recv_timeout(length).is_err();
        self.ended() && over
    }
}
