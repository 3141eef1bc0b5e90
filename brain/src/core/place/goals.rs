//! What is expected of whom: a worker that was asked to load a model should have it soon. The
//! expectation is about the goal, not about the request: it holds until the model is there or is
//! not wanted any more, also when the request has failed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use queue::wire::brain_state::Warning;
use shared::event::Event;
use shared::llm::{Loads, ModelVerb};
use shared::name::Name;

use super::plan::Step;
use super::world::{Stage, WorkKind, World};
use crate::core::detect::condition::Conditions;
use crate::core::words::at::At;
use crate::core::words::command::{Command, say};

/// Models that workers should have, and models that nobody can have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Goals {
    /// Since when, in seconds on the brain's clock; before that began where an earlier brain asked.
    since: BTreeMap<(Name, String), f64>,
    unconsumed: Conditions<String>,
    nowhere: Conditions<String>,
}

/// What was decided in one look, and from what.
pub(crate) struct Planned<'a> {
    pub(crate) world: &'a World,
    pub(crate) steps: &'a [Step],
    /// A goal that is not met after this long is said.
    pub(crate) warn: Duration,
}

impl Goals {
    /// Takes in a look and what was asked for in it.
    pub(crate) fn look(&mut self, at: At, planned: Planned<'_>, out: &mut Vec<Command>) {
        let Planned { world, steps, warn } = planned;
        self.note(at, world, steps);
        self.forget(world);
        let mut late: BTreeMap<String, (f64, Vec<Name>)> = BTreeMap::new();
        for ((worker, model), since) in &self.since {
            let age = at.now.as_secs_f64() - since;
            let taken = world.asked.iter().any(|asked| {
                asked.worker == *worker && asked.model == *model && asked.stage == Stage::Taken
            });
            // What is being loaded makes progress, for as long as it may take.
            if age >= warn.as_secs_f64() && !taken {
                let entry = late.entry(model.clone()).or_default();
                entry.0 = entry.0.max(age);
                entry.1.push(worker.clone());
            }
        }
        for (model, (age, workers)) in &late {
            if let Some(count) = self.unconsumed.holds(at, model) {
                let (model, seconds, workers) = (model.clone(), *age, workers.clone());
                say(out, Event::LoadUnconsumed { model, seconds, workers, count });
            }
        }
        for (model, seconds) in self.unconsumed.keep(at, |model| late.contains_key(model)) {
            let seconds = seconds + warn.as_secs_f64();
            say(out, Event::LoadConsumed { model, seconds });
        }
        self.nowhere(at, world, out);
    }

    fn note(&mut self, at: At, world: &World, steps: &[Step]) {
        let loads = world.asked.iter().filter(|asked| asked.verb == ModelVerb::Load);
        for asked in loads {
            let key = (asked.worker.clone(), asked.model.clone());
            // A brain that has just started knows from the task since when.
            self.since.entry(key).or_insert(at.now.as_secs_f64() - asked.age);
        }
        for step in steps {
            // A worker has one goal at a time.
            self.since.retain(|(worker, model), _since| {
                *worker != step.worker || (step.verb == ModelVerb::Load && *model == step.model)
            });
            if step.verb == ModelVerb::Load {
                self.since
                    .entry((step.worker.clone(), step.model.clone()))
                    .or_insert(at.now.as_secs_f64());
            }
        }
    }

    /// What is met, what nobody wants any more, and what cannot be.
    fn forget(&mut self, world: &World) {
        self.since.retain(|(worker, model), _since| {
            let place = world.places.iter().find(|place| place.workers.contains(worker));
            let kind = WorkKind::Model(model.clone());
            let demand = world.demands.iter().find(|demand| demand.kind == kind);
            place.is_some_and(|place| {
                (place.is_usable() || world.is_stuck(worker, model))
                    && !place.has_loaded(model)
                    && world.wanted.contains(model)
                    && demand.is_none_or(|demand| !world.is_hopeless(place, demand))
            })
        });
    }

    /// Work whose model no server can load.
    fn nowhere(&mut self, at: At, world: &World, out: &mut Vec<Command>) {
        let mut nowhere = BTreeSet::new();
        for demand in &world.demands {
            let WorkKind::Model(model) = &demand.kind else { continue };
            let served = world.places.iter().any(|place| place.serves(&demand.kind));
            let mut places = world
                .places
                .iter()
                .filter(|place| place.is_usable() && place.loads == Loads::OnRequest);
            let open = places.clone().any(|place| world.hindrance(place, demand).is_none());
            if served || open {
                continue;
            }
            nowhere.insert(model.clone());
            if let Some(count) = self.nowhere.holds(at, model) {
                let why = places.next().and_then(|place| world.hindrance(place, demand));
                let why = why.unwrap_or_else(|| "no model server answers".to_owned());
                let (model, waiting) = (model.clone(), demand.tasks);
                say(out, Event::NoPlaceForModel { model, waiting, why, count });
            }
        }
        for (model, seconds) in self.nowhere.keep(at, |model| nowhere.contains(model)) {
            say(out, Event::PlaceForModel { model, seconds });
        }
    }

    /// What somebody should know.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let late = self.unconsumed.all().map(|(model, since)| {
            let workers = self.since.keys().filter(|(_worker, goal)| goal == model);
            let workers: Vec<&str> = workers.map(|(worker, _goal)| worker.as_str()).collect();
            let text = format!("{model} was asked of {} and is not loaded", workers.join(", "));
            Warning { code: "model.load_unconsumed".into(), text, since }
        });
        let nowhere = self.nowhere.all().map(|(model, since)| Warning {
            code: "model.no_place".into(),
            text: format!("tasks wait for {model}, and no server can load it"),
            since,
        });
        late.chain(nowhere).collect()
    }
}
