//! Requests whose goal is gone: what was asked for, has not begun, and need not be done any more.

use shared::llm::ModelVerb;

use super::world::{Access, Asked, Stage, Standing, WorkKind, World};

/// Each with the reason, in words.
pub(crate) fn withdrawals(world: &World) -> Vec<(&Asked, &'static str)> {
    let waiting = world.asked.iter().filter(|asked| asked.stage == Stage::Waiting);
    waiting.filter_map(|asked| Some((asked, gone(world, asked)?))).collect()
}

fn gone(world: &World, asked: &Asked) -> Option<&'static str> {
    let mut places = world.places.iter();
    let found = places.find_map(|place| Some((place, place.member(&asked.worker)?)));
    let Some((place, member)) = found else { return Some("its worker is gone") };
    match (member.access, &place.standing) {
        (Access::Closed(why), _) => return Some(why),
        (Access::Open, Standing::Out) => return Some("its model server does not answer"),
        (_, Standing::Hung(ModelVerb::Load)) => return Some("its model server hangs in a load"),
        (_, Standing::Hung(ModelVerb::Unload)) => {
            return Some("its model server hangs in an unload");
        }
        (Access::Silent, _) if !place.workers.is_empty() => {
            return Some("its worker sends no heartbeats, and another one has the same server");
        }
        // A worker that goes on takes it then, and nobody else could.
        (Access::Silent, _)
        | (Access::Open, Standing::Steady | Standing::Moving(_) | Standing::Unclear) => {}
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
