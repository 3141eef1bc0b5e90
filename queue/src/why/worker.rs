//! Why a worker takes nothing.

use std::collections::HashSet;

use shared::quantity::counted;
use shared::reason::{Code, Reason, in_order};

use super::{Explanation, Look, Subject, Word};
use crate::Error;
use crate::dir::disk::lane_files::read_requirements;
use crate::dir::presence::heartbeats;
use crate::eligible::{self, Candidate};
use crate::view::{self, Life, Worker};
use crate::wire::heartbeat::Heartbeat;

/// A worker that looks for work looks at least so often, in seconds.
const LOOKS_EVERY: f64 = 60.0;

/// What a worker does, and why it does not take more.
pub fn why_worker(look: &Look<'_>, worker: &Worker) -> Result<Explanation, Error> {
    let subject = Subject { kind: "worker", id: worker.name.to_string() };
    let name = &worker.name;
    let warning: Vec<Reason> = view::worker_warning(worker).into_iter().collect();
    let said = |word, text: String, reasons| look.verdict(subject.clone(), word, text, reasons);
    match &worker.life {
        Life::Over { since } => {
            let text = match worker.said_goodbye() {
                true => format!("{name} stopped at {}", since.local()),
                false => format!("{name} died, and was settled at {}", since.local()),
            };
            let reason = Reason::new(Code::WorkerDead, text.clone()).worker(name).since(*since);
            return Ok(said(Word::Gone, text, vec![reason]));
        }
        Life::Dead { .. } | Life::Unproven => {
            let text = warning.first().map(|reason| reason.text.clone()).unwrap_or_default();
            return Ok(said(Word::Gone, text, warning));
        }
        Life::Hung { .. } => {
            let text = warning.first().map(|reason| reason.text.clone()).unwrap_or_default();
            return Ok(said(Word::Blocked, text, warning));
        }
        Life::Alive => {}
    }
    let Some(beat) = &worker.heartbeat else {
        return Ok(said(Word::Idle, format!("{name} is starting"), Vec::new()));
    };
    let (word, text, reasons) = alive(look, beat)?;
    Ok(said(word, text, in_order(reasons)))
}

fn alive(look: &Look<'_>, beat: &Heartbeat) -> Result<(Word, String, Vec<Reason>), Error> {
    let name = &beat.worker;
    let mut reasons: Vec<Reason> = standing(look, beat);
    let stopped = reasons.first().map(|reason| reason.text.clone());
    let told: HashSet<Code> = reasons.iter().map(|reason| reason.code).collect();
    let mut open = 0;
    for lane in &look.view.counts.lanes {
        let Ok(requirements) = read_requirements(look.pool.layout(), &lane.lane) else { continue };
        let candidate = Candidate::from(beat);
        let closed = eligible::reasons(candidate, &requirements);
        let used_up = used_up(look, &requirements.limits)?;
        match in_order(closed.into_iter().chain(used_up).collect()).into_iter().next() {
            None => open += lane.pending,
            // It keeps the worker from all lanes: then it is told once.
            Some(first) if told.contains(&first.code) => {}
            Some(first) => {
                let tasks = counted(lane.pending, &format!("{} task", lane.class));
                let text = format!("{tasks} of lane {}: {}", lane.lane, first.text);
                let reason = Reason::new(Code::LaneIneligible, text)
                    .worker(name)
                    .lane(lane.lane.to_string())
                    .count(lane.pending)
                    .evidence("code", first.code.as_str());
                reasons.push(Reason { fix: first.fix, ..reason });
            }
        }
    }
    if look.view.counts.pending == 0 {
        reasons.push(Reason::new(Code::QueueEmpty, "no task is pending").worker(name));
    }
    reasons.extend(beat.claim.reasons.iter().filter(|r| r.code == Code::RacesLost).cloned());
    Ok(judge(look, beat, stopped, open, reasons))
}

fn judge(
    look: &Look<'_>,
    beat: &Heartbeat,
    stopped: Option<String>,
    open: u64,
    mut reasons: Vec<Reason>,
) -> (Word, String, Vec<Reason>) {
    let name = &beat.worker;
    let looked =
        beat.claim.at.map(|at| beat.at.seconds_since(at) + heartbeats::age(beat, look.view.at));
    let stalled = looked.is_some_and(|age| age > LOOKS_EVERY) && open > 0;
    if let Some(text) = stopped {
        return (Word::Blocked, text, reasons);
    }
    if open > 0 && stalled {
        let age = looked.unwrap_or(0.0);
        let text =
            format!("{name} could take {}, and last looked {age:.0}s ago", counted(open, "task"));
        reasons.push(Reason::new(Code::ClaimLoopStalled, text.clone()).worker(name).count(open));
        return (Word::Blocked, text, reasons);
    }
    let runs: Vec<_> = beat.current.iter().map(|run| run.task_id.short()).collect();
    match (open, runs.is_empty()) {
        (1.., _) => {
            (Word::Claimable, format!("{name} can take {}", counted(open, "pending task")), reasons)
        }
        (0, false) => (Word::Busy, format!("{name} runs {}", runs.join(", ")), reasons),
        (0, true) => {
            let text = match look.view.counts.pending {
                0 => format!("{name} is idle: no task is pending"),
                pending => format!(
                    "{name} is idle: it may take none of {}",
                    counted(pending, "pending task")
                ),
            };
            (Word::Idle, text, reasons)
        }
    }
}

/// What keeps the worker from taking anything at all.
fn standing(look: &Look<'_>, beat: &Heartbeat) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = look.view.pause.iter().map(view::paused).collect();
    let own = eligible::of_worker(&beat.worker, &beat.ability).into_iter();
    // A pause of the pool is told above, as it is now.
    let is_told = |reason: &Reason| {
        let of_pool = beat.ability.paused.as_ref().is_some_and(|pause| pause.scope == "pool");
        reason.code == Code::Paused && of_pool
    };
    reasons.extend(own.filter(|r| !is_told(r)).map(|reason| reason.worker(&beat.worker)));
    reasons.extend(look.view.disk_full());
    reasons
}

fn used_up(look: &Look<'_>, keys: &[String]) -> Result<Option<Reason>, Error> {
    for key in keys {
        let Some(&limit) = look.pool.limits().get(key) else { continue };
        if look.slots_in_use(key)? >= limit {
            let text = format!("the limit {key} is reached ({limit} run)");
            return Ok(Some(Reason::new(Code::LimitReached, text)));
        }
    }
    Ok(None)
}
