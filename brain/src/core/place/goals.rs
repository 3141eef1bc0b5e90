//! What is expected of whom: a worker that could help with work that waits should hold its model
//! soon. The expectation is about the goal, not about a request: it holds, whatever becomes of
//! requests, until the worker has the model, cannot help any more, or nothing waits for it.

use std::collections::BTreeMap;
use std::time::Duration;

use queue::wire::brain_state::Warning;
use shared::event::Event;
use shared::name::Name;

use super::lack::{Lack, Meaning};
use super::plan;
use super::world::{Demand, Member, Place, WorkKind, World};
use crate::core::detect::condition::Conditions;
use crate::core::words::at::At;
use crate::core::words::command::{Command, say};

/// The models that workers should have, and do not have yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Goals {
    open: BTreeMap<Goal, Unmet>,
    late: Conditions<String>,
    /// Whether an earlier look was taken in.
    began: bool,
}

/// This worker should have this model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Goal {
    model: String,
    worker: Name,
}

/// Why it has not, and since when: in seconds on the brain's clock, before that began where tasks
/// waited already.
#[derive(Clone, Debug)]
struct Unmet {
    since: f64,
    lack: Lack,
}

/// The goals for one model that have been open for too long.
struct Late<'a> {
    model: &'a str,
    seconds: f64,
    workers: Vec<(&'a Name, &'a Lack)>,
}

impl Goals {
    /// Takes in a look. A goal that is not met after `warn` is said.
    pub(crate) fn look(&mut self, at: At, world: &World, warn: Duration, out: &mut Vec<Command>) {
        let mut open = BTreeMap::new();
        for place in &world.places {
            for member in &place.members {
                open.extend(self.of_member(at, world, place, member));
            }
        }
        self.open = open;
        self.began = true;
        let late = late(&self.open, at, warn);
        for goals in &late {
            if let Some(count) = self.late.holds(at, &goals.model.to_owned()) {
                goals.say(count, out);
            }
        }
        let is_late = |model: &String| late.iter().any(|goals| goals.model == model);
        for (model, seconds) in self.late.keep(at, is_late) {
            let seconds = seconds + warn.as_secs_f64();
            say(out, Event::LoadConsumed { model, seconds });
        }
    }

    /// The goals of one worker in this look.
    fn of_member(
        &self,
        at: At,
        world: &World,
        place: &Place,
        member: &Member,
    ) -> Vec<(Goal, Unmet)> {
        let mut goals = Vec::new();
        for demand in &world.demands {
            let WorkKind::Model(model) = &demand.kind else { continue };
            let lack = world.lack(place, member, demand);
            let Some(lack) = lack.filter(|lack| lack.meaning() == Meaning::Open) else { continue };
            let goal = Goal { model: model.clone(), worker: member.name.clone() };
            let known = self.open.get(&goal).map(|unmet| unmet.since);
            let since = known.or_else(|| {
                let arises = lack.is_requested() || plan::would_help(world, place, demand);
                arises.then(|| at.now.as_secs_f64() - self.age(world, place, member, demand))
            });
            goals.extend(since.map(|since| (goal, Unmet { since, lack })));
        }
        // What a limit holds back now waits all the same.
        let waits = |model: &String| {
            let kind = WorkKind::Model(model.clone());
            world.wanted.contains(model)
                && !world.demands.iter().any(|demand| demand.kind == kind)
                && !place.has_loaded(model)
        };
        let held_back = self
            .open
            .iter()
            .filter(|(goal, _unmet)| goal.worker == member.name && waits(&goal.model));
        goals.extend(held_back.map(|(goal, unmet)| (goal.clone(), unmet.clone())));
        goals
    }

    /// For how long a goal that is seen now for the first time has been one, in seconds. A brain
    /// that has just started knows it from what was asked, from the tasks and from the worker.
    fn age(&self, world: &World, place: &Place, member: &Member, demand: &Demand) -> f64 {
        let asked = world.asked.iter().find(|asked| {
            place.member(&asked.worker).is_some()
                && demand.kind == WorkKind::Model(asked.model.clone())
        });
        let asked = asked.map_or(0.0, |asked| asked.age);
        let waited = if self.began { 0.0 } else { demand.age.min(member.idle_seconds) };
        asked.max(waited)
    }

    /// What somebody should know.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = Warning> {
        self.late.all().map(|(model, since)| {
            let own = self.open.iter().filter(|(goal, _unmet)| goal.model == *model);
            let each: Vec<String> =
                own.map(|(goal, unmet)| format!("{}: {}", goal.worker, unmet.lack)).collect();
            let text = format!("{model} is wanted and not loaded: {}", each.join("; "));
            Warning { code: "model.load_unconsumed".into(), text, since }
        })
    }
}

/// The goals that have been open for at least `warn`, by model.
fn late<'a>(open: &'a BTreeMap<Goal, Unmet>, at: At, warn: Duration) -> Vec<Late<'a>> {
    let mut all: Vec<Late<'a>> = Vec::new();
    for (goal, unmet) in open {
        let seconds = at.now.as_secs_f64() - unmet.since;
        if seconds < warn.as_secs_f64() {
            continue;
        }
        // Goals are in the order of their models.
        match all.last_mut().filter(|last| last.model == goal.model) {
            Some(last) => {
                last.seconds = last.seconds.max(seconds);
                last.workers.push((&goal.worker, &unmet.lack));
            }
            None => all.push(Late {
                model: &goal.model,
                seconds,
                workers: vec![(&goal.worker, &unmet.lack)],
            }),
        }
    }
    all
}

impl Late<'_> {
    /// In the words of old for those of whom the load is asked, in others for those it is not.
    fn say(&self, count: u64, out: &mut Vec<Command>) {
        let (asked, others): (Vec<_>, Vec<_>) =
            self.workers.iter().partition(|(_name, lack)| lack.is_requested());
        for (workers, requested) in [(asked, true), (others, false)] {
            if workers.is_empty() {
                continue;
            }
            let (model, seconds) = (self.model.to_owned(), self.seconds);
            let states = workers.iter().map(|(name, lack)| ((*name).clone(), lack.to_string()));
            let states: BTreeMap<Name, String> = states.collect();
            let workers = states.keys().cloned().collect();
            say(
                out,
                if requested {
                    Event::LoadUnconsumed { model, seconds, workers, states, count }
                } else {
                    Event::ModelWanted { model, seconds, workers, states, count }
                },
            );
        }
    }
}
