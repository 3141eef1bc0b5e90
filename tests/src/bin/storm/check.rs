//! The promise, point by point. What holds is silent; what does not is a sentence with evidence.

use std::collections::{BTreeMap, BTreeSet};

use queue::wire::ledger_line::Line;
use serde_json::Value;
use shared::outcome::{Cause, Next, Outcome};
use shared::task::On;

use crate::Storm;
use crate::fleet::Fleet;
use crate::history::{History, Story};
use crate::orders::{Expected, Kind};
use crate::submit::Answer;

/// Where the promise is broken.
pub(crate) type Broken = Vec<String>;

/// What can only be seen while workers and brains live: nothing of any job does.
pub(crate) fn while_all_live(storm: &Storm) -> Broken {
    let alive = storm.pool.alive().into_iter();
    let jobs = alive.filter(|one| one.command.contains("fake-job"));
    jobs.map(|one| format!("a job's process lives on: {} {}", one.pid, one.command)).collect()
}

/// What killed submits have left half done is cleaned up by the next brain that starts.
pub(crate) fn and_cleans_up(storm: &Storm) {
    let brain = storm.pool.brain(&["--no-spawn"]);
    let is_clean = || storm.pool.files_in("incoming").is_empty();
    storm.pool.until_true("the next brain to clean up", is_clean);
    let _killed = brain.kill9();
}

/// Everything else, when all programs have ended.
pub(crate) fn all(storm: &Storm, history: &History, fleet: &Fleet) -> Broken {
    let mut broken = storm.told().wrong.clone();
    broken.extend(history.overlaps.iter().map(|line| format!("it was not alone: {line}")));
    for (id, story) in &history.stories {
        let problems = [ends_once(story), attempts_follow(story), jobs_agree(story)].concat();
        broken.extend(problems.iter().map(|what| format!("{id}: {what}{}", story.tell())));
    }
    broken.extend(submitted(storm, history));
    broken.extend(as_expected(storm, history));
    broken.extend(dependencies(history));
    broken.extend(losses(history, fleet));
    broken.extend(people_were_told_the_truth(storm, history));
    broken.extend(counted(storm, history));
    broken.extend(storm.pool.alive().iter().map(|one| format!("it lives on: {one:?}")));
    broken
}

fn is_end(line: &Line) -> bool {
    line.next.ends_task()
}

/// One line ends the task, it is the last, and the task's file is where it says.
fn ends_once(story: &Story) -> Vec<String> {
    let mut broken = Vec::new();
    let ends = story.lines.iter().filter(|line| is_end(line)).count();
    if ends != 1 || !story.last().is_some_and(is_end) {
        broken.push(format!("{ends} lines end it, where the last one should"));
    }
    let should_be = match story.last().map(|line| line.next) {
        Some(Next::Failed) => vec!["failed"],
        Some(Next::End | Next::Pending | Next::Delayed(_) | Next::Rejected) | None => vec![],
    };
    let is: Vec<_> = story.places.iter().filter_map(|place| place.split('/').next()).collect();
    if is != should_be {
        broken.push(format!("its file is in {is:?} and not in {should_be:?}"));
    }
    broken
}

/// Attempts are 1, 2, 3, … with one line each, and each name follows from the line before.
fn attempts_follow(story: &Story) -> Vec<String> {
    let mut broken = Vec::new();
    let (mut failures, mut deaths) = (0, 0);
    for (number, line) in (1..).zip(&story.lines) {
        if line.attempt != number {
            broken.push(format!("attempt {} stands where attempt {number} should", line.attempt));
            return broken;
        }
        match (line.outcome, line.cause) {
            (Outcome::Failed, Some(Cause::WorkerDied)) => deaths += 1,
            (Outcome::Failed, _) => failures += 1,
            (Outcome::Succeeded | Outcome::Cancelled | Outcome::Returned, _) => {}
        }
        let name = line.next_name;
        let attempt = if is_end(line) { number } else { number + 1 };
        if (name.attempt, name.failures, name.deaths) != (attempt, failures, deaths) {
            broken.push(format!("a{attempt}f{failures}d{deaths} should follow, not {name}"));
        }
    }
    broken
}

/// What the jobs wrote about themselves agrees with the ledger.
fn jobs_agree(story: &Story) -> Vec<String> {
    let mut broken = Vec::new();
    let mut last = (0, 0);
    for (attempt, ran) in &story.ran {
        if ran.starts.len() != 1 || ran.ends.len() > 1 {
            broken.push(format!("the job of attempt {attempt} began or ended more than once"));
        }
        let start = ran.starts.first().copied().unwrap_or(0);
        if start <= last.0 {
            broken.push(format!("attempt {attempt} began while attempt {} ran", last.1));
        }
        last = (ran.ends.last().copied().unwrap_or(start), *attempt);
        if !story.lines.iter().any(|line| line.attempt == *attempt) {
            broken.push(format!("attempt {attempt} ran and has no line"));
        }
    }
    for line in &story.lines {
        let ended = story.ran.get(&line.attempt).is_some_and(|ran| !ran.ends.is_empty());
        let exited = match (line.outcome, line.cause) {
            (Outcome::Succeeded, _) => true,
            (Outcome::Failed | Outcome::Returned, cause) => cause == Some(Cause::ExitCode),
            (Outcome::Cancelled, _) => false,
        };
        if exited && !ended {
            broken.push(format!("attempt {} did not reach its end, says its job", line.attempt));
        }
    }
    broken
}

/// What was acknowledged is there, once; what was not is there as a whole or not at all.
fn submitted(storm: &Storm, history: &History) -> Broken {
    let mut broken = Vec::new();
    let by_label = history.by_label();
    for submitted in &storm.told().submitted {
        let found: Vec<_> = submitted
            .orders
            .iter()
            .filter_map(|order| by_label.get(order.label.as_str()))
            .collect();
        let (asked, there) = (submitted.orders.len(), found.len());
        let first = submitted.orders.first().map_or("", |order| order.label.as_str());
        let twice = |ids: &&&BTreeSet<&str>| ids.len() > 1 && !was_run_again(history, ids);
        if let Some(twice) = found.iter().find(twice) {
            broken.push(format!("submitted once and there more than once: {twice:?}"));
        }
        let printed = match &submitted.answer {
            Answer::Whole(ids) => {
                if asked != there {
                    broken.push(format!("{there} of {asked} are there of submission {first}"));
                }
                ids
            }
            Answer::Cut(ids) => {
                if there != 0 && there != asked {
                    broken
                        .push(format!("{there} of {asked} are there of killed submission {first}"));
                }
                ids
            }
        };
        let is_there = |id: &String| found.iter().any(|ids| ids.contains(id.as_str()));
        let lost = printed.iter().filter(|id| !is_there(id));
        broken.extend(lost.map(|id| format!("{id} was acknowledged and is lost")));
    }
    broken
}

/// Whoever submits a batch once more under its key, because he was killed the first time, has run
/// again what has failed, or was cancelled, by then.
fn was_run_again(history: &History, ids: &BTreeSet<&str>) -> bool {
    // In the order of their ids, which is that of their making.
    let earlier = ids.iter().take(ids.len() - 1);
    let mut ends = earlier.map(|id| history.stories.get(*id).and_then(Story::last));
    ends.all(|last| {
        last.is_some_and(|line| {
            let missing = matches!(line.outcome, Outcome::Failed | Outcome::Cancelled);
            missing && is_end(line) && line.task.batch_id.is_some()
        })
    })
}

/// What nobody cancelled ends as its kind does.
fn as_expected(storm: &Storm, history: &History) -> Broken {
    let told = storm.told();
    let orders = told.submitted.iter().flat_map(|submitted| &submitted.orders);
    let kinds: BTreeMap<&str, Kind> =
        orders.map(|order| (order.label.as_str(), order.kind)).collect();
    let mut broken = Vec::new();
    for (id, story) in &history.stories {
        let Some(line) = story.last() else { continue };
        let label = line.task.spec.labels.get("storm").map_or("", String::as_str);
        let Some(kind) = kinds.get(label) else {
            broken.push(format!("{id}: nobody has submitted it{}", story.tell()));
            continue;
        };
        let well = match line.outcome {
            Outcome::Cancelled if line.cause == Some(Cause::DependencyFailed) => {
                !line.task.spec.after.is_empty()
            }
            Outcome::Cancelled => told.cancel_tried.contains(id),
            Outcome::Succeeded => kind.expected() == Expected::Success,
            Outcome::Failed => failed_as(*kind, story),
            Outcome::Returned => false,
        };
        if !well {
            broken.push(format!("{id}: {kind:?} should not end so{}", story.tell()));
        }
    }
    broken
}

fn failed_as(kind: Kind, story: &Story) -> bool {
    let own = story
        .lines
        .iter()
        .filter(|line| line.outcome == Outcome::Failed && line.cause != Some(Cause::WorkerDied));
    let causes: Vec<_> = own.filter_map(|line| line.cause).map(Cause::as_str).collect();
    match kind.expected() {
        Expected::Success => false,
        Expected::Failure(cause, times) => {
            causes.len() == times && causes.iter().all(|one| *one == cause)
        }
    }
}

/// Whoever depends on another ran only after that had ended as was asked, and ran if it had.
fn dependencies(history: &History) -> Broken {
    let mut broken = Vec::new();
    for (id, story) in &history.stories {
        let Some(line) = story.last() else { continue };
        for after in &line.task.spec.after {
            let Some(other) = history.stories.get(after.id()) else {
                broken.push(format!("{id}: nobody knows {}, which it follows", after.id()));
                continue;
            };
            let outcome = other.last().map(|line| line.outcome);
            let met = match after.on() {
                On::Success => outcome == Some(Outcome::Succeeded),
                On::Failure => outcome != Some(Outcome::Succeeded),
                On::Any => true,
            };
            let starts = story.ran.values().flat_map(|ran| &ran.starts).min();
            let ends = other.ran.values().flat_map(|ran| &ran.ends).max();
            let too_early = starts.zip(ends).is_some_and(|(start, end)| start <= end);
            let given_up = line.cause == Some(Cause::DependencyFailed);
            if too_early || (starts.is_some() && !met) || (given_up && met) {
                broken.push(format!(
                    "{id}: does not follow {} as it should ({after:?}){}\n  the other:{}",
                    after.id(),
                    story.tell(),
                    other.tell()
                ));
            }
        }
    }
    broken
}

/// A worker's death is the cause only where one died, and of no more attempts than it could run.
fn losses(history: &History, fleet: &Fleet) -> Broken {
    let mut lost: BTreeMap<String, u32> = BTreeMap::new();
    let lines = history.stories.values().flat_map(|story| &story.lines);
    for line in lines.filter(|line| line.cause == Some(Cause::WorkerDied)) {
        let worker = line.worker.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        *lost.entry(worker).or_default() += 1;
    }
    let at_most = fleet.losses();
    let bound = |worker: &str| at_most.get(worker).copied().unwrap_or(0);
    let too_many = lost.iter().filter(|(worker, count)| **count > bound(worker));
    too_many
        .map(|(worker, count)| {
            format!("{worker} lost {count} attempts, and can have lost {}", bound(worker))
        })
        .collect()
}

fn people_were_told_the_truth(storm: &Storm, history: &History) -> Broken {
    let told = storm.told();
    let outcome = |id: &String| history.stories.get(id)?.last().map(|line| line.outcome);
    let lies = told.cancelled.iter().filter(|id| outcome(id) != Some(Outcome::Cancelled));
    lies.map(|id| format!("{id}: somebody was told that it was cancelled")).collect()
}

/// `queue status` counts what the ledger holds.
fn counted(storm: &Storm, history: &History) -> Broken {
    let ran = storm.pool.queue(&["status", "--json"]);
    let Ok(status) = serde_json::from_str::<Value>(&ran.stdout) else {
        return vec![format!("no status: {ran}")];
    };
    let mut broken = Vec::new();
    for (field, outcome) in [
        ("complete", Outcome::Succeeded),
        ("cancelled", Outcome::Cancelled),
        ("failed", Outcome::Failed),
    ] {
        let last = history.stories.values().filter_map(Story::last);
        let count = last.filter(|line| line.outcome == outcome).count() as u64;
        if status["counts"][field].as_u64() != Some(count) {
            let said = &status["counts"][field];
            broken.push(format!("status counts {said} as {field}, the ledger {count}"));
        }
    }
    broken
}
