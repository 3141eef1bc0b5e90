//! The living workers of a model server, also those that cannot be asked for anything now.

use queue::wire::heartbeat::Heartbeat;
use shared::llm::{Loads, ModelServer};
use shared::task::Class;

use super::View;
use crate::core::place::world::{Access, Busy, Member};

impl View<'_> {
    /// Whether a worker can be asked for anything.
    pub(super) fn access(&self, heartbeat: &Heartbeat) -> Access {
        let ability = &heartbeat.ability;
        if ability.draining.is_some() {
            Access::Closed("it is draining")
        } else if ability.paused.is_some() {
            Access::Closed("it is paused")
        } else if !ability.gpu_state.is_fit() {
            Access::Closed("its GPU is out of use, or too hot")
        } else if self.hung.contains(&heartbeat.worker) {
            Access::Silent
        } else {
            Access::Open
        }
    }

    /// A living worker of a server, whether or not it can be asked.
    pub(super) fn member(&self, heartbeat: &Heartbeat, server: &ModelServer) -> Member {
        let takes_loads = heartbeat.ability.classes.contains(&Class::Resource);
        let access = match self.access(heartbeat) {
            Access::Open if !takes_loads && server.loads == Loads::OnRequest => {
                Access::Closed("it takes no loads")
            }
            access @ (Access::Open | Access::Silent | Access::Closed(_)) => access,
        };
        let idle = heartbeat.idle_since;
        Member {
            name: heartbeat.worker.clone(),
            access,
            busy: self.busy(heartbeat),
            idle_seconds: idle.map_or(0.0, |since| heartbeat.at.seconds_since(since)),
        }
    }

    /// What its GPU runs, if that is not a load or an unload: by what it has claimed.
    fn busy(&self, heartbeat: &Heartbeat) -> Option<Busy> {
        let own = self.seen.processing.iter().filter(|held| held.worker == heartbeat.worker);
        let mut works = own.filter(|held| {
            let class = held.task.as_ref().map(|task| task.class);
            class.is_none_or(|class| matches!(class, Class::Script | Class::Llm))
        });
        let held = works.next()?;
        let started = heartbeat.runs(held.name).and_then(|run| run.started_at);
        Some(Busy { seconds: started.map(|started| heartbeat.at.seconds_since(started)) })
    }
}
