//! Workers that hold their lease and whose heartbeat does not move: reported, never acted upon,
//! because a process that is stopped, or on a machine that was suspended, is not dead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use queue::wire::brain_state::Warning;
use serde_json::{Map, Value, json};
use shared::event::Event;
use shared::name::Name;
use shared::quantity::Bytes;
use shared::settings::Settings;

use super::condition::Conditions;
use crate::core::words::at::At;
use crate::core::words::command::{Command, say};
use crate::core::words::snapshot::{Life, Snapshot, Worker};

/// With less than this a heartbeat cannot be written, and its standing still says nothing.
const FULL: Bytes = Bytes(1 << 20);

/// Finds living workers whose heartbeat stands still, and heartbeats without a lease file.
#[derive(Clone, Debug)]
pub struct HungWorkers {
    threshold: Duration,
    /// Which life of the worker, the last number seen, and when it last grew.
    beats: BTreeMap<Name, Beat>,
    hung: Conditions<Name>,
    lockless: Conditions<Name>,
}

#[derive(Clone, Debug, PartialEq)]
struct Beat {
    life: Option<String>,
    seq: Option<u64>,
    moved: Duration,
    /// Whether it was seen to grow, and not only to be there.
    grew: Option<Duration>,
}

impl HungWorkers {
    /// With the threshold of the settings.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let (beats, hung) = (BTreeMap::new(), Conditions::default());
        let threshold = settings.heartbeat_warn.0;
        Self { threshold, beats, hung, lockless: Conditions::default() }
    }

    /// Takes in a look.
    pub fn look(&mut self, at: At, seen: &Snapshot, out: &mut Vec<Command>) {
        self.beats.retain(|name, _beat| seen.workers.contains_key(name));
        for (name, worker) in &seen.workers {
            self.note(at, name, worker);
        }
        let full = seen.free.is_some_and(|free| free < FULL);
        if !full {
            self.judge(at, seen, out);
        }
        self.look_for_locks(at, seen, out);
    }

    fn note(&mut self, at: At, name: &Name, worker: &Worker) {
        let heartbeat = worker.heartbeat.as_deref();
        let life = worker.record.as_ref().map(|record| record.life.to_string());
        let seq = heartbeat.map(|heartbeat| heartbeat.seq);
        match self.beats.get_mut(name) {
            Some(beat) if beat.life == life && beat.seq == seq => {}
            Some(beat) => {
                *beat = Beat { life, seq, moved: at.now, grew: Some(at.now) };
            }
            None => {
                self.beats.insert(name.clone(), Beat { life, seq, moved: at.now, grew: None });
            }
        }
    }

    fn judge(&mut self, at: At, seen: &Snapshot, out: &mut Vec<Command>) {
        let mut hung = BTreeSet::new();
        for (name, worker) in seen.alive() {
            let Some(beat) = self.beats.get(name) else { continue };
            let age = at.now.saturating_sub(beat.moved);
            if age < self.threshold {
                continue;
            }
            hung.insert(name.clone());
            if let Some(count) = self.hung.holds(at, name) {
                let (seconds, threshold_seconds) =
                    (age.as_secs_f64(), self.threshold.as_secs_f64());
                let (worker, evidence) = (name.clone(), evidence(worker));
                say(out, Event::WorkerHung { worker, seconds, threshold_seconds, count, evidence });
            }
        }
        for (worker, lasted) in self.hung.keep(at, |name| hung.contains(name)) {
            // It went on, or it died: the dead are spoken of elsewhere.
            if seen.workers.get(&worker).is_some_and(Worker::is_alive) {
                let seconds = lasted + self.threshold.as_secs_f64();
                say(out, Event::WorkerHungCleared { worker, seconds });
            }
        }
    }

    /// A missing lock file beside a heartbeat that moves is a warning, not a death.
    fn look_for_locks(&mut self, at: At, seen: &Snapshot, out: &mut Vec<Command>) {
        let fresh = |name: &Name| {
            let grew = self.beats.get(name).and_then(|beat| beat.grew);
            grew.is_some_and(|grew| at.now.saturating_sub(grew) < self.threshold)
        };
        let lockless = |name: &Name| {
            seen.workers.get(name).is_some_and(|worker| worker.life == Life::NoLease) && fresh(name)
        };
        let holding: Vec<Name> =
            seen.workers.keys().filter(|name| lockless(name)).cloned().collect();
        for worker in &holding {
            if let Some(count) = self.lockless.holds(at, worker) {
                let path = format!("locks/workers/{worker}.lock").into();
                say(out, Event::WorkerLockMissing { worker: worker.clone(), path, count });
            }
        }
        self.lockless.keep(at, |name| holding.contains(name));
    }

    /// Those that are hung.
    #[must_use]
    pub fn names(&self) -> BTreeSet<Name> {
        self.hung.all().map(|(name, _since)| name.clone()).collect()
    }

    /// What somebody should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let hung = self.hung.all().map(|(name, since)| Warning {
            code: "worker.hung".into(),
            text: format!("worker {name} lives, but its heartbeat stands still"),
            since,
        });
        let lockless = self.lockless.all().map(|(name, since)| Warning {
            code: "worker.lock_missing".into(),
            text: format!("worker {name} sends heartbeats, but its lock file is gone"),
            since,
        });
        hung.chain(lockless).collect()
    }
}

/// What its process does, what it said last, and what it was doing.
fn evidence(worker: &Worker) -> Map<String, Value> {
    let mut evidence = Map::new();
    let state = worker.process.map(|letter| letter.to_string());
    evidence.insert("process_state".into(), json!(state));
    evidence.insert("pid".into(), json!(worker.record.as_ref().map(|record| record.process.pid)));
    let heartbeat = worker.own_heartbeat();
    evidence.insert("heartbeat_at".into(), json!(heartbeat.map(|heartbeat| heartbeat.at)));
    evidence.insert("status".into(), json!(heartbeat.map(|heartbeat| heartbeat.status)));
    let claim = heartbeat.map(|heartbeat| heartbeat.claim.result.clone());
    evidence.insert("last_claim".into(), json!(claim));
    let current = heartbeat.map(|heartbeat| {
        heartbeat.current.iter().map(|run| run.task_id.to_string()).collect::<Vec<_>>()
    });
    evidence.insert("current".into(), json!(current));
    evidence
}
