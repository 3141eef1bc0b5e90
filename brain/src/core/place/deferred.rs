//! Work whose model is not loaded because all who could load it are at other work: when a load can
//! come.

use shared::event::{Event, LoadOutlook};

use super::lack::{Lack, Meaning};
use super::world::{Demand, WorkKind, World};
use crate::core::detect::condition::Conditions;
use crate::core::words::at::At;
use crate::core::words::command::{Command, say};

/// Models whose load waits for other work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deferred {
    models: Conditions<String>,
}

impl Deferred {
    /// Takes in a look.
    pub(crate) fn look(&mut self, at: At, world: &World, out: &mut Vec<Command>) {
        let mut there = Vec::new();
        for demand in &world.demands {
            let WorkKind::Model(model) = &demand.kind else { continue };
            let Some(outlook) = outlook(world, demand) else { continue };
            if self.models.holds(at, model).is_some() {
                let (model, llm_waiting) = (model.clone(), world.llm_waiting());
                let (waiting, loaded) = (demand.tasks, world.loaded());
                say(out, Event::LoadDeferred { model, waiting, llm_waiting, loaded, outlook });
            }
            there.push(model);
        }
        // That it can come shows in the load that is asked for.
        drop(self.models.keep(at, |model| there.contains(&model)));
    }
}

/// When a load can come; `None` where somebody has the model, could load it at once, or nobody
/// could even later.
fn outlook(world: &World, demand: &Demand) -> Option<LoadOutlook> {
    let mut outlook = LoadOutlook { busy: Vec::new(), seconds: None, due_seconds: demand.slack };
    for place in &world.places {
        for member in &place.members {
            let lack = world.lack(place, member, demand)?;
            match lack.meaning() {
                Meaning::Open => return None,
                Meaning::Never => continue,
                Meaning::Later => {}
            }
            outlook.busy.push(member.name.clone());
            if lack == Lack::Busy {
                let ran = member.busy.and_then(|busy| busy.seconds);
                let left = world.script_seconds.zip(ran).map(|(usual, ran)| (usual - ran).max(0.0));
                outlook.seconds = match (outlook.seconds, left) {
                    (Some(one), Some(other)) => Some(f64::min(one, other)),
                    (one, other) => one.or(other),
                };
            }
        }
    }
    (!outlook.busy.is_empty()).then_some(outlook)
}
