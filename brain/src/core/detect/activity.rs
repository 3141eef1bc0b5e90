//! Since when each worker has done nothing, by the brain's own clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use queue::eligible::{self, Candidate};
use queue::wire::heartbeat::Heartbeat;
use queue::wire::lane::Requirements;
use shared::id::TaskId;
use shared::name::Name;

use crate::core::words::at::At;
use crate::core::words::snapshot::Snapshot;

/// What a worker has done so far: as long as this does not change, it does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Deeds {
    life: String,
    ended: u64,
    current: Vec<(TaskId, u32)>,
}

impl Deeds {
    fn of(heartbeat: &Heartbeat) -> Self {
        let current = heartbeat.current.iter().map(|run| (run.task_id, run.attempt)).collect();
        let ended = heartbeat.completed + heartbeat.failed;
        Self { life: heartbeat.life.to_string(), ended, current }
    }
}

/// What each worker does, and since when.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    workers: BTreeMap<Name, (Deeds, Duration)>,
}

impl Activity {
    /// Takes in a look.
    pub fn look(&mut self, at: At, seen: &Snapshot) {
        let alive = |name: &Name| seen.workers.get(name).is_some_and(|worker| worker.is_alive());
        self.workers.retain(|name, _deeds| alive(name));
        for (name, worker) in seen.alive() {
            let Some(heartbeat) = worker.own_heartbeat() else { continue };
            let deeds = Deeds::of(heartbeat);
            match self.workers.get(name) {
                Some((known, _since)) if *known == deeds => {}
                Some(_) | None => drop(self.workers.insert(name.clone(), (deeds, at.now))),
            }
        }
    }

    /// For how long this living worker has neither begun nor ended anything.
    #[must_use]
    pub fn unchanged_for(&self, at: At, worker: &Name) -> Option<Duration> {
        self.workers.get(worker).map(|(_deeds, since)| at.now.saturating_sub(*since))
    }

    /// For how long this living worker has had nothing to do.
    #[must_use]
    pub fn idle_for(&self, at: At, worker: &Name) -> Option<Duration> {
        let (deeds, since) = self.workers.get(worker)?;
        deeds.current.is_empty().then(|| at.now.saturating_sub(*since))
    }
}

/// The workers that could take something and do not.
#[derive(Clone, Copy, Debug)]
pub struct Idlers<'a> {
    /// Since when each does nothing.
    pub activity: &'a Activity,
    /// Those of which nothing is known.
    pub hung: &'a BTreeSet<Name>,
}

impl Idlers<'_> {
    /// Living workers that may take from this lane now and have begun and ended nothing for at
    /// least `least`.
    #[must_use]
    pub fn for_lane(
        &self,
        at: At,
        seen: &Snapshot,
        needs: &Requirements,
        least: Duration,
    ) -> Vec<Name> {
        let fits = |name: &Name, heartbeat: &Heartbeat| {
            let idle = self.activity.unchanged_for(at, name).is_some_and(|idle| idle >= least);
            idle && !self.hung.contains(name)
                && eligible::reasons(Candidate::from(heartbeat), needs).is_empty()
        };
        let known = seen.alive().filter_map(|(name, worker)| Some((name, worker.own_heartbeat()?)));
        known.filter(|(name, hb)| fits(name, hb)).map(|(name, _hb)| name.clone()).collect()
    }
}
