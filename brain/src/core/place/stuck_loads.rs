//! Loads and unloads that do not end: a server that hangs in one is no place for models until it
//! is through, its goal counts as failed there, and others are asked.

use serde_json::{Map, Value, json};
use shared::event::Event;
use shared::llm::ModelVerb;
use shared::name::Name;

use super::observe::View;
use super::world::{Stage, World};
use crate::core::detect::condition::Conditions;
use crate::core::words::snapshot::Held;
use crate::core::{At, Command, say};

/// A load may take so many times what it was measured to take.
const FACTOR: f64 = 5.0;

/// A request that has run for longer than it may.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hang {
    pub(crate) seconds: f64,
    pub(crate) limit: f64,
    /// What its worker says of it and of the server.
    pub(crate) evidence: Map<String, Value>,
}

/// What is said about them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hangs {
    told: Conditions<(Name, ModelVerb, String)>,
}

impl View<'_> {
    /// How a request that was taken stands. One that its worker does not speak of yet has only
    /// just begun; a worker that says nothing at all is hung itself.
    pub(super) fn taken(&self, held: &Held) -> Stage {
        let own = self.seen.workers.get(&held.worker).and_then(|worker| worker.own_heartbeat());
        let run = own.and_then(|own| own.runs(held.name));
        let (Some(own), Some(run)) = (own, run) else { return Stage::Taken };
        let Some(started) = run.started_at else { return Stage::Taken };
        // Both by the worker's clock: ours may be minutes ahead of it, or behind.
        let seconds = own.at.seconds_since(started);
        let model = held.task.as_ref().and_then(|task| task.model.as_deref());
        let measured =
            model.and_then(|model| self.measured.of(model)).and_then(|model| model.loads.seconds());
        let limit = (measured.unwrap_or(0.0) * FACTOR).max(self.rules.stuck_after);
        if seconds <= limit {
            return Stage::Taken;
        }
        let mut evidence = run.evidence.clone();
        evidence.insert("limit_seconds".into(), json!(limit));
        evidence.insert("measured_load_seconds".into(), json!(measured));
        evidence.insert("last_output_age_seconds".into(), json!(run.last_output_age_seconds));
        if let Some(server) = &own.ability.server {
            evidence.insert("server".into(), json!(server.address));
            evidence.insert("health".into(), json!(server.health));
            evidence.insert("error".into(), json!(server.error));
        }
        Stage::Stuck(Hang { seconds, limit, evidence })
    }
}

impl Hangs {
    /// Takes in a look.
    pub(crate) fn look(&mut self, at: At, world: &World, out: &mut Vec<Command>) {
        let mut there = Vec::new();
        for asked in &world.asked {
            let Stage::Stuck(hang) = &asked.stage else { continue };
            let (worker, verb, model) = (asked.worker.clone(), asked.verb, asked.model.clone());
            let key = (worker.clone(), verb, model.clone());
            if let Some(count) = self.told.holds(at, &key) {
                let Hang { seconds, limit, evidence } = hang.clone();
                let hangs =
                    Event::LoadStuck { worker, verb, model, seconds, limit, count, evidence };
                say(out, hangs);
            }
            there.push(key);
        }
        for ((worker, verb, model), seconds) in self.told.keep(at, |key| there.contains(key)) {
            say(out, Event::LoadUnstuck { worker, verb, model, seconds });
        }
    }
}
