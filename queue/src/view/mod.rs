//! The pool as it is seen from outside: who works, who is dead, how many tasks are where. Who is
//! alive is asked of the kernel (the lease); how the living fare is read from their heartbeats.

mod brain;
pub mod models;
mod worker;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use shared::quantity::Bytes;
use shared::reason::{Code, Reason};
use shared::settings::Settings;
use shared::time::Moment;

use crate::Error;
use crate::dir::Pool;
use crate::dir::disk::reserve::Shortage;
use crate::dir::find::counts::Counter;
use crate::dir::find::ledger_counts;
use crate::dir::signal::control;
use crate::wire::brake::Brake;
use crate::wire::completed_lately::CompletedLately;
use crate::wire::counts::{Counts, Unlisted};
use crate::wire::heartbeat::hog;

pub use brain::Brain;
pub use worker::{Life, Worker, gpu_warning, worker, worker_warning, workers};

/// Above so many tasks the brain's count is taken, where it is fresh; below, counting is quicker
/// than it is old.
const MANY: u64 = 300_000;

/// How many tasks are in each state, as scripts read it. `None` is unknown, which is not 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "named as the states are")]
pub struct States {
    pub pending: Option<u64>,
    pub processing: Option<u64>,
    pub delayed: Option<u64>,
    pub waiting: Option<u64>,
    pub held: Option<u64>,
    pub failed: Option<u64>,
    pub complete: u64,
    pub cancelled: u64,
    pub rejected: Option<u64>,
}

/// The whole pool at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// When the look began.
    pub at: Moment,
    /// How many tasks are where.
    pub states: States,
    /// The lanes with pending tasks.
    pub counts: Counts,
    /// Those who work, or did so lately.
    pub workers: Vec<Worker>,
    /// The brain, also where none lives: then what the last one left.
    pub brain: Brain,
    /// Who paused the pool.
    pub pause: Option<control::Message>,
    /// What holds tasks whose like have failed.
    pub brakes: Vec<Brake>,
    /// That too little is free on its disk to begin anything new.
    pub disk_short: Option<Shortage>,
}

/// How exactly to count the tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// What the brain counted a moment ago will do, where there is much to count.
    Quick,
    /// All of it, with the first task of every lane.
    Exact,
}

/// Looks at the whole pool, part by part: what moves meanwhile may be seen twice or not at all.
pub fn see(pool: &Pool, settings: &Settings, count: Count) -> Result<View, Error> {
    let at = Moment::now();
    let brain = Brain::see(pool)?;
    let known = match count {
        Count::Quick => brain.fresh(at).and_then(|state| brain_counts(state, at)),
        Count::Exact => None,
    };
    let counts = match known.filter(|counts| counts.pending > MANY) {
        Some(counts) => counts,
        None => Counter::default().take(pool)?,
    };
    let ended = ended(pool, brain.fresh(at))?;
    let states = States {
        pending: counts.known("pending", counts.pending),
        processing: counts.known("processing", counts.processing),
        delayed: counts.known("delayed", counts.delayed),
        waiting: counts.known("waiting", counts.waiting),
        held: counts.known("held", counts.held),
        failed: counts.known("failed", counts.failed),
        complete: ended.complete,
        cancelled: ended.cancelled,
        rejected: counts.known("rejected", counts.rejected),
    };
    Ok(View {
        at,
        states,
        counts,
        workers: workers(pool, settings, at)?,
        brain,
        pause: control::pool_pause(pool.layout())?,
        brakes: pool.brakes().all()?.values().filter(|one| one.is_at_work(at)).cloned().collect(),
        disk_short: pool.shortage()?,
    })
}

fn brain_counts(state: &Value, now: Moment) -> Option<Counts> {
    let mut counts = state.get("counts")?.clone();
    let mut lanes = state.get("lanes")?.clone();
    for lane in lanes.as_array_mut()? {
        let seconds = lane.get("oldest_seconds").and_then(Value::as_f64);
        let millis =
            |seconds: f64| Duration::try_from_secs_f64(seconds).ok()?.as_millis().try_into().ok();
        let oldest = seconds.and_then(millis).map(|age: i64| now.plus_millis(-age));
        lane.as_object_mut()?.insert("oldest".to_owned(), json!(oldest));
    }
    counts.as_object_mut()?.insert("lanes".to_owned(), lanes);
    // What the brain could not count is null there: then we count.
    serde_json::from_value(counts).ok()
}

/// What history says, going on from where the brain has read to.
fn ended(pool: &Pool, state: Option<&Value>) -> Result<ledger_counts::LedgerCounts, Error> {
    let number = |state: &Value, pointer: &str| state.pointer(pointer)?.as_u64();
    let known = state.and_then(|state| {
        let complete = number(state, "/counts/complete")?;
        let cancelled = number(state, "/counts/cancelled")?;
        let mut offsets = BTreeMap::new();
        for (path, offset) in state.get("ledger")?.as_object()? {
            offsets.insert(pool.layout().ledger().join(path), offset.as_u64()?);
            offsets.insert(pool.root().join(path), offset.as_u64()?);
        }
        Some((ledger_counts::LedgerCounts { complete, cancelled }, offsets))
    });
    let (before, offsets) = known.unwrap_or_default();
    let since = ledger_counts::count(pool.layout(), &offsets)?;
    Ok(ledger_counts::LedgerCounts {
        complete: before.complete + since.complete,
        cancelled: before.cancelled + since.cancelled,
    })
}

impl View {
    /// Workers that hold their lease.
    pub fn alive(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(|worker| worker.is_alive())
    }

    /// Tasks that succeeded in the last five minutes, as a living brain has counted them.
    #[must_use]
    pub fn completed_lately(&self) -> Option<u64> {
        let counted = self.brain.fresh(self.at)?.get("completions")?.clone();
        let counted: CompletedLately = serde_json::from_value(counted).ok()?;
        Some(counted.lately(self.at))
    }

    /// Running tasks without progress: the brain's list, or what heartbeats say.
    #[must_use]
    pub fn stuck(&self, settings: &Settings) -> Vec<Value> {
        if let Some(list) = self.brain.fresh(self.at).and_then(|state| state.get("stuck")) {
            return list.as_array().cloned().unwrap_or_default();
        }
        let limit = settings.stuck_after.0.as_secs_f64();
        let mut stuck = Vec::new();
        for worker in self.alive() {
            for run in worker.current() {
                if let Some(seconds) = run.quiet_seconds.filter(|quiet| *quiet > limit) {
                    stuck.push(json!({
                        "task_id": run.task_id, "worker": worker.name,
                        "seconds": seconds, "evidence": run.evidence,
                    }));
                }
            }
        }
        stuck
    }

    /// What somebody should know: the brain's warnings, and ours where it says nothing of it.
    #[must_use]
    pub fn warnings(&self) -> Vec<Value> {
        let listed = self.brain.fresh(self.at).and_then(|state| state.get("warnings")?.as_array());
        let mut warnings = listed.cloned().unwrap_or_default();
        let of_brain = warnings.len();
        for own in self.own_warnings() {
            let about = |text: &str| own.worker.as_ref().is_none_or(|w| text.contains(w.as_str()));
            let said =
                |w: &Value| w["code"] == own.code.as_str() && w["text"].as_str().is_some_and(about);
            if !warnings.iter().take(of_brain).any(said) {
                warnings.push(json!(own));
            }
        }
        warnings
    }

    /// What we see ourselves that somebody should know.
    #[must_use]
    pub fn own_warnings(&self) -> Vec<Reason> {
        let mut found: Vec<Reason> = self.workers.iter().filter_map(worker_warning).collect();
        found.extend(self.workers.iter().filter_map(gpu_warning));
        found.extend(self.pause.as_ref().map(paused));
        found.extend(self.brakes.iter().map(Brake::reason));
        found.extend(self.disk_full());
        found.extend(self.cut_logs());
        found.extend(self.leftovers());
        found.extend(self.brain.hung(self.at));
        found.extend(self.counts.unlisted.iter().map(unlisted));
        let open = self.counts.pending + self.counts.delayed + self.counts.waiting;
        if !self.brain.alive && open > 0 {
            found.push(self.brain_absent());
        }
        found
    }

    /// That no brain runs.
    #[must_use]
    pub fn brain_absent(&self) -> Reason {
        let text = if self.alive().next().is_some() {
            "no brain is running: workers go on, nobody settles the dead or watches for stuck tasks"
        } else {
            "neither a brain nor a worker is running"
        };
        Reason::new(Code::BrainAbsent, text).fix(self.start_of_brain())
    }

    /// The command that starts a brain beside what is there, or was.
    #[must_use]
    pub fn start_of_brain(&self) -> String {
        if self.alive().next().is_some() {
            return "brain --no-spawn".to_owned();
        }
        let beats = self.workers.iter().filter_map(|worker| worker.heartbeat.as_ref());
        let gpus: BTreeSet<u32> = beats.filter_map(|beat| beat.ability.gpu).collect();
        let gpus: Vec<String> = gpus.iter().map(ToString::to_string).collect();
        match gpus.is_empty() {
            true => "brain --cpu".to_owned(),
            false => format!("brain --gpus {}", gpus.join(",")),
        }
    }

    /// Jobs of living workers that have ended, and of which something may still run.
    fn leftovers(&self) -> impl Iterator<Item = Reason> {
        let runs = self.alive().flat_map(|worker| worker.current().map(move |run| (worker, run)));
        runs.filter_map(|(worker, run)| {
            let obstacle = run.kept.as_ref()?;
            let text = format!(
                "the job of {} on {} has ended, and may still run in part: {obstacle}",
                run.task_id.short(),
                worker.name
            );
            let reason = Reason::new(obstacle.code(), text).worker(&worker.name);
            Some(reason.fix(format!("queue why {}", run.task_id.short())))
        })
    }

    /// That the disk is full, if it is.
    #[must_use]
    pub fn disk_full(&self) -> Option<Reason> {
        let mut reason = self.disk_short.map(Shortage::reason)?;
        if let Some(hog) = hog(self.alive().flat_map(Worker::current)) {
            reason.text += &format!("; {hog}");
            reason.fix = Some(hog.end());
        }
        Some(reason)
    }

    /// The jobs that print more than their logs may hold.
    fn cut_logs(&self) -> impl Iterator<Item = Reason> {
        let runs = self.alive().flat_map(|worker| worker.current().map(move |run| (worker, run)));
        runs.filter_map(|(worker, run)| {
            let log = run.log.as_ref()?;
            let (missing, id) = (log.missing?, run.task_id.short());
            let text = format!(
                "the log of {id} ({}) is cut: {missing} of {} are missing; {} come a second: {}",
                run.name,
                log.bytes,
                Bytes(log.bytes_per_second),
                log.path
            );
            Some(
                Reason::new(Code::LogCut, text)
                    .worker(&worker.name)
                    .fix(format!("queue cancel {id}")),
            )
        })
    }
}

/// A directory that cannot be listed, as a reason.
fn unlisted(dir: &Unlisted) -> Reason {
    let (Unlisted { path, problem, state }, fix) = (dir, dir.fix());
    let text = format!(
        "`{path}` cannot be listed ({problem}): how many tasks are {state} there is unknown"
    );
    Reason::new(Code::DirectoryUnlisted, text)
        .evidence("path", path.clone())
        .evidence("state", state.clone())
        .fix(fix)
}

/// The pause of the pool as a reason.
#[must_use]
pub fn paused(pause: &control::Message) -> Reason {
    let why = pause.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    Reason::new(Code::Paused, format!("the pool is paused by {}{why}", pause.by))
        .evidence("by", pause.by.clone())
        .since(pause.at)
        .fix("queue resume")
}
