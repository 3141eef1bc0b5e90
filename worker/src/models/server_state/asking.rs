//! Which model is asked for a sign of life, and when; what follows where it gives none, or where its
//! server has no time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use shared::event::Event;
use shared::llm::{Health, HeldModel, HeldState, bare_name, is_same_model};

use super::ServerState;
use crate::models::busy::Met;
use crate::models::now::Now;
use crate::server::Failure;

impl ServerState {
    /// A canary died although the server answers pings. So many other requests run: as long as any
    /// does, nobody knows that the server stands still.
    pub fn mute(&mut self, model: &str, failure: &Failure, others: u32, now: Now) -> Vec<Event> {
        self.doubt(model, now);
        let count = self.troubles.met(model, failure, now);
        let error = failure.message.clone();
        let held = self.server.models.iter_mut();
        for held in held.filter(|held| is_same_model(&held.model, model)) {
            held.error = Some(error.clone());
        }
        let (worker, model) = (self.worker.clone(), model.to_owned());
        let mut events = Vec::new();
        if count == 1 {
            let (worker, model, error) = (worker.clone(), model.clone(), error.clone());
            events.push(Event::ModelSilent { worker, model, error });
        }
        if others == 0 && self.server.health != Health::Wedged && self.stands_still() {
            self.set_health(Health::Wedged, Some(error.clone()), now);
            let server = self.server.address.clone();
            events.push(Event::ServerWedged { worker, server, model, error });
        }
        events
    }

    /// The server had no time for a request: the model is asked for nothing for a while.
    pub fn busy(&mut self, model: &str, failure: &Failure, now: Now) -> Vec<Event> {
        let met = self.busy.met(model, failure, now);
        self.server.busy = self.busy.list();
        match met {
            Met::Known | Met::Paused => Vec::new(),
            Met::Told(seconds) => {
                let (worker, server) = (self.worker.clone(), self.server.address.clone());
                let (model, error) = (model.to_owned(), failure.message.clone());
                vec![Event::ServerBusy { worker, server, model, error, seconds }]
            }
        }
    }

    /// What was to be left alone for a while may be asked again where that is over.
    pub fn go_on(&mut self, now: Now) {
        self.busy.go_on(now.tick);
        self.server.busy = self.busy.list();
    }

    /// Whether all models that are asked are silent.
    fn stands_still(&self) -> bool {
        let asked = self.server.models.iter().filter(|held| self.is_asked(held));
        self.troubles.are_all_silent(asked.map(|held| held.model.as_str()))
    }

    /// Whether it gets canaries: only what tasks wait for, and what this worker loaded. Others may
    /// cost money, or be loaded only to answer.
    fn is_asked(&self, held: &HeldModel) -> bool {
        let model = bare_name(&held.model);
        let is_there = matches!(held.state, HeldState::Loaded | HeldState::Unproven);
        is_there && (self.wanted.contains(model) || self.ours.contains(model))
    }

    /// These are the models that tasks wait for. Whether there is something to be found out for
    /// them now.
    pub fn want(&mut self, models: BTreeSet<String>) -> bool {
        if models == self.wanted {
            return false;
        }
        self.wanted = models;
        let is_new = |held: &HeldModel| {
            held.state == HeldState::Unproven && self.troubles.again(&held.model).is_none()
        };
        match self.server.health {
            Health::Unknown | Health::Down => !self.wanted.is_empty(),
            Health::Up | Health::Wedged => {
                self.server.models.iter().any(|held| self.is_asked(held) && is_new(held))
            }
        }
    }

    /// The model that should answer a canary now: one that has yet to, or, where nothing runs, one
    /// that has not answered anything for a while, or since another one did not.
    #[must_use]
    pub fn due(&self, now: Now, pace: Pace) -> Option<String> {
        if self.at_work.is_some() {
            return None;
        }
        let is_due = |held: &&HeldModel| match (held.state, pace) {
            (HeldState::Unproven, _) => {
                self.troubles.again(&held.model).is_none_or(|again| again <= now.tick)
            }
            (HeldState::Loaded, Pace::Idle(interval)) => {
                let proof = self.proofs.get(bare_name(&held.model));
                let is_old = |proof: &Instant| {
                    now.tick.saturating_duration_since(*proof) >= interval
                        || self.troubles.last_silence().is_some_and(|silence| *proof < silence)
                };
                proof.is_none_or(is_old)
            }
            (HeldState::Loaded | HeldState::Loading | HeldState::Unloading, _) => false,
        };
        let is_open = |held: &&HeldModel| !self.busy.is_paused(&held.model);
        let asked = self.server.models.iter().filter(|held| self.is_asked(held)).filter(is_open);
        // Those first of which nothing is known, so that one that fails keeps no other waiting.
        let due = asked.filter(is_due).min_by_key(|held| self.troubles.again(&held.model));
        due.map(|held| held.model.clone())
    }

    /// When a model that did not answer, or that there was no time for, is to be asked again.
    #[must_use]
    pub fn next_turn(&self) -> Option<Instant> {
        let asked = self.server.models.iter().filter(|held| self.is_asked(held));
        let canary = self.troubles.next(asked.map(|held| held.model.as_str()));
        canary.into_iter().chain(self.busy.next()).min()
    }
}

/// How often canaries are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Requests run, and are canaries themselves.
    Busy,
    /// Nothing runs: each model after so long.
    Idle(Duration),
}
