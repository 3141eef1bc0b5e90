//! What this worker knows about itself: one place, read by the heartbeat and by eligibility.

pub mod back_off;
pub mod backlog;
pub mod progress;
pub mod retries;
pub mod starvation;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use queue::dir::claim::one::Claim;
use queue::eligible::Candidate;
use queue::wire::heartbeat::{Ability, BacksOff, ClaimReport, Run, StandingOrder, Starved, Status};
use queue::wire::lane::Requirements;
use shared::gpu::GpuReading;
use shared::log_cap::LogCap;
use shared::name::Name;
use shared::task::{Class, TaskName};
use shared::time::Moment;

use crate::job::Stop;
use back_off::{BackOffs, FailedHere};
use backlog::{Backlog, Phase};
use progress::Progress;
use retries::Retries;
use starvation::Starvation;

/// The facts, shared by the threads. Every change wakes the heartbeat.
#[derive(Debug)]
pub struct WorkerState {
    name: Name,
    state: Mutex<Facts>,
    recorded: Recorded,
    changed: Sender<()>,
    changes: Receiver<()>,
}

/// Tells threads with a free slot that they may go on.
#[derive(Debug, Default)]
struct Recorded {
    told: Condvar,
    /// So many wait: mostly nobody, and to tell nobody is a system call, too.
    waiting: AtomicUsize,
}

/// What the worker knows about itself.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What it can do, and what stands in its way.
    pub ability: Ability,
    /// What is claimed, also what has ended and is being recorded.
    pub jobs: Vec<Job>,
    /// How its last look for work went.
    pub claim: ClaimReport,
    /// Attempts that succeeded and are recorded, in this life of the worker.
    pub completed: u64,
    /// Attempts that failed and are recorded, whether or not they are tried again.
    pub failed: u64,
    /// Tasks that another worker claimed when this one tried to.
    pub lost_races: u64,
    /// Since when nothing runs.
    pub idle_since: Option<Moment>,
    /// The lease is not what it was: nothing may be claimed any more.
    pub lease_lost: bool,
    /// It finishes or returns what runs, and ends.
    pub stopping: bool,
    /// Whether jobs can be started; others see it in `ability`.
    pub starvation: Starvation,
    /// When it has ended, a new life begins in the same process.
    pub begins_anew: bool,
    /// What was last read of its GPU; about a second old.
    pub gpu_reading: Option<Arc<GpuReading>>,
    /// What goes wrong here and not elsewhere; others see it in `ability`.
    pub back_offs: BackOffs,
    /// What failed here and is tried again.
    pub retries: Retries,
}

/// A running job, from claim to ledger line.
#[derive(Clone, Debug)]
pub struct Job {
    /// Task and attempt, by the file's name.
    pub name: TaskName,
    /// How far it is.
    pub phase: Phase,
    /// What others see of it.
    pub run: Run,
    /// How it is told to end.
    pub stop: Stop,
    /// Whether it does something.
    pub progress: Progress,
    /// How much of its log is kept, where its task says so itself.
    pub log_cap: Option<LogCap>,
    /// What a person said of a job that has ended and that something may be left of.
    pub way_out: Option<WayOut>,
}

/// How an attempt ends though something of its job may still run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayOut {
    /// On the word of this person, who says that nothing of it does.
    Abandoned {
        /// As `user@host`.
        by: String,
    },
    /// There will be no other attempt.
    Cancelled,
}

impl WorkerState {
    /// Of a worker that has done nothing yet.
    #[must_use]
    pub fn new(name: Name, ability: Ability) -> Self {
        let (changed, changes) = bounded(1);
        let state = Facts {
            ability,
            jobs: Vec::new(),
            claim: ClaimReport::default(),
            completed: 0,
            failed: 0,
            lost_races: 0,
            idle_since: Some(Moment::now()),
            lease_lost: false,
            stopping: false,
            starvation: Starvation::default(),
            begins_anew: false,
            gpu_reading: None,
            back_offs: BackOffs::default(),
            retries: Retries::default(),
        };
        let recorded = Recorded::default();
        Self { name, state: Mutex::new(state), recorded, changed, changes }
    }

    /// Whose it is.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        // Every change is a plain assignment: a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks, without changing anything.
    pub fn look<T>(&self, look: impl FnOnce(&Facts) -> T) -> T {
        look(&self.lock())
    }

    /// Changes something that others should see soon.
    pub fn change<T>(&self, change: impl FnOnce(&mut Facts) -> T) -> T {
        let result = self.note(change);
        // Full means that the heartbeat will look anyway.
        let _ = self.changed.try_send(());
        result
    }

    /// Changes something that can wait for the next heartbeat.
    pub fn note<T>(&self, change: impl FnOnce(&mut Facts) -> T) -> T {
        let result = change(&mut self.lock());
        if self.recorded.waiting.load(Ordering::Relaxed) > 0 {
            self.recorded.told.notify_all();
        }
        result
    }

    /// Waits until ends are recorded as fast as jobs end, or until that will not come soon.
    pub fn wait_to_keep_up(&self) {
        let mut state = self.lock();
        // Counted under the lock: who changes anything later sees it.
        self.recorded.waiting.fetch_add(1, Ordering::Relaxed);
        while state.is_behind() {
            state = self.recorded.told.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.recorded.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Receives a message after changes.
    #[must_use]
    pub fn changes(&self) -> &Receiver<()> {
        &self.changes
    }

    /// Takes note of a claimed task.
    pub fn take(&self, claim: &Claim, stop: &Stop) {
        let (name, task) = (claim.name(), claim.task());
        let run = Run {
            task_id: name.id,
            attempt: name.attempt,
            class: task.class(),
            name: task.name(),
            gpu_memory: task.spec.gpu_memory,
            started_at: None,
            pgid: None,
            last_output_age_seconds: None,
            quiet_seconds: None,
            evidence: serde_json::Map::new(),
            peak_vram_bytes: None,
            kept: None,
            log: None,
        };
        let (stop, progress) = (stop.clone(), Progress::new(Instant::now()));
        let log_cap = task.spec.log_cap;
        self.change(|state| {
            state.jobs.push(Job {
                name,
                phase: Phase::Running,
                run,
                stop,
                progress,
                log_cap,
                way_out: None,
            });
            state.idle_since = None;
        });
    }

    /// Changes what is seen of one job, if it is still there.
    pub fn update(&self, name: TaskName, change: impl FnOnce(&mut Job)) {
        self.change(|state| state.jobs.iter_mut().find(|job| job.name == name).map(change));
    }

    /// Says how far a job is.
    pub fn enter(&self, name: TaskName, phase: Phase) {
        self.change(|state| state.enter(name, phase));
    }

    /// Clears a job away.
    pub fn clear(&self, name: TaskName) -> Option<Job> {
        self.change(|state| state.clear(name))
    }
}

impl Facts {
    /// Says how far a job is, if it is still there.
    pub fn enter(&mut self, name: TaskName, phase: Phase) {
        if let Some(job) = self.jobs.iter_mut().find(|job| job.name == name) {
            job.phase = phase;
        }
    }

    /// Takes a job away, and says which that was.
    pub fn clear(&mut self, name: TaskName) -> Option<Job> {
        let index = self.jobs.iter().position(|job| job.name == name)?;
        let job = self.jobs.remove(index);
        if self.jobs.is_empty() {
            self.idle_since = Some(Moment::now());
        }
        Some(job)
    }

    /// Something that starting a job takes could not be had. How long nothing is claimed now, where
    /// that is new.
    pub fn starve(&mut self, error: String) -> Option<Duration> {
        let pause = self.starvation.begin(Instant::now())?;
        self.ability.starved = Some(Starved { error, since: Moment::now() });
        Some(pause)
    }

    /// An attempt failed at once. How long such tasks are left to others now, where that begins.
    pub fn failed_here(&mut self, failed: FailedHere, error: &str) -> Option<Duration> {
        let needs = failed.needs.clone();
        let pause = self.back_offs.failed(failed, Instant::now())?;
        self.ability.backs_off.retain(|one| one.needs != needs);
        let (error, since) = (error.to_owned(), Moment::now());
        self.ability.backs_off.push(BacksOff { needs, error, since });
        Some(pause)
    }

    /// One that needs this went well. Whether such tasks were left to others before.
    pub fn went_well(&mut self, needs: &Requirements) -> bool {
        self.ability.backs_off.retain(|one| one.needs != *needs);
        self.back_offs.went_well(needs)
    }

    /// One that needs this is taken: it may be the one that is tried.
    pub fn take_like(&mut self, needs: &Requirements) {
        self.back_offs.taken(needs, Instant::now());
        if self.back_offs.shut(Instant::now()).contains(needs) {
            let error = "one is tried".to_owned();
            let tried = BacksOff { needs: needs.clone(), error, since: Moment::now() };
            self.ability.backs_off.push(tried);
        }
    }

    /// Forgets pauses that are over, which others still see; whether there were any.
    pub fn end_back_offs(&mut self) -> bool {
        let shut = self.back_offs.shut(Instant::now());
        let before = self.ability.backs_off.len();
        self.ability.backs_off.retain(|one| shut.contains(&one.needs));
        self.ability.backs_off.len() < before
    }

    /// Whether a pause for want of what jobs take is over, which others still see.
    #[must_use]
    pub fn may_try_again(&self) -> bool {
        self.ability.starved.is_some() && self.starvation.left(Instant::now()).is_none()
    }

    /// Whether anything new may be claimed, as far as the worker itself goes.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.stopping
            && !self.lease_lost
            && self.ability.draining.is_none()
            && self.ability.paused.is_none()
            && self.ability.starved.is_none()
            && self.ability.gpu_state.is_fit()
    }

    /// Jobs that have a slot.
    pub fn running(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(|job| matches!(job.phase, Phase::Running | Phase::Stuck))
    }

    /// What has ended and is not carried out yet.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let slots = self.ability.gpu_slots + self.ability.cpu_slots;
        Backlog::of(slots as usize, self.jobs.iter().map(|job| job.phase))
    }

    /// Whether ends are not recorded as fast as jobs end, and will be soon.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let backlog = self.backlog();
        !backlog.keeps_up() && !backlog.is_stuck() && !self.stopping
    }

    /// Whether the main thread may wait for what was just cleared away.
    #[must_use]
    pub fn may_be_waited_for(&self) -> bool {
        self.jobs.is_empty() || self.stopping || self.ability.draining.is_some()
    }

    /// What it does, in one word.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.stopping || self.ability.draining.is_some() {
            Status::Draining
        } else if self.jobs.iter().any(|job| job.run.class == Class::Resource) {
            Status::Loading
        } else if !self.jobs.is_empty() {
            Status::Processing
        } else if self.ability.paused.is_some() {
            Status::Paused
        } else {
            Status::Idle
        }
    }

    /// What eligibility needs, with the runs handed to `judge`.
    pub fn candidate<T>(&self, name: &Name, judge: impl FnOnce(Candidate<'_>) -> T) -> T {
        let current: Vec<Run> = self.running().map(|job| job.run.clone()).collect();
        judge(Candidate { name, ability: &self.ability, current: &current })
    }

    /// How long nothing has run.
    #[must_use]
    pub fn idle(&self, now: Moment) -> Option<Duration> {
        self.idle_since.map(|since| Duration::from_secs_f64(now.seconds_since(since)))
    }

    /// Puts or takes away a standing condition; says whether that changed anything.
    pub fn set_standing(slot: &mut Option<StandingOrder>, now: Option<StandingOrder>) -> bool {
        let changed = slot.is_some() != now.is_some();
        if changed {
            *slot = now;
        }
        changed
    }
}
