//! Why a task is where it is.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;

use serde_json::{Value, json};
use shared::id::TaskId;
use shared::name::Name;
use shared::outcome::{Cause, Next};
use shared::quantity::{Span, counted};
use shared::reason::{Code, Reason, in_order};
use shared::task::{On, Task};
use shared::time::Moment;

use super::{Explanation, Look, Subject, Word, how_it_ended, lane, task_subject};
use crate::Error;
use crate::dir::disk::lane_files::read_requirements;
use crate::dir::disk::place::{Found, Place};
use crate::dir::find::dependencies;
use crate::dir::layout::Shelf;
use crate::dir::lookup::{self, Standing};
use crate::dir::recover::settle::may_go_on;
use crate::store::dependency::{self, Dependency, Readiness};
use crate::view::{self, Life};
use crate::wire::fate::{Kept, Obstacle};
use crate::wire::lane::Requirements;
use crate::wire::ledger_line::Line;

/// Why a task is where it is. `None` where nobody knows it.
pub fn why_task(look: &Look<'_>, id: TaskId) -> Result<Option<Explanation>, Error> {
    for _look in 0..4 {
        let Some(standing) = lookup::standing(look.pool.layout(), id)? else { return Ok(None) };
        let Some(task) = standing.task(look.pool.layout())? else { continue };
        return explain(look, &standing, &task).map(Some);
    }
    Ok(None)
}

/// The same for one that was found. `None` where it has moved on, and nobody knows it any more.
pub(super) fn why_found(look: &Look<'_>, found: &Found) -> Result<Option<Explanation>, Error> {
    match found.read(look.pool.layout())? {
        Some(task) => explain(look, &Standing::There(found.clone()), &task).map(Some),
        None => why_task(look, found.name.id),
    }
}

/// Whether a task could run that is not submitted yet.
pub fn why_new(look: &Look<'_>, task: &Task, lane: &Requirements) -> Result<Explanation, Error> {
    pending(look, task_subject(task.id), lane, None)
}

fn explain(look: &Look<'_>, standing: &Standing, task: &Task) -> Result<Explanation, Error> {
    let subject = task_subject(task.id);
    let found = match standing {
        Standing::There(found) => found,
        Standing::Ended(line) => {
            let text = match line.next {
                Next::Rejected => rejected(look, line),
                Next::End | Next::Failed | Next::Pending | Next::Delayed(_) => {
                    how_it_ended(standing)
                }
            };
            return Ok(look.verdict(subject, Word::Gone, text, why_ended(line)));
        }
    };
    let requirements = requirements(look, found, task);
    match &found.place {
        Place::Processing { worker } => Ok(processing(look, subject, worker, found)),
        Place::Pending { .. } => match look.pool.brakes().holding(task)? {
            Some(brake) => later(look, subject, &requirements, vec![brake.reason()]),
            None => pending(look, subject, &requirements, Some(found)),
        },
        Place::Delayed { due } => {
            let until = Moment::from_unix_millis(due * 1000);
            let text = match found.name.attempt {
                1 => format!("it is for {}", until.local()),
                next => {
                    let (last, how) = (next - 1, how_last_ended(look, found.name.id)?);
                    format!("attempt {next} comes at {}; attempt {last} ended{how}", until.local())
                }
            };
            let reason = Reason::new(Code::DelayedUntil, text)
                .evidence("until", until.to_string())
                .evidence("attempt", found.name.attempt);
            let brake = look.pool.brakes().holding(task)?;
            let reasons = [reason].into_iter().chain(brake.map(|brake| brake.reason())).collect();
            later(look, subject, &requirements, reasons)
        }
        Place::Shelf { shelf: Shelf::Held, .. } => {
            let fix = format!("queue release {}", task.id.short());
            let reason = Reason::new(Code::HeldPerson, "a person holds it").fix(fix);
            later(look, subject, &requirements, vec![reason])
        }
        Place::Shelf { shelf: Shelf::Waiting, .. } => {
            let reasons = dependencies(look, task)?;
            later(look, subject, &requirements, reasons)
        }
        Place::Shelf { shelf: Shelf::Failed, .. } => {
            let text = failed(look, found)?;
            Ok(look.verdict(subject, Word::Gone, text, Vec::new()))
        }
        Place::Ending { verb } => {
            let text = format!("it is being ended ({verb})");
            Ok(look.verdict(subject, Word::Gone, text, Vec::new()))
        }
    }
}

/// Why nobody could run a task, and what can be done.
fn rejected(look: &Look<'_>, line: &Line) -> String {
    let problem = line.error_message.as_deref().unwrap_or("it could not be understood");
    let (file, _reason) = look.pool.layout().rejected_task(line.next_name);
    format!(
        "it failed (rejected) at {}: its file could not be understood: {problem}; mend `{}`, then \
         `queue retry {}` takes it back",
        line.ended_at,
        file.display(),
        line.id.short()
    )
}

/// What a task ended for that never ran.
fn why_ended(line: &Line) -> Vec<Reason> {
    if line.cause != Some(Cause::DependencyFailed) {
        return Vec::new();
    }
    let text = line.error_message.clone();
    let text = text.unwrap_or_else(|| "what it waited for failed".to_owned());
    vec![Reason::new(Code::DependencyFailed, text)]
}

/// How the last attempt of a failed task ended, and what can be done.
fn failed(look: &Look<'_>, found: &Found) -> Result<String, Error> {
    let (id, attempts) = (found.name.id, counted(found.name.attempt, "attempt"));
    let how = how_last_ended(look, id)?;
    let again = format!("`queue retry {}` gives it another chance", id.short());
    Ok(format!("it failed after {attempts}{how}; {again}"))
}

/// Cause and error of a task's last attempt, as far as they are known.
fn how_last_ended(look: &Look<'_>, id: TaskId) -> Result<String, Error> {
    let last = crate::dir::ledger::search::lines_of(look.pool.layout(), id)?.pop();
    let cause = last.as_ref().and_then(|line| line.cause).map(|cause| format!(" ({cause})"));
    let problem = last.and_then(|line| line.error_message).map(|text| format!(": {text}"));
    Ok(cause.unwrap_or_default() + &problem.unwrap_or_default())
}

/// What the task needs, as its lane says, or will say.
fn requirements(look: &Look<'_>, found: &Found, task: &Task) -> Requirements {
    let limits = look.pool.limit_keys();
    let own = || Requirements::of(task, &limits);
    match &found.place {
        Place::Pending { lane, .. } => {
            read_requirements(look.pool.layout(), lane).unwrap_or_else(|_garbled| own())
        }
        Place::Processing { .. }
        | Place::Delayed { .. }
        | Place::Shelf { .. }
        | Place::Ending { .. } => own(),
    }
}

fn processing(look: &Look<'_>, subject: Subject, worker: &Name, found: &Found) -> Explanation {
    let seen = look.view.workers.iter().find(|seen| seen.name == *worker);
    let life = seen.map(|seen| &seen.life);
    let mut reasons: Vec<Reason> = seen.and_then(view::worker_warning).into_iter().collect();
    if let Some(kept) = seen.and_then(|seen| seen.kept(found.name)) {
        let attempt = found.name.attempt;
        let lives = seen.is_some_and(view::Worker::is_alive);
        let text = match lives {
            true => format!("its job on {worker} has ended; attempt {attempt} may still run"),
            false => format!("{worker} died with it; attempt {attempt} may still run"),
        };
        reasons.insert(0, may_run(look, worker, &kept, lives));
        if !lives && !look.view.brain.alive {
            reasons.push(look.view.brain_absent());
        }
        return look.verdict(subject, Word::Blocked, text, reasons);
    }
    let stuck = stuck(look, found.name.id);
    let (word, text) = match life {
        Some(Life::Alive | Life::Unproven) => {
            let run = seen.into_iter().flat_map(view::Worker::current);
            let run = run.into_iter().find(|run| run.task_id == found.name.id);
            let since = run.and_then(|run| run.started_at);
            let since = since.map(|since| format!(" since {}", since.local())).unwrap_or_default();
            let attempt = found.name.attempt;
            (Word::Running, format!("{worker} runs it{since}, attempt {attempt}{stuck}"))
        }
        Some(Life::Hung { .. }) => {
            let text = format!("{worker} has it and lives, but its heartbeat stands still{stuck}");
            (Word::Running, text)
        }
        Some(Life::Dead { settling: Some(by) }) => {
            (Word::Blocked, format!("{worker} died with it; {by} is putting it back"))
        }
        Some(Life::Dead { settling: None } | Life::Over { .. }) | None => {
            if !look.view.brain.alive {
                // What a brain would do by itself.
                let fix = format!("queue settle {}", found.name.id.short());
                reasons.iter_mut().for_each(|reason| reason.fix = Some(fix.clone()));
                reasons.push(look.view.brain_absent());
            }
            (Word::Blocked, format!("{worker} died with it, and its affairs are not settled yet"))
        }
    };
    look.verdict(subject, word, text, reasons)
}

/// That it makes no progress, where it does not.
fn stuck(look: &Look<'_>, id: TaskId) -> String {
    let stuck = look.view.stuck(look.settings);
    let own = stuck.iter().find(|stuck| stuck["task_id"].as_str() == Some(&id.to_string()));
    let seconds = own.and_then(|own| own["seconds"].as_f64());
    seconds.map_or_else(String::new, |seconds| {
        format!("; it is stuck: no progress for {}", Span::rounded(seconds))
    })
}

/// What keeps a task of which something may still run, and the way out. The command that takes a
/// person's word for it, and may run the task twice, is never the first advice.
fn may_run(look: &Look<'_>, worker: &Name, kept: &Kept, lives: bool) -> Reason {
    let id = kept.task.short();
    let then = match (lives, look.view.brain.alive) {
        (true, _) => "it goes on as soon as that has ended",
        (false, true) => "the brain puts it back as soon as that has ended",
        (false, false) => "nobody puts it back by itself, as no brain is running",
    };
    let text = format!(
        "{}; {then}; on your word that nothing of it runs any more, `queue settle {id} --abandon` \
         lets it go on: if you are wrong, it runs twice",
        kept.obstacle
    );
    let mut reason = Reason::new(kept.obstacle.code(), text).worker(worker);
    if let Ok(Value::Object(evidence)) = serde_json::to_value(&kept.obstacle) {
        reason.evidence = evidence;
    }
    reason.fix = match &kept.obstacle {
        _ if !lives && (!look.view.brain.alive || may_go_on(look.pool, kept)) => {
            Some(format!("queue settle {id}"))
        }
        Obstacle::Suspected { processes } => {
            let pids: Vec<String> = processes.iter().map(|one| one.pid.to_string()).collect();
            Some(format!("ps -f -p {}", pids.join(",")))
        }
        Obstacle::Unkillable { pids } => {
            let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
            Some(format!("ps -f -p {}", pids.join(",")))
        }
        Obstacle::LogHeld | Obstacle::Elsewhere { .. } | Obstacle::Unknown { .. } => None,
    };
    reason
}

/// What a waiting task waits for.
fn dependencies(look: &Look<'_>, task: &Task) -> Result<Vec<Reason>, Error> {
    let parse = |id: &str| id.parse::<TaskId>().ok();
    let after: Vec<(TaskId, On)> =
        task.spec.after.iter().filter_map(|a| parse(a.id()).map(|id| (id, a.on()))).collect();
    let wanted: HashSet<TaskId> = after.iter().map(|(id, _on)| *id).collect();
    let states = dependencies::states_of(look.pool, wanted)?;
    let state = |id: TaskId| states.get(&id).copied().unwrap_or(Dependency::Open);
    let mut reasons = Vec::new();
    if let Readiness::Hopeless(needed) = dependency::verdict(&after, state) {
        let text = format!("{} did not end as needed; it will be cancelled", needed.short());
        reasons
            .push(Reason::new(Code::DependencyFailed, text).evidence("needed", needed.to_string()));
    }
    let mut open = Vec::new();
    for (id, on) in &after {
        if state(*id) == Dependency::Open {
            let state = match lookup::standing(look.pool.layout(), *id) {
                Ok(standing) => standing.map(|standing| standing.state().to_owned()),
                // It may have ended; the file that would tell is named.
                Err(err @ Error::Garbled { .. }) => Some(format!("unknown: {err}")),
                Err(err) => return Err(err),
            };
            open.push(json!({"id": id, "state": state, "on": on}));
        }
    }
    if !open.is_empty() {
        let shown: Vec<_> = open
            .iter()
            .take(3)
            .filter_map(|one| {
                let (id, state) = (one["id"].as_str()?, one["state"].as_str().unwrap_or("unknown"));
                let to = match one["on"].as_str() {
                    Some("failure") => " to fail",
                    Some("any") => " to end",
                    Some(_) | None => "",
                };
                Some(format!("{}{to} ({state})", id.get(28..)?))
            })
            .collect();
        let more =
            if open.len() > 3 { format!(" and {} more", open.len() - 3) } else { String::new() };
        let text = format!("it waits for {}{more}", shown.join(", "));
        let count = open.len() as u64;
        let fix = open.first().and_then(|one| one["id"].as_str()?.get(28..).map(str::to_owned));
        let mut reason = Reason::new(Code::WaitingDependency, text).evidence("waits_for", open);
        reason = reason.count(count);
        reason.fix = fix.map(|id| format!("queue why {id}"));
        reasons.push(reason);
    }
    if reasons.is_empty() {
        let text = "all that it waited for has ended; it is released within moments";
        reasons.push(Reason::new(Code::WaitingDependency, text).count(0));
    }
    Ok(reasons)
}

/// A task that is not pending yet: its own reasons, and what would come after them.
fn later(
    look: &Look<'_>,
    subject: Subject,
    requirements: &Requirements,
    mut reasons: Vec<Reason>,
) -> Result<Explanation, Error> {
    let standing = lane::ask(look, requirements)?;
    let text = reasons.first().map(|reason| reason.text.clone()).unwrap_or_default();
    let hopeless = reasons.iter().any(|reason| reason.code == Code::DependencyFailed);
    if !look.view.brain.alive && look.view.alive().next().is_none() {
        let text = "no brain and no worker is there to release it when it is time";
        let fix = look.view.start_of_brain();
        reasons.push(Reason::new(Code::BrainAbsent, text).fix(fix));
    }
    // What its lane waits for now says little about later; what is so for good does not change.
    let impossible = !standing.has_taker;
    let afterwards = standing.reasons.into_iter().filter(|reason| {
        impossible || reason.code == Code::Paused || reason.code == Code::DiskFull
    });
    reasons.extend(in_order(afterwards.collect()));
    let word = if hopeless { Word::Impossible } else { Word::Blocked };
    Ok(look.verdict(subject, word, text, reasons))
}

fn pending(
    look: &Look<'_>,
    subject: Subject,
    requirements: &Requirements,
    found: Option<&Found>,
) -> Result<Explanation, Error> {
    let standing = lane::ask(look, requirements)?;
    let blocked_for_all = standing.reasons.iter().any(|reason| {
        matches!(reason.code, Code::LimitReached | Code::DiskFull) || reason.worker.is_none()
    });
    if !standing.ready.is_empty() && !blocked_for_all {
        return Ok(claimable(look, subject, &standing, found));
    }
    let mut reasons = standing.reasons;
    if !look.view.brain.alive && !standing.has_taker {
        reasons.push(look.view.brain_absent());
    }
    let reasons = in_order(reasons);
    let for_good = reasons.iter().any(|reason| reason.code.is_impossible());
    // With no worker at all nothing can be said about never: the pool is just not running.
    let is_off = look.view.alive().next().is_none();
    let word = match (standing.has_taker, for_good && !is_off) {
        (false, true) => Word::Impossible,
        (_, _) => Word::Blocked,
    };
    let text = match reasons.first() {
        Some(reason) => reason.text.clone(),
        None => "no worker is ready to take it".to_owned(),
    };
    let reasons = match reasons.is_empty() {
        true => vec![Reason::new(Code::Unknown, "nothing known stands in its way")],
        false => reasons,
    };
    Ok(look.verdict(subject, word, text, reasons))
}

/// Somebody could take it now. If so for long, and it is the next one, something is wrong.
fn claimable(
    look: &Look<'_>,
    subject: Subject,
    standing: &lane::Standing<'_>,
    found: Option<&Found>,
) -> Explanation {
    let names: Vec<_> = standing.ready.iter().map(|worker| worker.name.to_string()).collect();
    let names = names.join(", ");
    if let Some(found) = found {
        let idle = standing.ready.iter().filter_map(|worker| {
            worker.heartbeat.as_ref()?.idle_since.map(|since| look.view.at.seconds_since(since))
        });
        let idle = idle.fold(0.0, f64::max);
        let waited = in_place(look, found).unwrap_or(0.0).min(idle);
        let is_next = look.view.counts.lanes.iter().any(|lane| lane.head == Some(found.name.id));
        if waited > look.patience() && is_next {
            let text = format!("{names} could take it, and nobody does for {waited:.0}s");
            let reason = Reason::new(Code::ClaimStalled, text.clone())
                .evidence("seconds", waited)
                .evidence("workers", names)
                .fix("queue workers");
            return look.verdict(subject, Word::Blocked, text, vec![reason]);
        }
    }
    let text = format!("{names} can take it now");
    // Others may be busy; that decides nothing any more.
    look.verdict(subject, Word::Claimable, text, Vec::new())
}

/// Seconds since the task came where it is: the rename is what last changed its file.
fn in_place(look: &Look<'_>, found: &Found) -> Option<f64> {
    let meta = std::fs::symlink_metadata(found.path(look.pool.layout())).ok()?;
    let came = Moment::from_unix_millis(meta.ctime() * 1000 + meta.ctime_nsec() / 1_000_000);
    Some(look.view.at.seconds_since(came))
}
