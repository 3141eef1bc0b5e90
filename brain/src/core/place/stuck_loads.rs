//! Loads and unloads that do not end: a server that hangs in one is no place for models until it
//! is through, its goal counts as failed there, and others are asked.

use shared::event::Event;
use shared::llm::ModelVerb;
use shared::name::Name;

use super::world::{Stage, StuckLoad, World};
use crate::core::detect::condition::Conditions;
use crate::core::words::at::At;
use crate::core::words::command::{Command, say};

/// What is said about them.
#[derive(Clone, Debug, Default)]
pub(crate) struct StuckLoads {
    told: Conditions<(Name, ModelVerb, String)>,
}

impl StuckLoads {
    /// Takes in a look.
    pub(crate) fn look(&mut self, at: At, world: &World, out: &mut Vec<Command>) {
        let mut there = Vec::new();
        for asked in &world.asked {
            let Stage::Stuck(hang) = &asked.stage else { continue };
            let (worker, verb, model) = (asked.worker.clone(), asked.verb, asked.model.clone());
            let key = (worker.clone(), verb, model.clone());
            if let Some(count) = self.told.holds(at, &key) {
                let StuckLoad { seconds, limit, evidence } = hang.clone();
                let stuck =
                    Event::LoadStuck { worker, verb, model, seconds, limit, count, evidence };
                say(out, stuck);
            }
            there.push(key);
        }
        for ((worker, verb, model), seconds) in self.told.keep(at, |key| there.contains(key)) {
            say(out, Event::LoadUnstuck { worker, verb, model, seconds });
        }
    }
}
