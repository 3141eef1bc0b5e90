//! What stands between a lane and the workers: each living worker is asked, and what is true for
//! all of those who could ever take it is told once.

use shared::reason::{Code, Reason};
use shared::task::Class;

use super::{Look, loads};
use crate::Error;
use crate::dir::claim::limit_slots::{self, SlotUse};
use crate::eligible::{self, Candidate};
use crate::view::{self, Life, Worker};
use crate::wire::lane::Requirements;

/// How a lane stands.
pub(super) struct Standing<'a> {
    /// Workers that could take from it at once.
    pub(super) ready: Vec<&'a Worker>,
    /// Whether some living worker could take from it at some time.
    pub(super) has_taker: bool,
    /// What stands in the way.
    pub(super) reasons: Vec<Reason>,
}

/// Reasons that no waiting removes as long as the worker, and its model server, are what they are.
const fn is_for_good(code: Code) -> bool {
    matches!(
        code,
        Code::ClassNotTaken
            | Code::WorkerAddressed
            | Code::GpuNone
            | Code::VramNever
            | Code::ModelMissing
            | Code::ModelTooBig
    )
}

/// Asks every living worker that has sent a heartbeat, and adds what holds for all of them.
pub(super) fn ask<'a>(look: &Look<'a>, lane: &Requirements) -> Result<Standing<'a>, Error> {
    let mut standing = Standing { ready: Vec::new(), has_taker: false, reasons: Vec::new() };
    let mut never = Vec::new();
    for worker in look.view.alive() {
        // Its lease is held, and it has not said yet what it can do.
        let Some(heartbeat) = &worker.heartbeat else { continue };
        let reasons = eligible::reasons(Candidate::from(heartbeat), lane);
        if reasons.iter().any(|reason| is_for_good(reason.code)) {
            never.extend(reasons.into_iter().filter(|reason| is_for_good(reason.code)));
            continue;
        }
        standing.has_taker = true;
        if let Life::Hung { .. } = worker.life {
            standing.reasons.extend(view::worker_warning(worker));
        } else if reasons.is_empty() && look.view.pause.is_none() {
            standing.ready.push(worker);
        }
        // A pause of the whole pool is told once, below.
        let of_pool = |reason: &Reason| {
            reason.code == Code::Paused && reason.fix.as_deref() == Some("queue resume")
        };
        standing.reasons.extend(reasons.into_iter().filter(|reason| !of_pool(reason)));
    }
    loads::tell_loads(look, &mut standing.reasons)?;
    standing.reasons.extend(look.view.pause.as_ref().map(view::paused));
    standing.reasons.extend(look.view.disk_full());
    standing.reasons.extend(limits(look, lane)?);
    if !standing.has_taker {
        standing.reasons.extend(nobody(look, lane, &never));
        standing.reasons.extend(never);
    }
    Ok(standing)
}

/// Limits that are used up.
fn limits(look: &Look<'_>, lane: &Requirements) -> Result<Vec<Reason>, Error> {
    let mut reasons = Vec::new();
    for key in &lane.limits {
        let Some(&limit) = look.pool.limits().get(key) else { continue };
        let used = look.slots_in_use(key)?;
        if used >= limit {
            reasons.push(reached(look, key, used, limit)?);
        }
    }
    Ok(reasons)
}

/// That a limit is used up, and by whom. What a dead worker left counts until it is settled.
fn reached(look: &Look<'_>, key: &str, used: u32, limit: u32) -> Result<Reason, Error> {
    /// So many are named.
    const NAMED: usize = 3;
    let holders = limit_slots::holders(look.pool, key)?;
    let is_dead = |holder: &SlotUse| {
        let worker = look.view.workers.iter().find(|worker| worker.name == holder.worker);
        !worker.is_some_and(Worker::is_alive)
    };
    let told = holders.iter().filter_map(|holder| {
        let (task, dead) = (holder.task()?.id.short(), is_dead(holder));
        Some(format!("{task} of {}{}", holder.worker, if dead { ", which is dead" } else { "" }))
    });
    let told: Vec<String> = told.take(NAMED).collect();
    let by = if told.is_empty() { String::new() } else { format!(" ({})", told.join("; ")) };
    let text = format!("the limit {key} is reached: {used} of {limit} run{by}");
    let mut reason = Reason::new(Code::LimitReached, text).evidence("limit", key);
    reason = reason.evidence("used", used).evidence("allowed", limit);
    reason = reason.evidence("holders", serde_json::json!(holders));
    let left = holders.iter().find(|holder| is_dead(holder)).and_then(SlotUse::task);
    reason.fix = left.map(|name| format!("queue settle {}", name.id.short()));
    Ok(reason)
}

/// Why no living worker could ever take from the lane.
fn nobody(look: &Look<'_>, lane: &Requirements, never: &[Reason]) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let could_have = |worker: &&Worker| {
        let beat = worker.heartbeat.as_ref();
        let takes = beat.is_some_and(|beat| beat.ability.classes.contains(&lane.class));
        takes && lane.worker.as_ref().is_none_or(|name| *name == worker.name)
    };
    let dead = look.view.workers.iter().filter(|worker| !worker.is_alive()).filter(could_have);
    for worker in dead {
        let text = format!("{} could have taken it, and is not running", worker.name);
        let reason = Reason::new(Code::WorkerDead, text).worker(&worker.name);
        reasons.push(match worker.heartbeat.as_ref() {
            Some(beat) => reason.evidence("last_heartbeat", beat.at.to_string()),
            None => reason,
        });
    }
    let (start, what) = match lane.class {
        Class::Cpu => ("worker --cpu", "cpu"),
        Class::Script => ("worker --gpu 0", "script"),
        class @ (Class::Llm | Class::Resource) => {
            ("worker --gpu 0 --ollama-port 11434", class.as_str())
        }
    };
    if let Some(name) = &lane.worker {
        let alive = look.view.alive().any(|worker| worker.name == *name);
        if !alive && reasons.is_empty() {
            let text = format!("it is addressed to {name}, and there is no such worker");
            reasons.push(Reason::new(Code::WorkerNeverStarted, text).worker(name));
        }
        return reasons;
    }
    let only = |code: Code| !never.is_empty() && never.iter().any(|reason| reason.code == code);
    // Whoever takes the class, but lacks the GPU, its memory or the model, has said so.
    let lacks = [Code::VramNever, Code::GpuNone, Code::ModelMissing, Code::ModelTooBig];
    if !lacks.into_iter().any(only) {
        let text = match look.view.alive().next() {
            None => format!("no worker is running, and {what} tasks need one"),
            Some(_) => format!("no running worker takes {what} tasks"),
        };
        reasons.push(Reason::new(Code::ClassNoWorker, text).fix(start));
    }
    reasons
}
