//! Ollama. It loads by itself whatever it is asked for, and forgets by itself too, so this keeps
//! hold of what it does: each request says that the model stays (`keep_alive`), and carries the
//! options that the model was loaded with, because a request that leaves one out reloads the model
//! without a word.

mod ask;
mod reply;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared::llm::{Answer, HeldModel, HeldState, Loads, ServerKind, is_same_model};
use shared::outcome::Cause;
use shared::quantity::Bytes;
use shared::task::Spec;
use shared::time::Moment;

use self::ask::{Asked, Shape};
use self::reply::Gathering;
use super::canary::{Kind, Kinds};
use super::http::{Call, Client, Limits};
use super::{Address, Again, Cancel, Failure, Options, Server, Sink};

/// For ever.
const STAY: i64 = -1;
/// From one look at what is held to the next, while waiting for a model to go.
const LOOK: Duration = Duration::from_millis(100);

/// An Ollama server.
#[derive(Debug)]
pub struct Ollama {
    client: Client,
    /// The models that were loaded from here, and with which options.
    loaded: Mutex<BTreeMap<String, Options>>,
    kinds: Kinds,
}

impl Ollama {
    /// The server at an address, which may not be there yet.
    #[must_use]
    pub fn new(address: Address, limits: Limits) -> Self {
        Self {
            client: Client::new(address, limits),
            loaded: Mutex::default(),
            kinds: Kinds::default(),
        }
    }

    fn loaded(&self) -> MutexGuard<'_, BTreeMap<String, Options>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The options that a model was loaded with.
    fn options_of(&self, model: &str) -> Options {
        let loaded = self.loaded();
        let found = loaded.iter().find(|(name, _)| is_same_model(name, model));
        found.map(|(_, options)| options.clone()).unwrap_or_default()
    }

    fn post(
        &self,
        path: &str,
        body: &Value,
        patience: Duration,
        cancel: &Cancel,
    ) -> Result<Value, Failure> {
        let reply = self.client.call(Call { path, body: Some(body), patience, cancel })?;
        let what = reply.what().to_owned();
        let body = reply.json()?;
        match body.get("error") {
            Some(error) => Err(reply::refused(&what, error)),
            None => Ok(body),
        }
    }

    /// Models that only embed are no more loaded by `generate` than asked by it.
    fn post_as(&self, kind: Kind, mut body: Value, call: Post<'_>) -> Result<(), Failure> {
        match kind {
            Kind::Text => {
                let reply = self.post("/api/generate", &body, call.patience, call.cancel)?;
                if reply.get("done") == Some(&Value::Bool(true)) {
                    return Ok(());
                }
                let what = format!("{}: POST /api/generate", self.client.address());
                Err(Failure::transport(&what, "the answer does not say `done`"))
            }
            Kind::Vector => {
                if let Some(body) = body.as_object_mut() {
                    let prompt = body.remove("prompt");
                    prompt.map(|prompt| body.insert("input".to_owned(), prompt));
                }
                self.post("/api/embed", &body, call.patience, call.cancel).map(drop)
            }
        }
    }

    /// Loads or unloads.
    fn post_for(&self, model: &str, body: &Value, call: Post<'_>) -> Result<(), Failure> {
        let kind = self.kinds.of(model);
        let sent = self.post_as(kind, body.clone(), call);
        let only_embeds = |failure: &Failure| failure.message.contains("does not support generate");
        match sent {
            Err(failure) if kind == Kind::Text && only_embeds(&failure) => {
                self.kinds.answers(model, Kind::Vector);
                self.post_as(Kind::Vector, body.clone(), call)
            }
            sent => sent,
        }
    }

    /// Waits until a model is no longer listed: `unload` is answered before a request that still
    /// runs has ended.
    fn until_gone(&self, model: &str, cancel: &Cancel) -> Result<(), Failure> {
        let what = || format!("{}: unloading {model}", self.client.address());
        let patience = self.client.limits().unload;
        let start = Instant::now();
        while self.held()?.iter().any(|held| is_same_model(&held.model, model)) {
            if start.elapsed() > patience {
                return Err(Failure {
                    cause: Cause::Timeout,
                    again: Again::Maybe,
                    message: format!("{}: still there after {patience:?}", what()),
                    refused: None,
                });
            }
            if !cancel.pause(LOOK) {
                return Err(Failure::given_up(&what()));
            }
        }
        Ok(())
    }

    fn gather(
        &self,
        asked: &Asked,
        cancel: &Cancel,
        sink: &mut dyn Sink,
    ) -> Result<Answer, Failure> {
        let patience = self.client.limits().silence;
        let mut gathering = Gathering::new(asked.shape);
        let body = Some(&asked.body);
        let mut reply = self.client.call(Call { path: asked.path, body, patience, cancel })?;
        sink.begins();
        let mut lines = reply.lines();
        loop {
            match lines.next_json().map_err(|error| reply.broken(&error))? {
                None => return Err(Failure::transport(reply.what(), "the answer has no end")),
                Some(line) => {
                    if let Some(answer) = gathering.take(line, reply.what(), sink)? {
                        reply.over(lines);
                        return Ok(answer);
                    }
                }
            }
        }
    }
}

/// What a request without a stream needs besides its body.
#[derive(Clone, Copy)]
struct Post<'a> {
    patience: Duration,
    cancel: &'a Cancel,
}

impl Server for Ollama {
    fn kind(&self) -> ServerKind {
        ServerKind::Ollama
    }

    fn address(&self) -> &str {
        self.client.address().as_str()
    }

    fn loads(&self) -> Loads {
        Loads::OnRequest
    }

    fn ping(&self) -> Result<(), Failure> {
        let said = self.client.get("/api/version")?;
        let what = format!("{}: GET /api/version", self.client.address());
        match said.get("version").and_then(Value::as_str) {
            Some(_) => Ok(()),
            None => Err(Failure::transport(&what, "the answer names no version: not Ollama?")),
        }
    }

    fn known(&self) -> Result<Vec<String>, Failure> {
        let said = self.client.get("/api/tags")?;
        for model in models(&said).filter(|model| only_embeds(model)) {
            name(model).into_iter().for_each(|name| self.kinds.answers(name, Kind::Vector));
        }
        Ok(models(&said).filter_map(name).map(str::to_owned).collect())
    }

    fn held(&self) -> Result<Vec<HeldModel>, Failure> {
        let said = self.client.get("/api/ps")?;
        let now = Moment::now();
        Ok(models(&said).filter_map(|model| held(model, now)).collect())
    }

    fn load(&self, model: &str, options: &Options, cancel: &Cancel) -> Result<(), Failure> {
        let body =
            json!({ "model": model, "keep_alive": STAY, "options": options, "stream": false });
        let patience = self.client.limits().load;
        self.post_for(model, &body, Post { patience, cancel })?;
        self.loaded().retain(|name, _| !is_same_model(name, model));
        self.loaded().insert(model.to_owned(), options.clone());
        Ok(())
    }

    fn unload(&self, model: &str, cancel: &Cancel) -> Result<(), Failure> {
        let body = json!({ "model": model, "keep_alive": 0, "stream": false });
        let patience = self.client.limits().glance;
        match self.post_for(model, &body, Post { patience, cancel }) {
            Ok(()) => {}
            // What is no longer in its list cannot be in its memory for long either.
            Err(failure) if failure.cause == Cause::ModelMissing => {}
            Err(failure) => return Err(failure),
        }
        self.until_gone(model, cancel)?;
        self.loaded().retain(|name, _| !is_same_model(name, model));
        Ok(())
    }

    fn canary(&self, model: &str, patience: Duration) -> Result<Duration, Failure> {
        let mut options = self.options_of(model);
        options.insert("num_predict".to_owned(), json!(1));
        let body = json!({
            "model": model, "prompt": "1", "raw": true, "options": options, "keep_alive": STAY,
            "stream": false,
        });
        let cancel = Cancel::default();
        let start = Instant::now();
        let call = Post { patience, cancel: &cancel };
        self.kinds.prove(model, |kind| self.post_as(kind, body.clone(), call))?;
        Ok(start.elapsed())
    }

    fn ask(&self, spec: &Spec, cancel: &Cancel, sink: &mut dyn Sink) -> Result<Answer, Failure> {
        let what = || format!("{}: asking", self.client.address());
        let options = spec.model.as_deref().map(|model| self.options_of(model));
        let asked = ask::asked(spec, &options.unwrap_or_default())
            .map_err(|problem| Failure::unaskable(&what(), &problem))?;
        match asked.shape {
            Shape::Chat | Shape::Text => self.gather(&asked, cancel, sink),
            Shape::Vectors => {
                let start = Instant::now();
                let patience = self.client.limits().silence;
                let body = self.post(asked.path, &asked.body, patience, cancel)?;
                let mut answer = reply::vectors(&body, start.elapsed(), &what())?;
                if ask::wants_base64(spec) {
                    reply::in_base64(&mut answer.body);
                }
                Ok(answer)
            }
        }
    }
}

fn models(said: &Value) -> impl Iterator<Item = &Value> {
    said.get("models").and_then(Value::as_array).into_iter().flatten()
}

fn name(model: &Value) -> Option<&str> {
    model.get("name").or_else(|| model.get("model"))?.as_str()
}

/// Whether its list says that it gives no text.
fn only_embeds(model: &Value) -> bool {
    let can = model.get("capabilities").and_then(Value::as_array);
    let can = |what: &str| can.is_some_and(|list| list.iter().any(|one| one == what));
    can("embedding") && !can("completion")
}

/// Whether it really answers is not for the list to say: it names dead runners too. One that is
/// kept until a moment that is over is on its way out.
fn held(model: &Value, now: Moment) -> Option<HeldModel> {
    let bytes = |field: &str| model.get(field).and_then(Value::as_u64).map(Bytes);
    let expires = model.get("expires_at").and_then(Value::as_str);
    let expires = expires.and_then(|text| text.parse::<Moment>().ok());
    let is_leaving = expires.is_some_and(|expires| expires < now);
    Some(HeldModel {
        model: name(model)?.to_owned(),
        state: if is_leaving { HeldState::Unloading } else { HeldState::Unproven },
        since: now,
        size: bytes("size"),
        vram: bytes("size_vram"),
        error: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_partly_on_the_processor_shows() {
        let now = Moment::now();
        let model = json!({
            "name": "tiny:latest", "size": 100, "size_vram": 60,
            "expires_at": "2319-03-04T00:00:00.123456789Z",
        });
        let held = held(&model, now).unwrap();
        assert_eq!((held.size, held.vram), (Some(Bytes(100)), Some(Bytes(60))));
        assert_eq!(held.state, HeldState::Unproven);
    }

    #[test]
    fn a_model_that_expired_is_leaving() {
        let model = json!({ "name": "tiny", "expires_at": "2020-01-01T00:00:00+02:00" });
        let held = held(&model, Moment::now()).unwrap();
        assert_eq!((held.state, held.size), (HeldState::Unloading, None));
    }
}
