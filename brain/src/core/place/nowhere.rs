//! Work whose model no server can load now.

use queue::wire::brain_state::Warning;
use shared::event::Event;

use super::world::{Demand, WorkKind, World};
use crate::core::detect::condition::Conditions;
use crate::core::words::at::At;
use crate::core::words::command::{Command, say};

/// Models that tasks wait for and that nobody can load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nowhere {
    models: Conditions<String>,
}

impl Nowhere {
    /// Takes in a look.
    pub(crate) fn look(&mut self, at: At, world: &World, out: &mut Vec<Command>) {
        let mut there = Vec::new();
        for demand in &world.demands {
            let WorkKind::Model(model) = &demand.kind else { continue };
            let Some(why) = shut_everywhere(world, demand) else { continue };
            if let Some(count) = self.models.holds(at, model) {
                let (model, waiting) = (model.clone(), demand.tasks);
                say(out, Event::NoPlaceForModel { model, waiting, why, count });
            }
            there.push(model);
        }
        for (model, seconds) in self.models.keep(at, |model| there.contains(&model)) {
            say(out, Event::PlaceForModel { model, seconds });
        }
    }

    /// What somebody should know.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = Warning> {
        self.models.all().map(|(model, since)| Warning {
            code: "model.no_place".into(),
            text: format!("tasks wait for {model}, and no server can load it now"),
            since,
        })
    }
}

/// Why none of the workers has it or could load it now, worker by worker. `None`: one does.
fn shut_everywhere(world: &World, demand: &Demand) -> Option<String> {
    let mut why = Vec::new();
    for place in &world.places {
        for member in &place.members {
            let lack = world.lack(place, member, demand).filter(|lack| lack.is_shut())?;
            why.push(format!("{}: {lack}", member.name));
        }
    }
    Some(if why.is_empty() {
        "no living worker has a model server".to_owned()
    } else {
        why.join("; ")
    })
}
