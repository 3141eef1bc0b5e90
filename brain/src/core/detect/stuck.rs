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
use crate::core::words::snapshot::{Held, Snapshot};

/// What is known about the progress of an attempt.
#[derive(Clone, Debug, PartialEq)]
enum Progress {
    /// None for so many seconds, of so many that it runs.
    None { seconds: f64, runs_for: Option<f64>, evidence: Map<String, Value> },
    /// Nobody can tell: it is stopped, not readable, or its worker says nothing.
    Unknown,
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
    view: BTreeMap<(Name, TaskName), Stuck>,
}

#[derive(Clone, Debug)]
struct First {
    at: Duration,
    beat: Option<u64>,
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
            view: BTreeMap::new(),
        }
    }

    /// Takes in a look.
    pub fn look(&mut self, at: At, seen: &Snapshot, hung: &BTreeSet<Name>, out: &mut Vec<Command>) {
        self.forget(at, seen, out);
        let (mut list, mut count) = (Vec::new(), None);
        for held in &seen.processing {
            let alive = seen.workers.get(&held.worker).is_some_and(|worker| worker.is_alive());
            if !alive || hung.contains(&held.worker) {
                continue;
            }
            let progress = self.progress(at, seen, held);
            let Progress::None { seconds, runs_for, evidence } = progress else { continue };
            self.ask(held, seen.run_of(held), seconds, out);
            if seconds >= self.after.as_secs_f64() {
                list.push(self.quiet(at, held, Quiet { seconds, evidence }, &mut count));
            } else {
                self.moving(at, held, out);
                self.slow(held, runs_for, evidence, out);
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
        for ((_worker, name), seconds) in self.stuck.keep(at, |key| there.contains(key)) {
            say(out, cleared(name, seconds + self.after.as_secs_f64()));
        }
    }

    fn progress(&mut self, at: At, seen: &Snapshot, held: &Held) -> Progress {
        let heartbeat = seen.workers.get(&held.worker).and_then(|worker| worker.own_heartbeat());
        let beat = heartbeat.map(|heartbeat| heartbeat.seq);
        let key = (held.worker.clone(), held.name);
        let first = self.first.entry(key).or_insert(First { at: at.now, beat });
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
            say(out, cleared(held.name, lasted + self.after.as_secs_f64()));
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

fn cleared(name: TaskName, seconds: f64) -> Event {
    Event::StuckCleared { task: name.id, attempt: name.attempt, seconds }
}
