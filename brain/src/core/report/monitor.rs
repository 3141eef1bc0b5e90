//! The MONITOR line: on change, at most every 5 seconds, and at intervals when nothing changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shared::event::{Event, Monitor, Statistics};
use shared::gpu::{GpuReading, Reading};
use shared::name::Name;
use shared::settings::Settings;
use shared::task::Class;

use crate::core::words::at::At;
use crate::core::words::command::{Command, say};
use crate::core::words::snapshot::Snapshot;

/// Changes are said no more often than this.
const SHORTEST: Duration = Duration::from_secs(5);
/// A GPU that uses more is at work.
const ACTIVE_MEMORY: u64 = 1_000_000_000;
/// A GPU that is busier is at work, in percent.
const ACTIVE_UTILIZATION: u32 = 10;

/// Remembers what was said last.
#[derive(Clone, Debug)]
pub struct MonitorLine {
    interval: Duration,
    said: Option<(Duration, Monitor)>,
    statistics: Option<Duration>,
}

impl MonitorLine {
    /// With the interval of the settings.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self { interval: settings.monitor_interval.0, said: None, statistics: None }
    }

    /// Takes in a look, and how many tasks were completed lately.
    pub fn look(&mut self, at: At, monitor: Monitor, lately: u64, out: &mut Vec<Command>) {
        let statistics = Statistics::new(&monitor, lately);
        let due = match &self.said {
            None => true,
            Some((when, last)) => {
                let passed = at.now.saturating_sub(*when);
                passed >= self.interval || *last != monitor && passed >= SHORTEST
            }
        };
        if due {
            self.said = Some((at.now, monitor.clone()));
            say(out, Event::MonitorLine { monitor, statistics: statistics.clone() });
        }
        if self.statistics.is_none_or(|told| at.now.saturating_sub(told) >= self.interval) {
            self.statistics = Some(at.now);
            say(out, Event::QueueStatistics { statistics });
        }
    }
}

/// What the line says of this look. `wanted` are the workers that should be there.
pub(crate) fn figures(seen: &Snapshot, wanted: &[Name], stuck: u64) -> Monitor {
    let alive = seen.alive_names();
    let all: BTreeSet<&Name> = wanted.iter().chain(&alive).collect();
    let (gpus_active, gpus) = gpus(seen);
    let models = models(seen);
    Monitor {
        gpus_active,
        gpus,
        workers_alive: alive.len() as u64,
        workers: all.len() as u64,
        queue: seen.counts.as_ref().map(|counts| counts.by_class()),
        processing: seen.counts.as_ref().map(|counts| counts.processing),
        stuck,
        models: Some(models as u64),
    }
}

/// Models that answer. What several workers say of one server counts once.
fn models(seen: &Snapshot) -> usize {
    let heartbeats = seen.alive().filter_map(|(_name, worker)| worker.own_heartbeat());
    let mut servers = BTreeMap::new();
    for heartbeat in heartbeats {
        if let Some(server) = &heartbeat.ability.server {
            let place = (heartbeat.process.host.as_str(), server.address.as_str());
            let loaded = servers.entry(place).or_insert(0);
            *loaded = server.loaded().count().max(*loaded);
        }
    }
    servers.values().sum()
}

/// GPUs at work, and GPUs there are. Where nobody can read them: those whose worker runs something
/// on them, and those that were named.
fn gpus(seen: &Snapshot) -> (Option<u64>, Option<u64>) {
    let named = &seen.named_gpus;
    let Some(readings) = &seen.gpus else {
        let uses_gpu = |class: Class| class != Class::Cpu;
        let busy = seen.alive().filter(|(_name, worker)| {
            let current = worker.own_heartbeat().map(|heartbeat| heartbeat.current.iter());
            worker.gpu().is_some()
                && current.is_some_and(|mut all| all.any(|run| uses_gpu(run.class)))
        });
        let held: BTreeSet<u32> = seen.alive().filter_map(|(_name, worker)| worker.gpu()).collect();
        let there: BTreeSet<u32> = held.into_iter().chain(named.iter().copied()).collect();
        return (Some(busy.count() as u64), Some(there.len() as u64));
    };
    let ours = |gpu: &&GpuReading| named.is_empty() || named.contains(&gpu.index);
    let active: Option<Vec<bool>> = readings.iter().filter(ours).map(is_active).collect();
    let active = active.map(|all| all.into_iter().filter(|active| *active).count() as u64);
    // One that was named and is not there is missing, not unknown.
    let missing = |index: &&u32| !readings.iter().any(|gpu| gpu.index == **index);
    let missing = named.iter().filter(missing).count();
    (active, Some((readings.iter().filter(ours).count() + missing) as u64))
}

/// `None` where that cannot be told: unknown is not idle.
fn is_active(gpu: &GpuReading) -> Option<bool> {
    use Reading::{Failed, Known, Unsupported};
    let memory = gpu.memory_used.map(|used| used > ACTIVE_MEMORY);
    let busy = gpu.utilization.map(|percent| percent > ACTIVE_UTILIZATION);
    match (memory, busy) {
        (Known(true), _) | (_, Known(true)) => Some(true),
        // A question that this GPU never answers decides nothing.
        (Known(false), Known(false) | Unsupported) | (Unsupported, Known(false)) => Some(false),
        (Failed | Unsupported, _) | (_, Failed) => None,
    }
}
