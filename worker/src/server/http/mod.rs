//! HTTP calls to one server, in the calling thread, given up from any other one.
//!
//! A call has an agent (a connection) to itself while it runs, because giving a call up ends all
//! that its agent does. An agent whose answer was read to the end serves for a later call: on a
//! kept connection a short request costs a fifth of what it costs on a new one. Such a connection
//! may have been closed by the server meanwhile; then, and only then, a call is made again on a
//! new one.
//!
//! What follows the final marker of an answer says nothing, but a connection is only free when it
//! was read. That is left to the next call, while the server works on its answer: so calls that
//! follow each other use two connections in turn.

mod names;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use shared::llm::Refused;
use shared::outcome::Cause;
use ureq::Agent;
use ureq::http::{Request, Response};
use ureq::unversioned::transport::DefaultConnector;

use super::error::{Refusal, words_of};
use super::lines::{LineError, Lines};
use super::{Address, Cancel, Failure, Key};

/// How long a server may take, and how much it may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// To accept a connection.
    pub connect: Duration,
    /// To answer what costs it nothing: a ping, a list.
    pub glance: Duration,
    /// From one piece of an answer to the next, and from the request to the first.
    pub silence: Duration,
    /// To load a model.
    pub load: Duration,
    /// To let go of a model.
    pub unload: Duration,
    /// The bytes of a line.
    pub line: usize,
    /// The bytes of an answer, as it comes.
    pub answer: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            glance: Duration::from_secs(10),
            silence: Duration::from_secs(10 * 60),
            load: Duration::from_secs(30 * 60),
            unload: Duration::from_secs(5 * 60),
            line: 1024 * 1024,
            answer: 64 * 1024 * 1024,
        }
    }
}

/// The bytes of a refusal that are looked at.
const REFUSAL: u64 = 64 * 1024;
/// Of each kept connection, one for each way. Pieces of an answer are much smaller, and some
/// servers want a connection for every request.
const BUFFER: usize = 16 * 1024;
/// The connections that are kept.
const KEPT: usize = 8;
/// Where a key comes from.
const KEY_HELP: &str = "give it to the worker (or the brain that starts it) as $BRAINSTEM_API_KEY, \
                        or in the file that the setting api_key_file names, and start that again";

/// Calls one server, for any number of threads at once.
pub(super) struct Client {
    address: Address,
    limits: Limits,
    key: Option<Key>,
    kept: Mutex<Vec<Kept>>,
}

/// An agent whose last answer is over, or at least what matters of it.
struct Kept {
    agent: Agent,
    /// What comes after the final marker. The server is about to send it, and nobody should wait
    /// for that before there is something else to ask.
    rest: Option<ureq::BodyReader<'static>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What a call works with.
struct Picked {
    /// Free, its last answer read to the end.
    kept: Option<Agent>,
    /// To be read to the end while the server works.
    unread: Option<Kept>,
}

impl Kept {
    /// Reads the rest, as far as the end is near: a connection whose answer was read to its end
    /// serves for another one. It is closed when the rest is dropped before.
    fn read(self) -> Self {
        let mut piece = [0; 1024];
        if let Some(mut rest) = self.rest {
            let mut is_more = || matches!(rest.read(&mut piece), Ok(1..));
            let _end_is_near = (0..4).all(|_| is_more());
        }
        Self { agent: self.agent, rest: None }
    }
}

/// One call, and when it is given up.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) path: &'a str,
    /// Posted as JSON; `None`: a GET.
    pub(super) body: Option<&'a Value>,
    /// The longest silence, before the answer or between two pieces of it.
    pub(super) patience: Duration,
    pub(super) cancel: &'a Cancel,
}

/// An answer whose head has come.
pub(super) struct Reply<'a> {
    client: &'a Client,
    cancel: &'a Cancel,
    agent: Option<Agent>,
    response: Option<Response<ureq::Body>>,
    what: String,
    patience: Duration,
}

impl Client {
    pub(super) fn new(address: Address, limits: Limits) -> Self {
        Self { address, limits, key: None, kept: Mutex::default() }
    }

    /// The same, with a key in every request.
    pub(super) fn with_key(self, key: Option<Key>) -> Self {
        Self { key, ..self }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A failure as it may be told: servers repeat the key that they refuse.
    pub(super) fn without_the_key(&self, failure: Failure) -> Failure {
        match &self.key {
            Some(key) => {
                let refused = failure.refused.map(|refused| Box::new(key.hide_in(*refused)));
                Failure { message: key.hide(&failure.message), refused, ..failure }
            }
            None => failure,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_agent(&self) -> Agent {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(self.limits.connect))
            .timeout_per_write(Some(self.limits.glance))
            .max_idle_connections(1)
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .build();
        Agent::with_parts(config, DefaultConnector::default(), names::Names)
    }

    /// What a list or a ping answers, as JSON.
    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        let cancel = Cancel::default();
        let patience = self.limits.glance;
        self.call(Call { path, body: None, patience, cancel: &cancel })?.json()
    }

    /// The same where the server may not know the path: `None`.
    pub(super) fn get_if_there(&self, path: &str) -> Result<Option<Value>, Failure> {
        let cancel = Cancel::default();
        let call = Call { path, body: None, patience: self.limits.glance, cancel: &cancel };
        let reply = self.answered(call)?;
        match reply.status() {
            200 => reply.json().map(Some),
            // What is there is told to those who have the key.
            401 => Err(self.refused(reply)),
            _ => Ok(None),
        }
    }

    /// Makes a call; a status other than 200 to 299 is a failure.
    pub(super) fn call<'a>(&'a self, call: Call<'a>) -> Result<Reply<'a>, Failure> {
        let reply = self.answered(call)?;
        let is_fine = (200..300).contains(&reply.status());
        if is_fine { Ok(reply) } else { Err(self.refused(reply)) }
    }

    fn refused(&self, mut reply: Reply<'_>) -> Failure {
        let (status, retry_after_seconds) = (reply.status(), reply.retry_after_seconds());
        let body = match reply.read(REFUSAL) {
            Ok(body) => body,
            Err(failure) => return failure,
        };
        let refusal = Refusal { what: &reply.what, status: Some(status), words: &words_of(&body) };
        let mut failure = refusal.failure();
        let text = || String::from_utf8_lossy(&body).into_owned().into();
        let body = serde_json::from_slice(&body).unwrap_or_else(|_no_json| text());
        failure.refused = Some(Box::new(Refused { status, body, retry_after_seconds }));
        if failure.cause == Cause::Unauthorized {
            let what = if self.key.is_some() { "another key" } else { "a key" };
            failure.message += &format!("; the server wants {what}: {KEY_HELP}");
        }
        failure
    }

    /// Makes a call; any status will do.
    fn answered<'a>(&'a self, call: Call<'a>) -> Result<Reply<'a>, Failure> {
        let verb = if call.body.is_some() { "POST" } else { "GET" };
        let what = format!("{}: {verb} {}", self.address, call.path);
        let Picked { kept, unread } = self.pick();
        let was_kept = kept.is_some();
        let mut agent = kept.unwrap_or_else(|| self.new_agent());
        let mut sent = self.send(&agent, unread.as_ref(), call);
        if was_kept && sent.as_ref().is_err_and(is_stale) && !call.cancel.is_given_up() {
            agent = self.new_agent();
            sent = self.send(&agent, unread.as_ref(), call);
        }
        let response = sent.map_err(|error| failed(&error, &what, call))?;
        // The server is busy with the answer: time to read what nobody wanted to wait for.
        if let Some(unread) = unread {
            let (read, own) = (unread.read(), agent.clone());
            // Kept, it may serve another call, which does not end with this one.
            if call.cancel.begins(move || own.shutdown()) {
                self.keep(read);
            }
        }
        Ok(self.reply(agent, response, call, what))
    }

    /// What a call works with: an agent that is free, and one whose last answer is to be read to
    /// its end meanwhile.
    fn pick(&self) -> Picked {
        let mut kept = self.kept();
        let mut take = |is_read: bool| {
            let index = kept.iter().rposition(|kept| kept.rest.is_none() == is_read)?;
            Some(kept.swap_remove(index))
        };
        Picked { kept: take(true).map(|kept| kept.agent), unread: take(false) }
    }

    fn keep(&self, one: Kept) {
        let mut kept = self.kept();
        if kept.len() < KEPT {
            kept.push(one);
        }
    }

    fn reply<'a>(
        &'a self,
        agent: Agent,
        response: Response<ureq::Body>,
        call: Call<'a>,
        what: String,
    ) -> Reply<'a> {
        let (agent, response) = (Some(agent), Some(response));
        Reply { client: self, cancel: call.cancel, agent, response, what, patience: call.patience }
    }

    /// Sends a request and waits for the head of its answer. Who gives it up gives up the reading
    /// of `unread` as well.
    fn send(
        &self,
        agent: &Agent,
        unread: Option<&Kept>,
        call: Call<'_>,
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        let uri = format!("{}{}", self.address, call.path);
        let ends = [Some(agent.clone()), unread.map(|unread| unread.agent.clone())];
        if !call.cancel.begins(move || ends.into_iter().flatten().for_each(Agent::shutdown)) {
            return Err(std::io::Error::from(std::io::ErrorKind::NotConnected).into());
        }
        let head = if call.body.is_some() { Request::post(uri) } else { Request::get(uri) };
        let head = match &self.key {
            Some(key) => head.header("authorization", key.header()),
            None => head,
        };
        let sent = match call.body {
            None => agent.run(patient(agent, head.body(())?, call.patience)),
            Some(body) => {
                let request = head.header("content-type", "application/json");
                let request = request.body(body.to_string())?;
                agent.run(patient(agent, request, call.patience))
            }
        };
        if sent.is_err() {
            call.cancel.ended();
        }
        sent
    }
}

fn patient<B: ureq::AsSendBody>(
    agent: &Agent,
    request: Request<B>,
    patience: Duration,
) -> Request<B> {
    agent.configure_request(request).timeout_per_read(Some(patience)).build()
}

/// Whether a kept connection was closed before anything of an answer came.
fn is_stale(error: &ureq::Error) -> bool {
    if let ureq::Error::Io(error) = error {
        return !is_timeout(error);
    }
    matches!(error, ureq::Error::Protocol(_) | ureq::Error::ConnectionFailed)
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    matches!(inner, Some(ureq::Error::Timeout(_))) || matches!(error.kind(), TimedOut | WouldBlock)
}

fn failed(error: &ureq::Error, what: &str, call: Call<'_>) -> Failure {
    if call.cancel.is_given_up() {
        return Failure::given_up(what);
    }
    if matches!(error, ureq::Error::Timeout(ureq::Timeout::Connect)) {
        return Failure::transport(what, "nobody answers there: no connection in time");
    }
    let is_silent = matches!(error, ureq::Error::Timeout(_));
    if is_silent || matches!(error, ureq::Error::Io(error) if is_timeout(error)) {
        return Failure::silent(what, call.patience);
    }
    Failure::transport(what, &error.to_string())
}

impl Reply<'_> {
    pub(super) fn status(&self) -> u16 {
        self.response.as_ref().map_or(0, |response| response.status().as_u16())
    }

    /// What it says of when to ask again: seconds only. A date would need its clock.
    fn retry_after_seconds(&self) -> Option<u64> {
        let headers = self.response.as_ref().map(Response::headers)?;
        headers.get("retry-after")?.to_str().ok()?.trim().parse().ok()
    }

    /// What was asked, for messages.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// Whether the answer is one JSON text and no stream.
    pub(super) fn is_whole(&self) -> bool {
        let headers = self.response.as_ref().map(Response::headers);
        let kind = headers.and_then(|headers| headers.get("content-type")?.to_str().ok());
        kind.is_some_and(|kind| kind.starts_with("application/json"))
    }

    /// All of the answer, as JSON.
    pub(super) fn json(mut self) -> Result<Value, Failure> {
        let body = self.read(self.client.limits.answer)?;
        let wrong = |wrong| Failure::transport(&self.what, &format!("answered {wrong}"));
        super::lines::read_json(&body).map_err(wrong)
    }

    /// Reads the whole body, if it is not above a limit, and keeps the connection for later.
    fn read(&mut self, limit: u64) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        let Some(response) = self.response.take() else { return Ok(body) };
        let mut reader = response.into_body().into_reader().take(limit + 1);
        reader.read_to_end(&mut body).map_err(|error| self.broken(&LineError::Io(error)))?;
        if body.len() as u64 > limit {
            return Err(self.broken(&LineError::TooMuch { limit }));
        }
        self.keep(None);
        Ok(body)
    }

    /// The lines of the answer. What is read from them is to be given back to `over`.
    pub(super) fn lines(&mut self) -> Lines<ureq::BodyReader<'static>> {
        let limits = &self.client.limits;
        let body = self.response.take().map(Response::into_body);
        let body = body.unwrap_or_else(|| ureq::Body::builder().data(Vec::new()));
        Lines::new(body.into_reader(), limits.line, limits.answer)
    }

    /// The final marker has come: what is left is the end of the body.
    pub(super) fn over(&mut self, lines: Lines<ureq::BodyReader<'static>>) {
        self.keep(Some(lines.into_source()));
    }

    fn keep(&mut self, rest: Option<ureq::BodyReader<'static>>) {
        if let Some(agent) = self.agent.take().filter(|_agent| self.cancel.ended()) {
            self.client.keep(Kept { agent, rest });
        }
    }

    /// Why there is no more of the answer.
    pub(super) fn broken(&self, error: &LineError) -> Failure {
        if self.cancel.is_given_up() {
            return Failure::given_up(&self.what);
        }
        if let LineError::Io(error) = error {
            if is_timeout(error) {
                return Failure::silent(&self.what, self.patience);
            }
            return Failure::transport(&self.what, &format!("the answer broke off: {error}"));
        }
        Failure::transport(&self.what, &error.to_string())
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        self.cancel.ended();
    }
}
