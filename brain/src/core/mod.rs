//! What follows from what was seen: one pure function. No disk, no clock, no threads: every event
//! carries its time, everything to be done comes back as a command. So each decision is tested
//! with tables and can be asked "what if".

pub mod detect;
pub mod fleet;
pub mod place;
pub mod report;
pub mod words;

use std::time::Duration;

use queue::wire::brain_state::Warning;
use shared::settings::Settings;

use detect::activity::Activity;
use fleet::Fleet;
use fleet::deaths::Deaths;
use words::at::At;
use words::command::Command;
use words::event::Event;
use words::findings::Findings;
use words::snapshot::Snapshot;

/// All that the brain knows between two events.
#[derive(Debug)]
pub struct Core {
    /// Time during which somebody was looking: a brain (or a whole machine) that was stopped for
    /// an hour has not seen a worker hang for an hour.
    attended: Duration,
    last: Option<Duration>,
    fleet: Fleet,
    activity: Activity,
    hung: detect::hung::HungWorkers,
    stuck: detect::stuck::StuckTasks,
    unclaimed: detect::unclaimed::UnclaimedTasks,
    imbalance: detect::imbalance::Imbalances,
    count_jump: detect::count_jump::CountJump,
    scale: fleet::scale::Scale,
    disk: detect::disk::DiskSpace,
    unlisted: detect::unlisted::UnlistedDirectories,
    gpus: detect::gpus::MissingGpus,
    monitor: report::monitor::MonitorLine,
    placer: place::Placer,
    settling: Deaths,
    view: Findings,
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
            hung: detect::hung::HungWorkers::new(settings),
            stuck: detect::stuck::StuckTasks::new(settings),
            unclaimed: detect::unclaimed::UnclaimedTasks::new(settings),
            imbalance: detect::imbalance::Imbalances::new(settings),
            count_jump: detect::count_jump::CountJump::default(),
            disk: detect::disk::DiskSpace::new(settings),
            unlisted: detect::unlisted::UnlistedDirectories::default(),
            gpus: detect::gpus::MissingGpus::default(),
            monitor: report::monitor::MonitorLine::new(settings),
            placer: place::Placer::new(settings),
            settling: Deaths::default(),
            view: Findings::default(),
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
            Event::Exited(end) => self.fleet.exited(at, &end, &mut out),
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
    pub fn view(&self) -> &Findings {
        &self.view
    }

    /// Each look is on its own, in the order of the design: what it needs of others is computed
    /// before.
    fn observed(&mut self, at: At, seen: &Snapshot, out: &mut Vec<Command>) {
        self.activity.look(at, seen);
        self.disk.look(at, seen, out);
        self.unlisted.look(at, seen, out);
        self.gpus.look(at, seen, out);
        self.hung.look(at, seen, out);
        let hung = self.hung.names();
        self.stuck.look(at, seen, &hung, out);
        let idle = detect::activity::Idlers { activity: &self.activity, hung: &hung };
        self.unclaimed.look(at, seen, idle, out);
        self.imbalance.look(at, seen, idle, out);
        self.count_jump.look(seen, out);
        self.placer.look(at, seen, &hung, out);
        let decision = self.scale.decide(at, seen, &mut self.fleet, &self.activity);
        out.extend(decision);
        let measured = self.placer.measured().clone();
        self.view = Findings { stuck: self.stuck.view(), warnings: self.warnings(), measured };
        let stuck = self.view.stuck.len() as u64;
        let figures = report::monitor::figures(seen, &self.fleet.names(), stuck);
        self.monitor.look(at, figures, seen.completed_lately, out);
    }

    fn warnings(&self) -> Vec<Warning> {
        let mut all = self.disk.warnings();
        all.extend(self.unlisted.warnings());
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

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) mod fixture;
