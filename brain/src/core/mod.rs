//! What follows from what was seen: one pure function. No disk, no clock, no threads: every event
//! carries its time, everything to be done comes back as a command. So each decision is tested
//! with tables and can be asked "what if".

pub mod detect;
pub mod fleet;
pub mod place;
pub mod report;
pub mod words;

use std::time::Duration;

use queue::wire::brain_state::{Stuck, Warning};
use queue::wire::model_stats::Measured;
use shared::event;
use shared::name::Name;
use shared::settings::Settings;
use shared::task::TaskName;
use shared::time::Moment;

use detect::activity::Activity;
use fleet::deaths::Settling;
use fleet::scale::Decision;
use fleet::{Fleet, Place};
use words::snapshot::Snapshot;

/// When something was seen: twice, because neither clock does for both purposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// On the brain's monotonic clock, from any fixed point. Ages are counted on this.
    pub now: Duration,
    /// On the wall. For people.
    pub wall: Moment,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// The pool was looked at.
    Observed(Box<Snapshot>),
    /// A worker died with things to settle; somebody settles them now.
    Died(fleet::deaths::Death),
    /// A worker's affairs were settled, or as much of them as could be.
    Settled(fleet::deaths::Settlement),
    /// A worker that was asked for runs.
    Spawned {
        /// Which.
        worker: Name,
        /// Its process.
        pid: u32,
    },
    /// A worker that an earlier brain had started is ours now.
    Adopted {
        /// Which.
        worker: Name,
    },
    /// A worker that was asked for could not be started.
    SpawnFailed {
        /// Which.
        worker: Name,
        /// Why not.
        error: String,
    },
    /// A worker that we had started ended.
    Exited {
        /// Which.
        worker: Name,
        /// Its process.
        pid: u32,
        /// How.
        exit: fleet::Exit,
    },
    /// What the last brain had measured.
    Remembered(Box<Measured>),
    /// A signal asks the brain to end. The second one asks to hurry.
    Shutdown {
        /// Which signal.
        signal: String,
    },
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Say it.
    Say(event::Event),
    /// Start this worker, and report back.
    Spawn(Place),
    /// Ask a worker to end a task's job because it makes no progress.
    Stall {
        /// Which worker.
        worker: Name,
        /// Which attempt.
        name: TaskName,
        /// For how long it has made none.
        seconds: f64,
    },
    /// Ask a worker to finish what it does, take nothing new, and exit.
    Drain(Name),
    /// Take that back: the worker is gone.
    Undrain(Name),
    /// Write a decision down.
    Record(Decision),
    /// Write down a decision about a model.
    RecordPlacement(place::Decision),
    /// Ask a worker to load or unload a model.
    Request(place::Request),
    /// Take back such a request that nobody has taken.
    Withdraw(TaskName),
    /// Tell a worker that we started to end.
    Terminate(Name),
    /// End a worker that we started.
    Kill(Name),
    /// All is done: end.
    Finish,
}

/// What the brain thinks, as others may read it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Tasks without progress.
    pub stuck: Vec<Stuck>,
    /// What somebody should know.
    pub warnings: Vec<Warning>,
    /// What was measured about models.
    pub measured: Measured,
}

/// All that the brain knows between two events.
#[derive(Debug)]
pub struct Core {
    /// Time during which somebody was looking: a brain (or a whole machine) that was stopped for
    /// an hour has not seen a worker hang for an hour.
    attended: Duration,
    last: Option<Duration>,
    fleet: Fleet,
    activity: Activity,
    hung: detect::hung::Watch,
    stuck: detect::stuck::Watch,
    unclaimed: detect::unclaimed::Watch,
    imbalance: detect::imbalance::Watch,
    jump: detect::count_jump::Watch,
    scale: fleet::scale::Scale,
    disk: detect::disk::Watch,
    gpus: detect::gpus::Watch,
    monitor: report::monitor::Watch,
    placer: place::Placer,
    settling: Settling,
    view: View,
}

/// A gap between two looks longer than this is time in which nobody looked.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

impl Core {
    /// A brain that has seen nothing yet.
    #[must_use]
    pub fn new(settings: &Settings, fleet: Fleet) -> Self {
        Self {
            attended: Duration::ZERO,
            last: None,
            scale: fleet::scale::Scale::new(settings, &fleet),
            fleet,
            activity: Activity::default(),
            hung: detect::hung::Watch::new(settings),
            stuck: detect::stuck::Watch::new(settings),
            unclaimed: detect::unclaimed::Watch::new(settings),
            imbalance: detect::imbalance::Watch::new(settings),
            jump: detect::count_jump::Watch::default(),
            disk: detect::disk::Watch::new(settings),
            gpus: detect::gpus::Watch::default(),
            monitor: report::monitor::Watch::new(settings),
            placer: place::Placer::new(settings),
            settling: Settling::default(),
            view: View::default(),
        }
    }

    /// What follows from an event that happened at `at`.
    pub fn on(&mut self, at: At, event: Event) -> Vec<Command> {
        let passed = self.last.map_or(Duration::ZERO, |last| at.now.saturating_sub(last));
        self.last = Some(at.now);
        self.attended += passed.min(LONGEST_LOOK);
        let at = At { now: self.attended, wall: at.wall };
        let mut out = Vec::new();
        match event {
            Event::Observed(snapshot) => self.observed(at, &snapshot, &mut out),
            Event::Died(death) => self.settling.died(&death, &mut out),
            Event::Settled(settlement) => self.settling.settled(at, &settlement, &mut out),
            Event::Spawned { worker, pid } => self.fleet.spawned(at, &worker, pid, &mut out),
            Event::Adopted { worker } => self.fleet.adopted(at, &worker),
            Event::SpawnFailed { worker, error } => {
                self.fleet.spawn_failed(at, &worker, error, &mut out);
            }
            Event::Exited { worker, pid, exit } => {
                self.fleet.exited(at, (&worker, pid), exit, &mut out);
            }
            Event::Remembered(measured) => self.placer.remember(*measured),
            Event::Shutdown { signal } => self.fleet.shut_down(at, &signal, &mut out),
        }
        out
    }

    /// Whether the brain is about to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.fleet.is_stopping()
    }

    /// What it thinks since it last looked.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Each look is on its own, in the order of the design: what it needs of others is computed
    /// before.
    fn observed(&mut self, at: At, seen: &Snapshot, out: &mut Vec<Command>) {
        self.activity.look(at, seen);
        self.disk.look(at, seen, out);
        self.gpus.look(at, seen, out);
        self.hung.look(at, seen, out);
        let hung = self.hung.names();
        self.stuck.look(at, seen, &hung, out);
        let idle = detect::activity::Idlers { activity: &self.activity, hung: &hung };
        self.unclaimed.look(at, seen, idle, out);
        self.imbalance.look(at, seen, idle, out);
        self.jump.look(seen, out);
        self.placer.look(at, seen, &hung, out);
        let decision = self.scale.decide(at, seen, &mut self.fleet, &self.activity);
        out.extend(decision);
        let measured = self.placer.measured().clone();
        self.view = View { stuck: self.stuck.view(), warnings: self.warnings(), measured };
        let stuck = self.view.stuck.len() as u64;
        self.monitor.look(at, seen, (self.fleet.names(), stuck), out);
    }

    fn warnings(&self) -> Vec<Warning> {
        let mut all = self.disk.warnings();
        all.extend(self.gpus.warnings());
        all.extend(self.hung.warnings());
        all.extend(self.settling.warnings());
        all.extend(self.unclaimed.warnings());
        all.extend(self.imbalance.warnings());
        all.extend(self.placer.warnings());
        all.extend(self.fleet.warnings());
        all
    }
}

/// Puts an event among the commands.
pub(crate) fn say(out: &mut Vec<Command>, event: event::Event) {
    out.push(Command::Say(event));
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) mod fixture;
