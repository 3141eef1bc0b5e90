//! Why a GPU is idle, or what keeps it busy: its worker's answer, with what the GPU itself says.

use shared::reason::{Code, Reason};

use super::{Explanation, Look, Subject, Word, worker::why_worker};
use crate::Error;
use crate::view::Worker;

/// The worker of a GPU, as people name that: `gpu:1`, `gpu1`, or its identity. `None` where the
/// words mean no GPU; `Some(None)` where they do, and no worker has that one.
#[must_use]
pub fn worker_of<'a>(look: &Look<'a>, words: &str) -> Option<Option<&'a Worker>> {
    let lower = words.to_ascii_lowercase();
    let number = lower.strip_prefix("gpu").map(|rest| rest.trim_start_matches([':', ' ']));
    let index = number.and_then(|rest| rest.parse::<u32>().ok());
    let beat = |worker: &Worker| worker.heartbeat.clone();
    let is_it = |worker: &&Worker| {
        beat(worker).is_some_and(|beat| {
            let uuid = beat.ability.gpu_uuid.as_deref();
            index.is_some() && beat.ability.gpu == index
                || uuid.is_some_and(|uuid| uuid.eq_ignore_ascii_case(words))
        })
    };
    let workers = &look.view.workers;
    let found = workers.iter().filter(|w| w.is_alive()).find(is_it);
    let found = found.or_else(|| workers.iter().find(is_it));
    match (found, index, lower.starts_with("gpu-")) {
        (Some(worker), ..) => Some(Some(worker)),
        (None, Some(_), _) | (None, None, true) => Some(None),
        (None, None, false) => None,
    }
}

/// What a GPU does, and why it does not do more.
pub fn why_gpu(
    look: &Look<'_>,
    words: &str,
    worker: Option<&Worker>,
) -> Result<Explanation, Error> {
    let Some(worker) = worker else {
        let text = format!("no worker has {words}");
        let reason = Reason::new(Code::WorkerNeverStarted, text.clone()).fix("worker --gpu N");
        let subject = Subject { kind: "gpu", id: words.to_owned() };
        return Ok(look.verdict(subject, Word::Blocked, text, vec![reason]));
    };
    let mut verdict = why_worker(look, worker)?;
    let beat = worker.heartbeat.as_ref();
    let known = beat.and_then(|beat| beat.ability.gpu_uuid.clone());
    let number = beat.and_then(|beat| beat.ability.gpu).map(|gpu| gpu.to_string());
    let id = known.or(number).unwrap_or_else(|| words.to_owned());
    verdict.subject = Subject { kind: "gpu", id };
    Ok(verdict)
}
