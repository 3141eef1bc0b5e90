//! The workers that the brain starts: one place per GPU (and perhaps one without), and for each
//! place what stands there, why nothing does, and when it is tried again.

pub mod deaths;
pub mod scale;
mod slot;

use std::collections::BTreeSet;
use std::time::Duration;

use queue::wire::brain_state::Warning;
use shared::event::Event;
use shared::name::Name;
use shared::settings::Settings;

use super::detect::activity::Activity;
use super::words::at::At;
use super::words::command::{Command, say};
use super::words::snapshot::{Life, Snapshot};
use super::words::worker_spec::{WorkerEnd, WorkerKind, WorkerSpec};
use slot::{Rules, Slot, State, Unasked};

/// What was done to come nearer to the number of workers wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adjusted {
    /// Workers that are started with this, the first places first.
    pub up: Vec<Name>,
    /// Workers that are asked to drain with this, the last places first.
    pub down: Vec<Name>,
    /// Places where a worker is wanted, and starting it keeps failing.
    pub blocked: u64,
}

/// How many workers there should be, and which of those there are do nothing.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Workers that there should be, as the goal of this cycle says.
    pub desired: u64,
    /// Since when each worker has done nothing.
    pub activity: &'a Activity,
}

/// Workers that are too many, and what says which those are.
struct Surplus<'a> {
    of: u64,
    seen: &'a Snapshot,
    activity: &'a Activity,
}

/// How many workers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetCounts {
    /// At work or ready.
    pub active: u64,
    /// Started, and not yet up.
    pub spawning: u64,
}

/// A worker without work is retired after this, where fewer are wanted.
const RETIRE_AFTER: Duration = Duration::from_secs(60);
/// What KILL needs at most until it shows.
const SLACK: Duration = Duration::from_secs(5);

/// The places where this brain starts workers, and what stands at each.
#[derive(Clone, Debug)]
pub struct Fleet {
    slots: Vec<Slot>,
    rules: Rules,
    mode: Mode,
    /// Workers that are asked to drain, as last seen.
    drains: BTreeSet<Name>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Working,
    Stopping { until: Duration, killed: Killed },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    NotYet,
    Yes,
}

impl Fleet {
    /// No places: workers are started by hand.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Vec::new(), &Settings::default())
    }

    /// With these places, all vacant, and the rules for restarts that the settings give.
    #[must_use]
    pub fn new(places: Vec<WorkerSpec>, settings: &Settings) -> Self {
        let rules = Rules {
            backoff_first: settings.restart_backoff_first.0,
            backoff_max: settings.restart_backoff_max.0,
            breaker_failures: settings.breaker_failures.max(1) as usize,
            breaker_window: settings.breaker_window.0,
            patience: settings.shutdown_grace.0 + settings.grace_period.0 + SLACK,
        };
        let slots = places.into_iter().map(Slot::new).collect();
        Self { slots, rules, mode: Mode::Working, drains: BTreeSet::new() }
    }

    /// How many places there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no place.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The workers that can stand here.
    #[must_use]
    pub fn places(&self) -> Vec<Name> {
        self.slots.iter().map(|slot| slot.place.worker.clone()).collect()
    }

    /// Whether one of the places has a GPU.
    #[must_use]
    pub fn has_gpus(&self) -> bool {
        self.slots.iter().any(|slot| slot.place.kind != WorkerKind::Cpu)
    }

    /// Whether a worker of this name can stand here.
    #[must_use]
    pub fn knows(&self, worker: &Name) -> bool {
        self.slots.iter().any(|slot| slot.place.worker == *worker)
    }

    /// Workers that we started, or that failed to stay.
    #[must_use]
    pub fn names(&self) -> Vec<Name> {
        let wanted = self.slots.iter().filter(|slot| match slot.state {
            State::Asked | State::Running { .. } | State::BackOff { .. } | State::Broken { .. } => {
                true
            }
            State::Vacant | State::Retiring { .. } | State::Drained => false,
        });
        wanted.map(|slot| slot.place.worker.clone()).collect()
    }

    /// How many workers stand at the places.
    #[must_use]
    pub fn count(&self, seen: &Snapshot) -> FleetCounts {
        let mut counts = FleetCounts::default();
        for slot in &self.slots {
            if slot.stands(seen, Life::Alive) {
                counts.active += 1;
            } else if slot.is_ours() {
                counts.spawning += 1;
            }
        }
        counts
    }

    /// Comes nearer to the number of workers wanted.
    pub fn adjust(
        &mut self,
        at: At,
        seen: &Snapshot,
        wanted: Wanted<'_>,
        out: &mut Vec<Command>,
    ) -> Adjusted {
        let Wanted { desired, activity } = wanted;
        self.drains = seen.drains.keys().cloned().collect();
        self.wake(at, out);
        match self.mode {
            Mode::Working => {}
            Mode::Stopping { until, killed } => {
                self.stop(at, until, killed, out);
                return Adjusted::default();
            }
        }
        let mut adjusted = Adjusted::default();
        // Who takes nothing because its GPU is out of use is as good as not there: it waits for its
        // GPU, and another one is wanted in its place.
        let stands =
            |slot: &&Slot| (slot.is_ours() || slot.is_taken(seen)) && !slot.is_quarantined(seen);
        let mut current = self.slots.iter().filter(stands).count() as u64;
        self.start(seen, desired, &mut current, &mut adjusted);
        let of = adjusted.up.len() as u64;
        for (number, worker) in (1..).zip(&adjusted.up) {
            let slot = self.slot(worker).expect("it was one of the slots just now");
            slot.batch = (number, of);
            out.push(Command::Spawn(slot.place.clone()));
        }
        let surplus = current.saturating_sub(desired);
        self.retire(at, Surplus { of: surplus, seen, activity }, &mut adjusted);
        out.extend(adjusted.down.iter().cloned().map(Command::Drain));
        adjusted
    }

    fn start(&mut self, seen: &Snapshot, desired: u64, current: &mut u64, adjusted: &mut Adjusted) {
        for slot in &mut self.slots {
            if *current >= desired {
                break;
            }
            match slot.state {
                State::Vacant => {}
                State::BackOff { .. } | State::Broken { .. } => {
                    adjusted.blocked += u64::from(!slot.is_taken(seen));
                    continue;
                }
                State::Asked | State::Running { .. } | State::Retiring { .. } | State::Drained => {
                    continue;
                }
            }
            // Nobody follows a predecessor whose affairs are open.
            let open = slot.stands(seen, Life::Unsettled);
            if open || slot.is_taken(seen) || self.drains.contains(&slot.place.worker) {
                continue;
            }
            slot.state = State::Asked;
            adjusted.up.push(slot.place.worker.clone());
            *current += 1;
        }
    }

    /// The last places first, until there is no surplus.
    fn retire(&mut self, at: At, surplus: Surplus<'_>, adjusted: &mut Adjusted) {
        let Surplus { of: mut surplus, seen, activity } = surplus;
        let leaving =
            self.slots.iter().filter(|slot| matches!(slot.state, State::Retiring { .. })).count();
        surplus = surplus.saturating_sub(leaving as u64);
        for slot in self.slots.iter_mut().rev() {
            let State::Running { since } = slot.state else { continue };
            let Some(idle) = activity.idle_for(at, &slot.place.worker) else { continue };
            if surplus == 0 || idle < RETIRE_AFTER || slot.is_quarantined(seen) {
                continue;
            }
            slot.state = State::Retiring { since, idle };
            adjusted.down.push(slot.place.worker.clone());
            surplus -= 1;
        }
    }

    /// Ends pauses that are over.
    fn wake(&mut self, at: At, out: &mut Vec<Command>) {
        for slot in &mut self.slots {
            match slot.state {
                State::BackOff { until } if at.now >= until => slot.state = State::Vacant,
                State::Broken { until, .. } if at.now >= until => {
                    slot.state = State::Vacant;
                    slot.failures.clear();
                    slot.in_row = 0;
                    say(out, Event::BreakerClosed { worker: slot.place.worker.clone() });
                }
                State::Drained if !self.drains.contains(&slot.place.worker) => {
                    slot.state = State::Vacant;
                }
                State::Vacant
                | State::Asked
                | State::Running { .. }
                | State::Retiring { .. }
                | State::BackOff { .. }
                | State::Broken { .. }
                | State::Drained => {}
            }
        }
    }

    fn slot(&mut self, worker: &Name) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.place.worker == *worker)
    }

    /// A worker that was asked for runs.
    pub fn spawned(&mut self, at: At, worker: &Name, pid: u32, out: &mut Vec<Command>) {
        let stopping = self.mode != Mode::Working;
        let Some(slot) = self.slot(worker) else { return };
        slot.state = State::Running { since: at.now };
        let (number, of) = slot.batch;
        say(out, Event::WorkerSpawned { worker: worker.clone(), pid, number, of });
        if stopping {
            out.push(Command::Terminate(worker.clone()));
        }
    }

    /// A worker that an earlier brain had started is ours now.
    pub fn adopted(&mut self, at: At, worker: &Name) {
        if let Some(slot) = self.slot(worker) {
            slot.state = State::Running { since: at.now };
        }
    }

    /// Whether the brain is about to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.mode != Mode::Working
    }

    /// A worker that was asked for could not be started.
    pub fn spawn_failed(&mut self, at: At, worker: &Name, error: String, out: &mut Vec<Command>) {
        say(out, Event::WorkerSpawnFailed { worker: worker.clone(), error });
        let rules = self.rules;
        if let Some(slot) = self.slot(worker) {
            slot.failed(at, rules, out);
        }
    }

    /// A worker that we had started ended.
    pub fn exited(&mut self, at: At, end: &WorkerEnd, out: &mut Vec<Command>) {
        let (rules, mode) = (self.rules, self.mode);
        let drained = self.drains.contains(&end.worker);
        let Some(slot) = self.slot(&end.worker) else { return };
        let since = match slot.state {
            State::Retiring { since, idle } => {
                let (worker, idle_seconds) = (end.worker.clone(), idle.as_secs_f64());
                say(out, Event::WorkerRetired { worker: worker.clone(), idle_seconds });
                out.push(Command::Undrain(worker));
                slot.state = State::Vacant;
                since
            }
            State::Running { since } => since,
            State::Vacant
            | State::Asked
            | State::BackOff { .. }
            | State::Broken { .. }
            | State::Drained => at.now,
        };
        let lived = at.now.saturating_sub(since);
        if mode != Mode::Working {
            slot.state = State::Vacant;
            if self.slots.iter().all(|slot| !slot.has_process()) {
                out.push(Command::Finish);
            }
        } else if slot.state != State::Vacant {
            let (pid, exit) = (end.pid, end.exit);
            slot.ended(at, rules, Unasked { pid, lived, exit, drained }, out);
        }
    }

    /// A signal asks the brain to end.
    pub fn shut_down(&mut self, at: At, signal: &str, out: &mut Vec<Command>) {
        let running: Vec<Name> = self
            .slots
            .iter()
            .filter(|slot| slot.has_process())
            .map(|slot| slot.place.worker.clone())
            .collect();
        match self.mode {
            Mode::Working => {
                let (reason, workers) = (signal.to_owned(), running.len() as u64);
                say(out, Event::BrainStopping { reason, workers });
                let until = at.now + self.rules.patience;
                self.mode = Mode::Stopping { until, killed: Killed::NotYet };
                if running.is_empty() {
                    out.push(Command::Finish);
                }
                out.extend(running.into_iter().map(Command::Terminate));
            }
            Mode::Stopping { .. } => {
                out.extend(running.into_iter().map(Command::Kill));
                out.push(Command::Finish);
            }
        }
    }

    fn stop(&mut self, at: At, until: Duration, killed: Killed, out: &mut Vec<Command>) {
        if at.now >= until && killed == Killed::NotYet {
            self.mode = Mode::Stopping { until, killed: Killed::Yes };
            let running = self.slots.iter().filter(|slot| slot.has_process());
            out.extend(running.map(|slot| Command::Kill(slot.place.worker.clone())));
        }
    }

    /// What somebody should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let broken = self.slots.iter().filter_map(|slot| match slot.state {
            State::Broken { since, .. } => Some(Warning {
                code: "spawn.breaker_open".into(),
                text: format!("worker {} failed too often to be restarted", slot.place.worker),
                since,
            }),
            State::Vacant
            | State::Asked
            | State::Running { .. }
            | State::Retiring { .. }
            | State::BackOff { .. }
            | State::Drained => None,
        });
        broken.collect()
    }
}
