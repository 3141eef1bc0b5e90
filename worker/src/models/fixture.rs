//! A model server in memory, for tests: it holds what it is told to, and fails as it is told to.

use std::sync::Mutex;
use std::time::Duration;

use shared::llm::{Answer, Health, HeldModel, HeldState, Loads, ModelServer, ServerKind};
use shared::outcome::Cause;
use shared::quantity::Bytes;
use shared::task::Spec;
use shared::time::Moment;

use crate::server::{Again, Cancel, Failure, Options, Server, Sink};

/// The server.
#[derive(Debug, Default)]
pub struct Fake {
    /// What it does.
    pub state: Mutex<FakeState>,
}

/// What it holds, and how it fails: what is `None` goes well.
#[derive(Debug, Default)]
pub struct FakeState {
    /// What it holds.
    pub held: Vec<String>,
    /// Why it does not answer at all.
    pub silent: Option<Failure>,
    /// Why no canary lives.
    pub mute: Option<Failure>,
    /// Why no load succeeds.
    pub refuses: Option<Failure>,
    /// Why no request is answered.
    pub fails: Option<Failure>,
    /// What was asked of it, in order.
    pub calls: Vec<String>,
}

/// A failure in these words.
#[must_use]
pub fn failure(cause: Cause, again: Again) -> Failure {
    Failure { cause, again, message: format!("it is {cause}"), refused: None }
}

/// What a worker knows of a server that is up, holds nothing and has not said what it could hold.
#[must_use]
pub fn up(address: &str) -> ModelServer {
    ModelServer {
        kind: ServerKind::Ollama,
        address: address.to_owned(),
        loads: Loads::OnRequest,
        health: Health::Up,
        health_since: Moment::now(),
        error: None,
        models: Vec::new(),
        known: None,
        failed_loads: Vec::new(),
        busy: Vec::new(),
        canary: None,
    }
}

/// A model as a server lists it.
#[must_use]
pub fn held(model: &str) -> HeldModel {
    let (state, size) = (HeldState::Loaded, Some(Bytes(1 << 30)));
    HeldModel {
        model: model.to_owned(),
        state,
        since: Moment::now(),
        size,
        vram: size,
        error: None,
    }
}

impl Fake {
    /// Changes what it does.
    pub fn set(&self, change: impl FnOnce(&mut FakeState)) {
        change(&mut self.state.lock().unwrap());
    }

    fn call(
        &self,
        call: String,
        fault: impl Fn(&FakeState) -> Option<Failure>,
    ) -> Result<(), Failure> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(call);
        let fault = state.silent.clone().or_else(|| fault(&state));
        fault.map_or(Ok(()), Err)
    }
}

impl Server for Fake {
    fn kind(&self) -> ServerKind {
        ServerKind::Ollama
    }

    fn address(&self) -> &str {
        "http://fake"
    }

    fn loads(&self) -> Loads {
        Loads::OnRequest
    }

    fn ping(&self) -> Result<(), Failure> {
        self.call("ping".to_owned(), |_state| None)
    }

    fn known(&self) -> Result<Vec<String>, Failure> {
        self.call("known".to_owned(), |_state| None)?;
        Ok(vec!["tiny:latest".to_owned()])
    }

    fn held(&self) -> Result<Vec<HeldModel>, Failure> {
        self.call("held".to_owned(), |_state| None)?;
        Ok(self.state.lock().unwrap().held.iter().map(|model| held(model)).collect())
    }

    fn load(&self, model: &str, _options: &Options, _cancel: &Cancel) -> Result<(), Failure> {
        self.call(format!("load {model}"), |state| state.refuses.clone())?;
        self.set(|state| state.held.push(model.to_owned()));
        Ok(())
    }

    fn unload(&self, model: &str, _cancel: &Cancel) -> Result<(), Failure> {
        self.call(format!("unload {model}"), |_state| None)?;
        self.set(|state| state.held.retain(|held| held != model));
        Ok(())
    }

    fn canary(&self, model: &str, _patience: Duration) -> Result<Duration, Failure> {
        self.call(format!("canary {model}"), |state| state.mute.clone())?;
        Ok(Duration::from_millis(3))
    }

    fn ask(&self, spec: &Spec, _: &Cancel, sink: &mut dyn Sink) -> Result<Answer, Failure> {
        let model = spec.model.clone().unwrap_or_default();
        self.call(format!("ask {model}"), |state| state.fails.clone())?;
        sink.write_all(b"hello").unwrap();
        Ok(answer(&model))
    }
}

/// An answer of one word.
#[must_use]
pub fn answer(model: &str) -> Answer {
    Answer {
        model: model.to_owned(),
        body: serde_json::json!({"choices": [{"text": "hello"}]}),
        prompt_tokens: Some(1),
        completion_tokens: Some(1),
        load_seconds: None,
        first_token_seconds: Some(0.1),
        seconds: 0.1,
        writing_seconds: None,
        flaw: None,
    }
}
