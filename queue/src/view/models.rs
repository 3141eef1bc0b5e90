//! Models as they are seen from outside: who asks for them, who holds them, who could.

use std::collections::BTreeSet;

use serde::Serialize;
use shared::llm::{FailedLoad, HeldState, is_same_model};
use shared::name::Name;
use shared::quantity::Bytes;
use shared::time::Moment;

use super::{View, Worker};

/// One model that somebody asks for, holds, could load or failed to load.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SeenModel {
    /// Its name, as it was met first: with or without the tag `latest` it is the same model.
    pub model: String,
    /// Pending tasks that need it.
    pub pending: u64,
    /// How old the oldest of them is.
    pub oldest_seconds: Option<f64>,
    /// Workers whose server holds it.
    pub workers: Vec<ModelHolder>,
    /// Workers whose server could load it.
    pub known_by: Vec<Name>,
    /// Workers whose server failed to load it and has not done so since.
    pub failed_loads: Vec<Failed>,
}

/// A worker whose server holds a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelHolder {
    /// The worker that uses the server.
    pub worker: Name,
    /// Its server's address, as `http://127.0.0.1:11437`.
    pub server: String,
    /// Where the model stands.
    pub state: HeldState,
    /// Since when the state is this one.
    pub since: Moment,
    /// What it takes in all.
    pub size: Option<Bytes>,
    /// What of that is in GPU memory.
    pub vram: Option<Bytes>,
}

/// A load that failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failed {
    /// On which worker's server.
    pub worker: Name,
    /// The model, the cause, what the server said, and when; in JSON beside `worker`.
    #[serde(flatten)]
    pub load: FailedLoad,
}

/// All models that somebody asks for, holds or knows; those with most work first.
#[must_use]
pub fn models(view: &View) -> Vec<SeenModel> {
    let mut found = Found(Vec::new());
    for lane in &view.counts.lanes {
        let Some(name) = &lane.model else { continue };
        let model = found.model(name);
        model.pending += lane.pending;
        let age = lane.oldest.map(|oldest| view.at.seconds_since(oldest));
        model.oldest_seconds = [model.oldest_seconds, age].into_iter().flatten().reduce(f64::max);
    }
    for worker in view.alive() {
        found.worker(worker);
    }
    let mut models = found.0;
    models.sort_by(|one, other| {
        other.pending.cmp(&one.pending).then_with(|| one.model.cmp(&other.model))
    });
    models
}

struct Found(Vec<SeenModel>);

impl Found {
    /// Names that mean one model are told as one, under the name that was met first.
    fn model(&mut self, name: &str) -> &mut SeenModel {
        let known = self.0.iter().position(|model| is_same_model(&model.model, name));
        let index = known.unwrap_or_else(|| {
            self.0.push(SeenModel { model: name.to_owned(), ..SeenModel::default() });
            self.0.len() - 1
        });
        &mut self.0[index]
    }

    fn worker(&mut self, worker: &Worker) {
        let ability = worker.heartbeat.as_ref().map(|beat| &beat.ability);
        let Some(server) = ability.and_then(|ability| ability.server.as_ref()) else { return };
        for held in &server.models {
            self.model(&held.model).workers.push(ModelHolder {
                worker: worker.name.clone(),
                server: server.address.clone(),
                state: held.state,
                since: held.since,
                size: held.size,
                vram: held.vram,
            });
        }
        for name in server.known.iter().flatten() {
            self.model(name).known_by.push(worker.name.clone());
        }
        for load in &server.failed_loads {
            let failed = Failed { worker: worker.name.clone(), load: load.clone() };
            self.model(&load.model).failed_loads.push(failed);
        }
    }
}

/// All models that the servers of living workers could load. `None` where that cannot be told: no
/// worker has a server, or one of them has not said what it knows.
#[must_use]
pub fn known<'a>(workers: impl Iterator<Item = &'a Worker>) -> Option<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let mut servers = 0;
    for worker in workers.filter(|worker| worker.is_alive()) {
        let Some(beat) = &worker.heartbeat else { continue };
        let Some(server) = &beat.ability.server else { continue };
        all.extend(server.known.as_ref()?.iter().cloned());
        all.extend(server.models.iter().map(|held| held.model.clone()));
        servers += 1;
    }
    (servers > 0).then_some(all)
}
