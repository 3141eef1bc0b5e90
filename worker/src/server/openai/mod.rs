//! Servers that speak OpenAI's protocol: llama-server, llama-swap, vLLM, TGI and others.

mod ask;
mod family;
mod merge;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared::llm::{Answer, Flaw, HeldModel, Loads, ServerKind};
use shared::task::Spec;

use self::ask::{Asked, Comes};
use self::family::{Family, Ready};
use self::merge::{Merged, says_something, text_of};
use super::canary::{Kind, Kinds};
use super::error::{Refusal, unwritten, words_in};
use super::http::{Call, Client, Limits, Reply};
use super::lines::Sent;
use super::{Address, Cancel, Failure, Key, Options, Server, Sink};

/// A server that speaks OpenAI's protocol.
#[derive(Debug)]
pub struct OpenAi {
    client: Client,
    /// Asked once it answers, and again after it did not: it may be another one then.
    family: Mutex<Option<Family>>,
    kinds: Kinds,
}

impl OpenAi {
    /// The server at an address, which may not be there yet.
    #[must_use]
    pub fn new(address: Address, limits: Limits) -> Self {
        Self {
            client: Client::new(address, limits),
            family: Mutex::default(),
            kinds: Kinds::default(),
        }
    }

    /// The same, where it may ask for a key.
    #[must_use]
    pub fn with_key(self, key: Option<Key>) -> Self {
        Self { client: self.client.with_key(key), ..self }
    }

    fn seen(&self) -> MutexGuard<'_, Option<Family>> {
        self.family.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn family(&self) -> Result<Family, Failure> {
        if let Some(family) = *self.seen() {
            return Ok(family);
        }
        let family = Family::detect(&self.client)?;
        *self.seen() = Some(family);
        Ok(family)
    }

    /// Whether it answers, and is through with loading the model that it was started with.
    fn ready(&self) -> Result<Ready, Failure> {
        match self.family() {
            Ok(family) => family.ready(&self.client),
            Err(failure) if family::is_loading(&failure) => Ok(Ready::Loading),
            Err(failure) => Err(failure),
        }
    }

    fn look(&self) -> Result<Vec<HeldModel>, Failure> {
        let family = match self.family() {
            Err(failure) if family::is_loading(&failure) => return Ok(Vec::new()),
            family => family?,
        };
        if family.has_health() && family.ready(&self.client)? == Ready::Loading {
            return Ok(Vec::new());
        }
        family.held(&self.client)
    }

    /// What does not answer may be another one when it does again.
    fn forget_if_gone<T>(&self, looked: Result<T, Failure>) -> Result<T, Failure> {
        if looked.is_err() {
            *self.seen() = None;
        }
        self.tellable(looked)
    }

    /// The one way out of here for what went wrong: the key stays inside.
    fn tellable<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        result.map_err(|failure| self.client.without_the_key(failure))
    }

    fn sign_of_life(&self, model: &str, kind: Kind, patience: Duration) -> Result<(), Failure> {
        let (path, body, comes) = match kind {
            Kind::Text => {
                let body =
                    json!({ "model": model, "prompt": "1", "max_tokens": 1, "stream": true });
                ("/v1/completions", body, Comes::InPieces)
            }
            Kind::Vector => {
                ("/v1/embeddings", json!({ "model": model, "input": "1" }), Comes::Whole)
            }
        };
        let asked = Asked { path: path.to_owned(), body, comes };
        let cancel = Cancel::default();
        let how = How { patience, cancel: &cancel, sink: &mut std::io::sink() };
        self.get_answer(&asked, how).map(drop)
    }

    fn get_answer(&self, asked: &Asked, how: How<'_>) -> Result<Answer, Failure> {
        let start = Instant::now();
        let (path, body) = (asked.path.as_str(), Some(&asked.body));
        let call = Call { path, body, patience: how.patience, cancel: how.cancel };
        let reply = self.client.call(call)?;
        how.sink.begins();
        // Some do not stream although they were asked to.
        if asked.comes == Comes::Whole || reply.is_whole() {
            let what = reply.what().to_owned();
            let body = reply.json()?;
            refuse_errors(&what, &body)?;
            how.sink.write_all(text_of(&body).as_bytes()).map_err(|error| unwritten(&error))?;
            return whole(&what, body, Times { first: None, all: start.elapsed() });
        }
        pieces(reply, start, how.sink)
    }
}

/// How an answer is waited for.
struct How<'a> {
    patience: Duration,
    cancel: &'a Cancel,
    sink: &'a mut dyn Sink,
}

struct Times {
    first: Option<Duration>,
    all: Duration,
}

fn pieces(mut reply: Reply<'_>, start: Instant, sink: &mut dyn Sink) -> Result<Answer, Failure> {
    let mut lines = reply.lines();
    let mut merged = Merged::default();
    let mut first = None;
    loop {
        match lines.next_event().map_err(|error| reply.broken(&error))? {
            Sent::Ended => {
                return Err(Failure::transport(reply.what(), "the answer ended without [DONE]"));
            }
            Sent::Done => break,
            Sent::Json(piece) => {
                refuse_errors(reply.what(), &piece)?;
                if first.is_none() && says_something(&piece) {
                    first = Some(start.elapsed());
                }
                sink.write_all(text_of(&piece).as_bytes()).map_err(|error| unwritten(&error))?;
                merged.take(piece);
            }
        }
    }
    reply.over(lines);
    let all = start.elapsed();
    match merged.into_body() {
        Some(body) => whole(reply.what(), body, Times { first, all }),
        None => Err(Failure::transport(reply.what(), "the answer holds nothing but its end")),
    }
}

fn refuse_errors(what: &str, piece: &Value) -> Result<(), Failure> {
    match piece.get("error").filter(|error| !error.is_null()) {
        None => Ok(()),
        Some(error) => {
            let code = error.get("code").and_then(Value::as_u64);
            let status = code.and_then(|code| u16::try_from(code).ok());
            Err(Refusal { what, status, words: &words_in(error) }.failure())
        }
    }
}

fn whole(what: &str, body: Value, times: Times) -> Result<Answer, Failure> {
    if body.get("choices").or_else(|| body.get("data")).is_none_or(|list| !list.is_array()) {
        return Err(Failure::transport(what, "the answer has neither `choices` nor `data`"));
    }
    let number = |name: &str| body.pointer(&format!("/usage/{name}")).and_then(Value::as_u64);
    Ok(Answer {
        model: body.get("model").and_then(Value::as_str).unwrap_or_default().to_owned(),
        prompt_tokens: number("prompt_tokens"),
        completion_tokens: number("completion_tokens"),
        load_seconds: None,
        first_token_seconds: times.first.map(|first| first.as_secs_f64()),
        seconds: times.all.as_secs_f64(),
        writing_seconds: writing_seconds(&body),
        flaw: Flaw::of(&body),
        body,
    })
}

/// How long the server itself says that writing took: llama-server does.
fn writing_seconds(body: &Value) -> Option<f64> {
    let millis = body.pointer("/timings/predicted_ms")?.as_f64()?;
    (millis > 0.0).then_some(millis / 1e3)
}

impl Server for OpenAi {
    fn kind(&self) -> ServerKind {
        ServerKind::OpenAi
    }

    fn address(&self) -> &str {
        self.client.address().as_str()
    }

    fn loads(&self) -> Loads {
        self.seen().map_or(Loads::Fixed, Family::loads)
    }

    fn ping(&self) -> Result<(), Failure> {
        self.forget_if_gone(self.ready().map(drop))
    }

    fn known(&self) -> Result<Vec<String>, Failure> {
        let said = self.tellable(self.client.get("/v1/models"))?;
        Ok(family::listed_models(&said).filter_map(family::id).map(str::to_owned).collect())
    }

    fn held(&self) -> Result<Vec<HeldModel>, Failure> {
        self.forget_if_gone(self.look())
    }

    /// The options are left to how the server was started: none of these servers takes any.
    fn load(&self, model: &str, _options: &Options, cancel: &Cancel) -> Result<(), Failure> {
        let load = |family: Family| family.load(&self.client, model, cancel);
        self.tellable(self.family().and_then(load))
    }

    fn unload(&self, model: &str, cancel: &Cancel) -> Result<(), Failure> {
        let unload = |family: Family| family.unload(&self.client, model, cancel);
        self.tellable(self.family().and_then(unload))
    }

    fn canary(&self, model: &str, patience: Duration) -> Result<Duration, Failure> {
        let start = Instant::now();
        let answered = self.kinds.prove(model, |kind| self.sign_of_life(model, kind, patience));
        self.tellable(answered).map(|()| start.elapsed())
    }

    fn ask(&self, spec: &Spec, cancel: &Cancel, sink: &mut dyn Sink) -> Result<Answer, Failure> {
        let what = || format!("{}: asking", self.client.address());
        let asked = ask::asked(spec).map_err(|problem| Failure::unaskable(&what(), &problem))?;
        let patience = self.client.limits().silence;
        let answer = self.tellable(self.get_answer(&asked, How { patience, cancel, sink }))?;
        if let (Comes::Whole, Some(model)) = (asked.comes, &spec.model) {
            self.kinds.answers(model, Kind::Vector);
        }
        Ok(answer)
    }
}
