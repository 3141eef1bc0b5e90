//! Without a brain an idle worker places models for itself: it asks itself, with a task like the
//! brain's, to load the model that most tasks wait for, or to unload one that nobody waits for.

use std::collections::BTreeMap;
use std::time::Instant;

use queue::dir::disk::lock::{Holder, Lock};
use queue::dir::find::load_requests;
use queue::dir::submit::one::Submitter;
use queue::view::{self, Life, Worker};
use shared::emit;
use shared::event::Event;
use shared::id::{BatchId, TaskId};
use shared::llm::{Health, Loads, ModelServer, ModelVerb, is_same_model};
use shared::name::Name;
use shared::task::{Class, MAX_PRIORITY, Spec, Task};
use shared::time::Moment;

use super::MainLoop;

/// What a worker asks itself for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    verb: ModelVerb,
    model: String,
    /// Tasks that wait for it.
    waiting: u64,
}

/// What there is to do, as far as models go.
#[derive(Clone, Debug, Default)]
struct Demand {
    /// Pending tasks per model, less one for each other worker that has, or loads, that model.
    models: BTreeMap<String, u64>,
    /// Pending script tasks.
    scripts: u64,
}

impl MainLoop {
    /// One step of placing models, where nobody else does.
    pub(super) fn load_without_brain(&mut self) -> Result<(), queue::Error> {
        let Some(server) = self.idle_server() else { return Ok(()) };
        if Lock::probe(&self.pool.layout().brain_lock())? == Holder::Somebody {
            self.without_brain_since = None;
            return Ok(());
        }
        let alone = self.without_brain_since.get_or_insert_with(Instant::now).elapsed();
        if alone < self.settings.self_load_after.0 {
            return Ok(());
        }
        let Some(wish) = wish(&server, &self.demand()?) else { return Ok(()) };
        let name = self.context.worker_state.name().clone();
        // One at a time, and not while what the brain asked for is still open.
        let open = load_requests::pending(self.pool.layout())?;
        if open.iter().any(|asked| asked.worker.as_ref() == Some(&name)) {
            return Ok(());
        }
        let Wish { verb, model, waiting } = wish;
        let task = request(&name, verb, &model);
        Submitter::new(&self.pool)?.submit(&task)?;
        let (worker, seconds) = (name, alone.as_secs_f64());
        emit!(Event::WorkerLoadsAlone { worker, model, verb, waiting, seconds });
        self.search.lock().look_again();
        Ok(())
    }

    /// What is known of the server, while nothing runs here and something may be claimed.
    fn idle_server(&self) -> Option<ModelServer> {
        self.context.worker_state.look(|state| {
            let takes = state.ability.classes.contains(&Class::Resource);
            let idle = state.is_open() && takes && state.jobs.is_empty();
            state.ability.server.clone().filter(|_server| idle)
        })
    }

    fn demand(&mut self) -> Result<Demand, queue::Error> {
        let mut demand = Demand::default();
        for lane in self.search.lock().lanes()? {
            match (lane.class, lane.model) {
                (Class::Llm, Some(model)) => {
                    *demand.models.entry(model).or_default() += lane.pending;
                }
                (Class::Script, _) => demand.scripts += lane.pending,
                (Class::Llm | Class::Cpu | Class::Resource, _) => {}
            }
        }
        if demand.models.is_empty() {
            return Ok(demand);
        }
        let own = self.context.worker_state.name();
        let workers = view::workers(&self.pool, &self.settings, Moment::now())?;
        for other in workers.iter().filter(|worker| worker.name != *own) {
            for model in has(other) {
                let same = demand.models.iter_mut().find(|(name, _)| is_same_model(name, model));
                if let Some((_name, waiting)) = same {
                    *waiting = waiting.saturating_sub(1);
                }
            }
        }
        Ok(demand)
    }
}

/// The models that another worker has, or has in a moment.
fn has(worker: &Worker) -> impl Iterator<Item = &str> {
    let beat = worker.heartbeat.as_ref().filter(|_beat| worker.life == Life::Alive);
    let server = beat.and_then(|beat| beat.ability.server.as_ref());
    server.into_iter().flat_map(|server| &server.models).map(|held| held.model.as_str())
}

/// What an idle worker does about models. Pure.
fn wish(server: &ModelServer, demand: &Demand) -> Option<Wish> {
    if server.health != Health::Up || server.loads == Loads::Fixed {
        return None;
    }
    let may_load = |model: &str| {
        server.knows(model) != Some(false)
            && !server.failed_loads.iter().any(|failed| is_same_model(&failed.model, model))
    };
    let wanted = |(model, waiting): &(&String, &u64)| **waiting > 0 && may_load(model);
    // The first by name where as many wait for several, so that all workers come to one answer.
    let most = |one: &(&String, &u64), other: &(&String, &u64)| {
        one.1.cmp(other.1).then_with(|| other.0.cmp(one.0))
    };
    let best = demand.models.iter().filter(wanted).max_by(most);
    if server.models.is_empty() {
        let (model, waiting) = best?;
        return Some(Wish { verb: ModelVerb::Load, model: model.clone(), waiting: *waiting });
    }
    let is_held_wanted = demand.models.keys().any(|model| server.held(model).is_some());
    if is_held_wanted || (best.is_none() && demand.scripts == 0) {
        return None;
    }
    // The next one gets the memory when this one is out of it.
    let model = server.models.first()?.model.clone();
    Some(Wish { verb: ModelVerb::Unload, model, waiting: 0 })
}

fn request(worker: &Name, verb: ModelVerb, model: &str) -> Task {
    let id = TaskId::new();
    Task {
        id,
        batch_id: None::<BatchId>,
        submitted_at: Moment::now(),
        submitted_by: worker.to_string(),
        correlation_id: id.short(),
        spec: Spec {
            class: Some(Class::Resource),
            name: Some(verb.to_string()),
            priority: Some(MAX_PRIORITY),
            max_attempts: Some(1),
            verb: Some(verb),
            model: Some(model.to_owned()),
            worker: Some(worker.clone()),
            ..Spec::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::fixture::{held, up};
    use shared::llm::FailedLoad;
    use shared::outcome::Cause;

    fn demand(models: &[(&str, u64)], scripts: u64) -> Demand {
        let models = models.iter().map(|(model, waiting)| ((*model).to_owned(), *waiting));
        Demand { models: models.collect(), scripts }
    }

    fn wished(server: &ModelServer, demand: &Demand) -> Option<(ModelVerb, String)> {
        wish(server, demand).map(|wish| (wish.verb, wish.model))
    }

    #[test]
    fn the_model_with_most_waiting_tasks_is_loaded_if_it_can_be() {
        let load = |model: &str| Some((ModelVerb::Load, model.to_owned()));
        let empty = up("http://x");
        assert_eq!(wished(&empty, &demand(&[("a", 3), ("b", 9)], 0)), load("b"));
        assert_eq!(wished(&empty, &demand(&[("a", 3), ("b", 3)], 0)), load("a"));
        assert_eq!(wished(&empty, &demand(&[("a", 0)], 5)), None, "others have it");
        let knows = ModelServer { known: Some(vec!["a:latest".into()]), ..up("http://x") };
        assert_eq!(wished(&knows, &demand(&[("a", 3), ("b", 9)], 0)), load("a"));
        let failed = FailedLoad {
            model: "b".into(),
            cause: Cause::Oom,
            message: "no room".into(),
            at: Moment::now(),
        };
        let full = ModelServer { failed_loads: vec![failed], ..up("http://x") };
        assert_eq!(wished(&full, &demand(&[("a", 3), ("b", 9)], 0)), load("a"));
        let down = ModelServer { health: Health::Down, ..up("http://x") };
        assert_eq!(wished(&down, &demand(&[("a", 3)], 0)), None);
    }

    #[test]
    fn a_model_goes_only_when_nobody_waits_for_it_and_somebody_for_its_memory() {
        let holding = ModelServer { models: vec![held("a")], ..up("http://x") };
        let unload = Some((ModelVerb::Unload, "a".to_owned()));
        assert_eq!(wished(&holding, &demand(&[("a", 1), ("b", 9)], 3)), None);
        assert_eq!(wished(&holding, &demand(&[], 0)), None);
        assert_eq!(wished(&holding, &demand(&[("b", 1)], 0)), unload);
        assert_eq!(wished(&holding, &demand(&[], 2)), unload);
        let fixed = ModelServer { loads: Loads::Fixed, ..holding };
        assert_eq!(wished(&fixed, &demand(&[("b", 1)], 0)), None);
    }
}
