//! Why a model is not where it is needed: who holds it, who was asked to load it, who could not.

use shared::llm::{HeldState, is_same_model};
use shared::quantity::counted;
use shared::reason::in_order;
use shared::task::Class;

use super::{Explanation, Look, Subject, Word, lane};
use crate::Error;
use crate::view::Worker;
use crate::wire::lane::Requirements;

/// Whether anybody in the pool has to do with a model of this name.
#[must_use]
pub fn is_model(look: &Look<'_>, name: &str) -> bool {
    let pending = look.view.counts.lanes.iter().filter_map(|lane| lane.model.as_deref());
    let servers = look.view.alive().filter_map(|worker| {
        worker.heartbeat.as_ref().and_then(|beat| beat.ability.server.as_ref())
    });
    let of_servers = servers.flat_map(|server| {
        let held = server.models.iter().map(|held| held.model.as_str());
        let known = server.known.iter().flatten().map(String::as_str);
        let failed = server.failed_loads.iter().map(|failed| failed.model.as_str());
        held.chain(known).chain(failed)
    });
    pending.chain(of_servers).any(|model| is_same_model(model, name))
}

/// How a model stands in the pool, and what stands between it and the tasks that need it.
pub fn why_model(look: &Look<'_>, name: &str) -> Result<Explanation, Error> {
    let subject = Subject { kind: "model", id: name.to_owned() };
    let same = |model: &Option<String>| model.as_ref().is_some_and(|m| is_same_model(m, name));
    let waiting: u64 =
        look.view.counts.lanes.iter().filter(|l| same(&l.model)).map(|l| l.pending).sum();
    let lane = Requirements {
        class: Class::Llm,
        model: Some(name.to_owned()),
        gpu_memory: None,
        limits: Vec::new(),
        worker: None,
        max_wait: None,
    };
    let standing = lane::ask(look, &lane)?;
    let holders: Vec<_> =
        look.view.alive().filter(|worker| has(worker, name)).map(|w| w.name.to_string()).collect();
    let tasks = counted(waiting, "task");
    let mut reasons = in_order(standing.reasons);
    for reason in &mut reasons {
        reason.count = reason.count.or((waiting > 0).then_some(waiting));
    }
    let impossible = !standing.has_taker && look.view.alive().next().is_some();
    let (word, text) = if !holders.is_empty() {
        let holders = holders.join(", ");
        let text = format!("{name} is loaded on {holders}; {tasks} waiting for it");
        let word = match (waiting, standing.ready.is_empty()) {
            (0, _) => Word::Idle,
            (_, true) => Word::Busy,
            (_, false) => Word::Claimable,
        };
        (word, text)
    } else if impossible {
        let why = reasons.first().map(|reason| reason.text.clone()).unwrap_or_default();
        (Word::Impossible, format!("{name} can be loaded by no worker here: {why}"))
    } else if waiting == 0 {
        (Word::Idle, format!("{name} is loaded nowhere, and no task waits for it"))
    } else {
        (Word::Blocked, format!("{name} is loaded nowhere; {tasks} waiting for it"))
    };
    Ok(look.verdict(subject, word, text, reasons))
}

/// Whether a worker can ask this model now.
fn has(worker: &Worker, model: &str) -> bool {
    let beat = worker.heartbeat.as_ref();
    let server = beat.and_then(|beat| beat.ability.server.as_ref());
    let held = server.and_then(|server| server.held(model));
    held.is_some_and(|held| held.state == HeldState::Loaded)
}
