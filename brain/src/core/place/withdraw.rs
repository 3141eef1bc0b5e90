//! Requests whose goal is gone: what was asked for, has not begun, and need not be done any more.

use shared::llm::ModelVerb;

use super::world::{Asked, Place, Stage, Standing, WorkKind, World};

/// Each with the reason, in words.
pub(crate) fn withdrawals(world: &World) -> Vec<(&Asked, &'static str)> {
    let waiting = world.asked.iter().filter(|asked| asked.stage == Stage::Waiting);
    waiting.filter_map(|asked| Some((asked, gone(world, asked)?))).collect()
}

fn gone(world: &World, asked: &Asked) -> Option<&'static str> {
    let own = |place: &&Place| place.workers.contains(&asked.worker);
    let Some(place) = world.places.iter().find(own) else {
        return Some("its worker is gone, or takes nothing");
    };
    match place.standing {
        Standing::Out => return Some("its model server does not answer"),
        Standing::Hung(ModelVerb::Load) => return Some("its model server hangs in a load"),
        Standing::Hung(ModelVerb::Unload) => return Some("its model server hangs in an unload"),
        Standing::Steady | Standing::Moving(_) | Standing::Unclear => {}
    }
    match asked.verb {
        ModelVerb::Load if place.has_loaded(&asked.model) => Some("it is loaded"),
        ModelVerb::Load if !world.wanted.contains(&asked.model) => {
            Some("nothing waits for it any more")
        }
        ModelVerb::Load => None,
        ModelVerb::Unload => {
            let held = place.held.iter().any(|held| held.model == asked.model);
            let wanted = match &asked.goal {
                WorkKind::Model(model) => world.wanted.contains(model),
                WorkKind::Scripts => {
                    world.demands.iter().any(|demand| demand.kind == WorkKind::Scripts)
                }
            };
            match (held, wanted) {
                (false, _) => Some("it is not loaded"),
                (true, false) => Some("what it should make room for does not wait any more"),
                (true, true) => None,
            }
        }
    }
}
