//! Tasks that make no progress. By default they are reported; where a stall limit is set, the
//! worker is asked to end the job and put the task back. A quiet job is not always a hung one: a
//! task past the limit that does make progress is *slow*, and what is unknown never counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use queue::wire::brain_state::Stuck;
use queue::wire::heartbeat::{Heartbeat, Run};
use serde_json::{Map, Value, json};
use shared::event::{Event, StuckTask};
use shared::name::Name;
use shared::settings::{Settings, StallTimeouts};
use shared::task::TaskName;

use super::condition::Conditions;
use crate::core::words::at::At;
use crate::core::words::command::{Command, say};
use crate::core::words::snapshot::{Held, Signs, Snapshot};

/// A task that did something within this part of `stuck_after` makes progress; one that has been
/// quiet for longer does neither that, nor is it stuck yet.
const MOVES: f64 = 10.0;

/// What is known about the progress of an attempt.
#[derive(Clone, Debug, PartialEq)]
enum Progress {
    /// None for so many seconds, of so many that it runs.
    None { seconds: f64, runs_for: Option<f64>, evidence: Map<String, Value> },
    /// Nobody can tell: it is stopped, or its worker says nothing of it.
    Unknown,
    /// Its worker says nothing, and neither can it be seen from here, for this reason.
    Unseen(String),
}

/// Finds tasks without progress, and has those ended that are past their stall limit.
#[derive(Clone, Debug)]
pub struct StuckTasks {
    after: Duration,
    stall: StallTimeouts,
    /// When each attempt was first seen, and which heartbeat its worker had sent by then.
    first: BTreeMap<(Name, TaskName), First>,
    stuck: Conditions<(Name, TaskName)>,
    slow: BTreeSet<TaskName>,
    asked: BTreeSet<TaskName>,
    /// What was seen of those whose worker does not look after them.
    unattended: BTreeMap<TaskName, Watched>,
    /// Those of which it was said that nobody can tell.
    obscure: BTreeSet<TaskName>,
    view: BTreeMap<(Name, TaskName), Stuck>,
}

#[derive(Clone, Debug)]
struct First {
    at: Duration,
    beat: Option<u64>,
}

/// The last change of what the brain itself sees of an attempt.
#[derive(Clone, Debug)]
struct Watched {
    signs: Signs,
    since: Duration,
    /// For how long it had been quiet before, as its worker said last, in seconds.
    before: f64,
}

/// For how long a task has made no progress, and what says so.
struct Quiet {
    seconds: f64,
    evidence: Map<String, Value>,
}

impl StuckTasks {
    /// With the limits of the settings.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            after: settings.stuck_after.0,
            stall: settings.stall_timeout.clone(),
            first: BTreeMap::new(),
            stuck: Conditions::default(),
            slow: BTreeSet::new(),
            asked: BTreeSet::new(),
            unattended: BTreeMap::new(),
            obscure: BTreeSet::new(),
            view: BTreeMap::new(),
        }
    }

    /// Takes in a look.
    pub fn look(&mut self, at: At, seen: &Snapshot, hung: &BTreeSet<Name>, out: &mut Vec<Command>) {
        self.forget(at, seen, out);
        let (mut list, mut count) = (Vec::new(), None);
        for held in &seen.processing {
            let alive = seen.workers.get(&held.worker).is_some_and(|worker| worker.is_alive());
            let silent = hung.contains(&held.worker);
            if !alive || silent && !seen.unattended.contains_key(&held.name) {
                continue;
            }
            let (seconds, runs_for, evidence) = match self.progress(at, seen, held) {
                Progress::None { seconds, runs_for, evidence } => (seconds, runs_for, evidence),
                Progress::Unknown => continue,
                Progress::Unseen(error) => {
                    self.unseen(held, error, out);
                    continue;
                }
            };
            // Who does not look cannot be asked.
            if !seen.unattended.contains_key(&held.name) {
                self.ask(held, seen.run_of(held), seconds, out);
            }
            if seconds >= self.after.as_secs_f64() {
                list.push(self.quiet(at, held, Quiet { seconds, evidence }, &mut count));
            } else {
                self.moving(at, held, out);
                if seconds < self.after.as_secs_f64() / MOVES {
                    self.slow(held, runs_for, evidence, out);
                }
            }
        }
        // One line for all, when one of them is to be spoken of.
        if let Some(count) = count {
            say(out, Event::StuckTasks { tasks: list, count });
        }
    }

    /// Attempts that are over, or in other hands.
    fn forget(&mut self, at: At, seen: &Snapshot, out: &mut Vec<Command>) {
        let there: BTreeSet<_> =
            seen.processing.iter().map(|held| (held.worker.clone(), held.name)).collect();
        let names: BTreeSet<_> = there.iter().map(|(_worker, name)| *name).collect();
        self.first.retain(|key, _first| there.contains(key));
        self.view.retain(|key, _stuck| there.contains(key));
        self.slow.retain(|name| names.contains(name));
        self.asked.retain(|name| names.contains(name));
        self.unattended.retain(|name, _watched| seen.unattended.contains_key(name));
        self.obscure.retain(|name| seen.unattended.contains_key(name));
        for ((_worker, name), seconds) in self.stuck.keep(at, |key| there.contains(key)) {
            let (task, attempt) = (name.id, name.attempt);
            let seconds = seconds + self.after.as_secs_f64();
            say(out, Event::StuckOver { task, attempt, seconds });
        }
    }

    fn progress(&mut self, at: At, seen: &Snapshot, held: &Held) -> Progress {
        let heartbeat = seen.workers.get(&held.worker).and_then(|worker| worker.own_heartbeat());
        let beat = heartbeat.map(|heartbeat| heartbeat.seq);
        let key = (held.worker.clone(), held.name);
        let first = self.first.entry(key).or_insert(First { at: at.now, beat });
        if let Some(signs) = seen.unattended.get(&held.name) {
            let run = seen.run_of(held);
            return self.watch(at, held, run, signs);
        }
        match (heartbeat, seen.run_of(held)) {
            (Some(heartbeat), Some(run)) => of_run(heartbeat, run),
            // Its worker lives and does not know of it: nobody works on it.
            (Some(_), None) if beat > first.beat => {
                let seconds = at.now.saturating_sub(first.at).as_secs_f64();
                let mut evidence = Map::new();
                evidence.insert("known_to_its_worker".into(), json!(false));
                Progress::None { seconds, runs_for: None, evidence }
            }
            (Some(_), None) | (None, _) => Progress::Unknown,
        }
    }

    /// What the brain sees by itself.
    fn watch(&mut self, at: At, held: &Held, run: Option<&Run>, signs: &Signs) -> Progress {
        let before = run.and_then(|run| run.quiet_seconds).unwrap_or(0.0);
        let new = || Watched { signs: signs.clone(), since: at.now, before };
        let watched = self.unattended.entry(held.name).or_insert_with(new);
        if watched.signs != *signs {
            *watched = Watched { signs: signs.clone(), since: at.now, before: 0.0 };
        }
        let (output, cpu_ticks) = match signs {
            Signs::Seen { output, cpu_ticks } => (*output, *cpu_ticks),
            Signs::Stopped => return Progress::Unknown,
            Signs::Unseen(error) => return Progress::Unseen(error.clone()),
        };
        let seconds = at.now.saturating_sub(watched.since).as_secs_f64() + watched.before;
        let mut evidence = Map::new();
        evidence.insert("output_bytes".into(), json!(output));
        evidence.insert("cpu_ticks".into(), json!(cpu_ticks));
        evidence.insert("seen_by".into(), json!("brain"));
        Progress::None { seconds, runs_for: None, evidence }
    }

    /// Says once that nobody can tell whether it gets on.
    fn unseen(&mut self, held: &Held, error: String, out: &mut Vec<Command>) {
        let (task, attempt, worker) = (held.name.id, held.name.attempt, held.worker.clone());
        if self.obscure.insert(held.name) {
            say(out, Event::ProgressUnknown { task, attempt, worker, error });
        }
    }

    fn quiet(&mut self, at: At, held: &Held, quiet: Quiet, count: &mut Option<u64>) -> StuckTask {
        let Quiet { seconds, evidence } = quiet;
        let key = (held.worker.clone(), held.name);
        *count = (*count).max(self.stuck.holds(at, &key));
        let (task_id, worker) = (held.name.id, held.worker.clone());
        let stuck = Stuck { task_id, worker, seconds, evidence: evidence.clone() };
        self.view.insert(key, stuck);
        let name = held.task.as_ref().map_or_else(String::new, |task| task.name.clone());
        let (attempt, assigned_to) = (held.name.attempt, held.worker.clone());
        StuckTask { task_id, attempt, assigned_to, seconds, name, evidence }
    }

    fn moving(&mut self, at: At, held: &Held, out: &mut Vec<Command>) {
        let key = (held.worker.clone(), held.name);
        self.view.remove(&key);
        if let Some(lasted) = self.stuck.ended(at, &key) {
            let (task, attempt) = (held.name.id, held.name.attempt);
            let seconds = lasted + self.after.as_secs_f64();
            say(out, Event::StuckCleared { task, attempt, seconds });
        }
    }

    fn slow(
        &mut self,
        held: &Held,
        runs_for: Option<f64>,
        evidence: Map<String, Value>,
        out: &mut Vec<Command>,
    ) {
        let Some(seconds) = runs_for.filter(|seconds| *seconds >= self.after.as_secs_f64()) else {
            return;
        };
        if self.slow.insert(held.name) {
            let (task, attempt) = (held.name.id, held.name.attempt);
            let worker = held.worker.clone();
            say(out, Event::SlowTask { task, attempt, worker, seconds, evidence });
        }
    }

    /// Asks the worker to end the job, where a limit is set and over. Once for each attempt, and
    /// never for what the worker does not know: it could not end it.
    fn ask(&mut self, held: &Held, run: Option<&Run>, seconds: f64, out: &mut Vec<Command>) {
        let Some(run) = run else { return };
        let own = held.task.as_ref().and_then(|task| task.stall_timeout);
        let limit = own.or_else(|| self.stall.0.get(&run.class).map(|limit| limit.0));
        let Some(limit) = limit else { return };
        if seconds < limit.as_secs_f64() || !self.asked.insert(held.name) {
            return;
        }
        let (worker, name) = (held.worker.clone(), held.name);
        out.push(Command::Stall { worker: worker.clone(), name, seconds });
        say(out, Event::StallStop { task: name.id, attempt: name.attempt, worker, seconds });
    }

    /// Those that are stuck.
    #[must_use]
    pub fn view(&self) -> Vec<Stuck> {
        self.view.values().cloned().collect()
    }
}

fn of_run(heartbeat: &Heartbeat, run: &Run) -> Progress {
    let Some(seconds) = run.quiet_seconds else { return Progress::Unknown };
    let mut evidence = run.evidence.clone();
    evidence.insert("last_output_age_seconds".into(), json!(run.last_output_age_seconds));
    let runs_for = run.started_at.map(|started| heartbeat.at.seconds_since(started));
    evidence.insert("runs_for_seconds".into(), json!(runs_for));
    Progress::None { seconds, runs_for, evidence }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixture::{Stage, names, words};

    fn signs(output: u64, ticks: u64) -> Signs {
        Signs::Seen { output, cpu_ticks: Some(ticks) }
    }

    /// A worker that was stopped with a job, of which the brain sees this, for so many seconds
    /// each; what was said of the job.
    fn said(seen: &[(Signs, u64)]) -> Vec<&'static str> {
        let mut stage = Stage::new(&Settings::default());
        stage.add_worker("worker-1", Some(1));
        let task = stage.runs("worker-1", Some(30.0));
        stage.look();
        let mut said = Vec::new();
        for (signs, seconds) in seen {
            stage.seen.unattended = BTreeMap::from([(task, signs.clone())]);
            let commands = stage.pass(*seconds);
            said.extend(names(&commands).into_iter().filter(|name| name.starts_with("detect.")));
        }
        said
    }

    #[test]
    fn a_task_of_a_worker_that_is_silent_is_stuck_when_its_time_is_up() {
        // It had been quiet for 30 s when its worker was stopped.
        assert!(said(&[(signs(5, 7), 269)]).is_empty());
        assert_eq!(said(&[(signs(5, 7), 271)]), ["detect.stuck"]);
        // What it writes, or computes, is progress.
        for moved in [signs(6, 7), signs(5, 8)] {
            assert!(said(&[(signs(5, 7), 260), (moved.clone(), 299)]).is_empty());
            let again = [(signs(5, 7), 260), (moved, 301), (signs(9, 9), 1)];
            assert_eq!(said(&again), ["detect.stuck", "detect.stuck_cleared"]);
        }
    }

    #[test]
    fn only_a_job_that_is_stopped_itself_is_spared_and_what_cannot_be_seen_is_said_once() {
        assert!(said(&[(Signs::Stopped, 900)]).is_empty());
        let unseen = Signs::Unseen("its processes cannot be seen from here".into());
        assert_eq!(said(&[(unseen, 900)]), ["detect.progress_unknown"]);
    }

    #[test]
    fn nobody_says_of_a_quiet_task_that_it_makes_progress() {
        for (quiet, slow) in [(299.0, 0), (31.0, 0), (29.0, 1)] {
            let mut stage = Stage::new(&Settings::default());
            stage.add_worker("worker-1", Some(1));
            stage.runs("worker-1", Some(quiet));
            stage.beat("worker-1", |beat| {
                beat.at = shared::time::Moment::from_unix_millis(301_000);
            });
            assert_eq!(words(&stage.pass(5), "detect.slow").len(), slow, "{quiet}");
        }
    }
}
