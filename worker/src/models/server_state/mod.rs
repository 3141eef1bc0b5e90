//! What is known of a model server, and what follows from each new look at it. Pure: it is told
//! what was seen and when, and returns what is to be said.
//!
//! One failed look is not yet a server that is down, and one canary that died is not yet a wedged
//! one; but from the first doubt on no task is given to a model until it has answered again.

mod asking;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use shared::event::Event;
use shared::llm::{
    Answer, Canary, FailedLoad, Health, HeldModel, HeldState, Loads, ModelServer, ModelVerb,
    bare_name, is_same_model,
};
use shared::name::Name;
use shared::outcome::Cause;

use super::Patience;
use super::busy::BusyModels;
use super::now::Now;
use super::speed::{Speed, Turn};
use super::trouble::Troubles;
use crate::server::{Failure, Server};

pub use asking::Pace;

/// So many looks in a row must fail before an answering server is called down.
const STRIKES: u32 = 2;

/// Whether a server is there, as far as whoever started the worker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It was asked for.
    Surely,
    /// It was not: people who only run scripts have none. Until it answers for the first time.
    Perhaps,
}

/// What is known of the server.
#[derive(Debug)]
pub struct ServerState {
    pub(super) expected: Expected,
    worker: Name,
    server: ModelServer,
    /// Looks in a row that failed.
    silent: u32,
    /// Models whose canaries died while the server answered pings.
    troubles: Troubles,
    /// Models that the server has no time for.
    busy: BusyModels,
    /// Models that tasks wait for, by their one spelling.
    wanted: BTreeSet<String>,
    /// Models that this worker loaded, as long as they are held.
    ours: BTreeSet<String>,
    /// What a `resource` task does now.
    at_work: Option<(ModelVerb, String)>,
    /// When each model last answered anything.
    proofs: BTreeMap<String, Instant>,
    /// Models whose arrival was said.
    said: BTreeSet<String>,
    speeds: BTreeMap<String, Speed>,
}

impl ServerState {
    /// Of a server that nobody has asked yet, and that is expected to be there.
    #[must_use]
    pub fn new(worker: Name, server: &dyn Server, patience: Patience, now: Now) -> Self {
        let server = ModelServer {
            kind: server.kind(),
            address: server.address().to_owned(),
            loads: server.loads(),
            health: Health::Unknown,
            health_since: now.at,
            error: None,
            models: Vec::new(),
            known: None,
            failed_loads: Vec::new(),
            busy: Vec::new(),
            canary: None,
        };
        Self {
            expected: Expected::Surely,
            worker,
            server,
            silent: 0,
            troubles: Troubles::new(patience),
            busy: BusyModels::default(),
            wanted: BTreeSet::new(),
            ours: BTreeSet::new(),
            at_work: None,
            proofs: BTreeMap::new(),
            said: BTreeSet::new(),
            speeds: BTreeMap::new(),
        }
    }

    /// As the heartbeat says it.
    #[must_use]
    pub fn server(&self) -> &ModelServer {
        &self.server
    }

    /// It did not answer.
    pub fn silent(&mut self, failure: &Failure, now: Now) -> Vec<Event> {
        self.silent += 1;
        let (worker, server) = (self.worker.clone(), self.server.address.clone());
        let error = failure.message.clone();
        if self.server.health == Health::Down {
            return vec![Event::ServerDownAgain { worker, server, error }];
        }
        self.doubt_all(now);
        if self.silent < STRIKES && self.server.health != Health::Unknown {
            return Vec::new();
        }
        self.set_health(Health::Down, Some(error.clone()), now);
        // Whatever it held, it is not known to hold it any more.
        self.server.models.clear();
        self.said.clear();
        self.proofs.clear();
        self.troubles.clear();
        self.busy.clear();
        self.server.busy.clear();
        self.ours.clear();
        match self.expected {
            Expected::Surely => vec![Event::ServerDown { worker, server, error }],
            Expected::Perhaps => vec![Event::ServerAbsent { worker, server }],
        }
    }

    /// Whether there is a server, as far as is known.
    pub(super) fn is_there(&self) -> bool {
        self.expected == Expected::Surely
    }

    /// It answered, and holds these.
    pub fn holds(&mut self, held: Vec<HeldModel>, loads: Loads, now: Now) -> Vec<Event> {
        self.silent = 0;
        self.expected = Expected::Surely;
        self.server.loads = loads;
        let mut events = Vec::new();
        match self.server.health {
            Health::Up | Health::Wedged => {}
            Health::Unknown | Health::Down => events.extend(self.is_up(now)),
        }
        let before = std::mem::take(&mut self.server.models);
        self.server.models = held.into_iter().map(|held| self.merge(&before, held, now)).collect();
        for gone in before {
            if self.server.held(&gone.model).is_some() {
                continue;
            }
            if self.is_at_work_with(&gone.model) {
                self.server.models.push(gone);
                continue;
            }
            self.troubles.forget(&gone.model);
            if self.forget(&gone.model) {
                let (worker, model) = (self.worker.clone(), gone.model);
                events.push(Event::ModelUnloaded { worker, model, asked: false });
            }
        }
        if self.server.health == Health::Wedged && self.server.models.is_empty() {
            events.extend(self.is_up(now));
        }
        events
    }

    /// What one model's entry becomes when the server lists it.
    fn merge(&self, before: &[HeldModel], held: HeldModel, now: Now) -> HeldModel {
        let known = before.iter().find(|known| is_same_model(&known.model, &held.model));
        let state = match (held.state, known.map(|known| known.state)) {
            (_, Some(state)) if self.is_at_work_with(&held.model) => state,
            (HeldState::Loading, _) => HeldState::Loading,
            (HeldState::Unloading, _) => HeldState::Unloading,
            (HeldState::Loaded | HeldState::Unproven, Some(HeldState::Loaded)) => HeldState::Loaded,
            (HeldState::Loaded | HeldState::Unproven, _) => HeldState::Unproven,
        };
        let since = known.filter(|known| known.state == state).map_or(now.at, |known| known.since);
        HeldModel { state, since, error: self.troubles.error(&held.model), ..held }
    }

    /// The models it could load. A list that changes clears what was remembered of failed loads.
    pub fn knows(&mut self, mut known: Vec<String>) {
        known.sort();
        let known = Some(known);
        if self.server.known != known {
            self.server.failed_loads.clear();
            self.server.known = known;
        }
    }

    /// A `resource` task begins its work.
    pub fn begins(&mut self, verb: ModelVerb, model: &str, now: Now) -> Vec<Event> {
        self.at_work = Some((verb, model.to_owned()));
        let (worker, server) = (self.worker.clone(), self.server.address.clone());
        match verb {
            ModelVerb::Load => {
                self.enter(model, HeldState::Loading, now);
                vec![Event::ModelLoading { worker, model: model.to_owned(), server }]
            }
            ModelVerb::Unload => {
                if self.server.held(model).is_some() {
                    self.enter(model, HeldState::Unloading, now);
                }
                Vec::new()
            }
        }
    }

    /// That work was given up, or failed, in a way that says nothing about the model.
    pub fn gave_up(&mut self, now: Now) {
        if let Some((_verb, model)) = self.at_work.take() {
            // Whether it is there the next look says.
            self.doubt(&model, now);
        }
    }

    /// A load failed: the model is not held, and the failure is remembered.
    pub fn load_failed(&mut self, model: &str, failure: &Failure, now: Now) -> Vec<Event> {
        self.at_work = None;
        self.forget(model);
        self.server.models.retain(|held| !is_same_model(&held.model, model));
        self.server.failed_loads.retain(|failed| !is_same_model(&failed.model, model));
        let (model, message) = (model.to_owned(), failure.message.clone());
        let (cause, error) = (failure.cause, message.clone());
        let failed = FailedLoad { model: model.clone(), cause, message, at: now.at };
        self.server.failed_loads.push(failed);
        vec![Event::ModelLoadFailed { worker: self.worker.clone(), model, cause, error }]
    }

    /// An unload is done.
    pub fn unloaded(&mut self, model: &str) -> Vec<Event> {
        self.at_work = None;
        self.forget(model);
        self.troubles.forget(model);
        self.server.models.retain(|held| !is_same_model(&held.model, model));
        let (worker, model) = (self.worker.clone(), model.to_owned());
        vec![Event::ModelUnloaded { worker, model, asked: true }]
    }

    /// A canary lives: the model answers. `load` is how long its loading took, where that was ours.
    pub fn proven(
        &mut self,
        model: &str,
        took: Duration,
        load: Option<Duration>,
        now: Now,
    ) -> Vec<Event> {
        let mut events = self.answers(model, now);
        if load.is_some() {
            self.ours.insert(bare_name(model).to_owned());
        }
        let canary_seconds = took.as_secs_f64();
        self.server.canary = Some(Canary { at: now.at, seconds: canary_seconds });
        self.server.failed_loads.retain(|failed| !is_same_model(&failed.model, model));
        if !self.said.insert(bare_name(model).to_owned()) {
            return events;
        }
        let (worker, model) = (self.worker.clone(), model.to_owned());
        let held = self.server.held(&model);
        let (size, vram) = (held.and_then(|h| h.size), held.and_then(|h| h.vram));
        let seconds = load.map(|load| load.as_secs_f64());
        events.push(Event::ModelLoaded {
            worker: worker.clone(),
            model: model.clone(),
            seconds,
            canary_seconds,
            size,
            vram,
        });
        if let (Some(size), Some(vram)) = (size, vram)
            && vram < size
        {
            events.push(Event::ModelOnCpu { worker, model, size, vram });
        }
        events
    }

    /// A request of ours failed by the server's fault: it gets no other one before it has answered
    /// a canary.
    pub fn doubt(&mut self, model: &str, now: Now) {
        self.proofs.remove(bare_name(model));
        let held = self.server.models.iter_mut();
        for held in held.filter(|held| is_same_model(&held.model, model)) {
            if held.state != HeldState::Unproven {
                (held.state, held.since) = (HeldState::Unproven, now.at);
            }
        }
    }

    fn doubt_all(&mut self, now: Now) {
        let models: Vec<_> = self.server.models.iter().map(|held| held.model.clone()).collect();
        for model in models.iter().filter(|model| !self.is_at_work_with(model)).collect::<Vec<_>>()
        {
            self.doubt(model, now);
        }
    }

    /// A request of ours was answered, beside so many others.
    pub fn answered(&mut self, model: &str, answer: &Answer, beside: u32) -> Vec<Event> {
        let now = Now::new();
        let mut events = self.answers(model, now);
        let Some(rate) = Speed::of(answer, beside) else { return events };
        let speed = self.speeds.entry(bare_name(model).to_owned()).or_default();
        let (worker, model, tokens_per_second) = (self.worker.clone(), model.to_owned(), rate);
        events.extend(speed.see(rate).map(|turn| match turn {
            Turn::Slow { usual } => Event::ModelSlow { worker, model, tokens_per_second, usual },
            Turn::QuickAgain => Event::ModelQuickAgain { worker, model, tokens_per_second },
        }));
        events
    }

    /// The model has just answered something.
    fn answers(&mut self, model: &str, now: Now) -> Vec<Event> {
        let troubled = self.troubles.answered(model);
        let mut events: Vec<Event> = troubled
            .map(|since| Event::ModelAnswersAgain {
                worker: self.worker.clone(),
                model: model.to_owned(),
                seconds: now.at.seconds_since(since),
            })
            .into_iter()
            .collect();
        for held in self.server.models.iter_mut().filter(|held| is_same_model(&held.model, model)) {
            held.error = None;
        }
        if self.at_work.as_ref().is_some_and(|(verb, _)| *verb == ModelVerb::Load)
            && self.is_at_work_with(model)
        {
            self.at_work = None;
        }
        self.proofs.insert(bare_name(model).to_owned(), now.tick);
        if !self.is_at_work_with(model) {
            self.enter(model, HeldState::Loaded, now);
        }
        let busy_since = self.busy.served(model);
        self.server.busy = self.busy.list();
        events.extend(busy_since.map(|since| Event::ServerNotBusy {
            worker: self.worker.clone(),
            server: self.server.address.clone(),
            model: model.to_owned(),
            seconds: now.at.seconds_since(since),
        }));
        if self.server.health == Health::Wedged {
            events.extend(self.is_up(now));
        }
        events
    }

    fn is_up(&mut self, now: Now) -> Vec<Event> {
        let since = self.server.health_since;
        let seconds = match self.server.health {
            Health::Unknown => None,
            Health::Up | Health::Down | Health::Wedged => Some(now.at.seconds_since(since)),
        };
        self.set_health(Health::Up, None, now);
        // What failed because the server was ill may go well now; what it does not have, or what
        // does not fit, is as it was.
        let lasts = |cause| matches!(cause, Cause::Oom | Cause::ModelMissing);
        self.server.failed_loads.retain(|failed| lasts(failed.cause));
        let (worker, server) = (self.worker.clone(), self.server.address.clone());
        vec![Event::ServerUp { worker, server, seconds }]
    }

    fn set_health(&mut self, health: Health, error: Option<String>, now: Now) {
        (self.server.health, self.server.health_since, self.server.error) = (health, now.at, error);
    }

    fn enter(&mut self, model: &str, state: HeldState, now: Now) {
        let found = self.server.models.iter_mut().find(|held| is_same_model(&held.model, model));
        match found {
            Some(held) if held.state == state => {}
            Some(held) => (held.state, held.since) = (state, now.at),
            None => {
                let (model, since) = (model.to_owned(), now.at);
                self.server.models.push(HeldModel {
                    model,
                    state,
                    since,
                    size: None,
                    vram: None,
                    error: None,
                });
            }
        }
    }

    /// Whether its arrival had been said.
    fn forget(&mut self, model: &str) -> bool {
        self.proofs.remove(bare_name(model));
        self.ours.remove(bare_name(model));
        self.said.remove(bare_name(model))
    }

    fn is_at_work_with(&self, model: &str) -> bool {
        self.at_work.as_ref().is_some_and(|(_verb, at_work)| is_same_model(at_work, model))
    }
}
