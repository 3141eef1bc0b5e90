//! Heartbeats, from a thread of their own, so that a long task never silences them: at every
//! change (at most ten a second) and at a fixed pace when nothing changes. The same thread looks
//! whether jobs get on.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, never, select};
use queue::dir::layout::Layout;
use queue::dir::presence::heartbeats;
use queue::dir::presence::lease::Lease;
use queue::wire::heartbeat::Heartbeat;
use queue::wire::lease_record::Process;
use queue::{fence, uptime};
use shared::emit;
use shared::event::{Event, Repeater, Say};
use shared::gpu::{GpuReading, Gpus, Which};
use shared::id::Incarnation;
use shared::log::Handle;
use shared::task::Class;
use shared::time::Moment;

use crate::attempt::context::AttemptContext;
use crate::worker_state::progress::Sample;
use crate::worker_state::{Facts, Job};

/// The least time between two heartbeats.
const COALESCE: Duration = Duration::from_millis(100);

/// What heartbeats are made from.
pub struct HeartbeatThread {
    /// What every attempt needs, and what the worker knows about itself.
    pub context: Arc<AttemptContext>,
    /// Held for as long as the worker lives; looked after here.
    pub lease: Arc<Lease>,
    /// This process.
    pub process: Process,
    /// Which life of the worker, as in its log lines and its lease file.
    pub life: Incarnation,
    /// When that life began, by the wall clock.
    pub started_at: Moment,
    /// The pace when nothing changes.
    pub interval: Duration,
    /// From so long a quiet on, others should know at once.
    pub stuck_after: Duration,
    /// How the GPU is read, where it can be.
    pub gpus: Option<Arc<Gpus>>,
    /// The log: each heartbeat says how many lines it has.
    pub log: Handle,
    /// When this thread began: repetitions are timed from here.
    pub begun: Instant,
}

/// What changes from beat to beat.
struct Beat {
    seq: u64,
    last: Instant,
    next_sample: Instant,
    reading: Option<GpuReading>,
    read_at: Option<Instant>,
    trouble: Repeater,
    /// Jobs whose quiet was already worth a heartbeat of its own.
    quiet: BTreeSet<String>,
}

impl HeartbeatThread {
    /// Beats until `end` is closed, then once more.
    pub fn beat(self, end: &Receiver<()>) {
        let now = Instant::now();
        let mut beat = Beat {
            seq: 0,
            last: now,
            next_sample: now,
            reading: None,
            read_at: None,
            trouble: Repeater::default(),
            quiet: BTreeSet::new(),
        };
        self.write(&mut beat);
        while self.wait(end, &mut beat) {
            self.write(&mut beat);
        }
        self.write(&mut beat);
    }

    /// Until the next heartbeat is due. `false` when it is the last.
    fn wait(&self, end: &Receiver<()>, beat: &mut Beat) -> bool {
        loop {
            let busy = self.context.worker_state.look(|state| state.running().next().is_some());
            let due = (beat.last + self.interval).saturating_duration_since(Instant::now());
            let sample = if busy {
                after(beat.next_sample.saturating_duration_since(Instant::now()))
            } else {
                never()
            };
            select! {
                recv(end) -> _closed => return false,
                recv(self.context.worker_state.changes()) -> _changed => {
                    self.coalesce(end, beat);
                    return true;
                }
                recv(sample) -> _now => {
                    if self.sample(beat) {
                        return true;
                    }
                }
                recv(after(due)) -> _now => return true,
            }
        }
    }

    /// Changes that come close together share a heartbeat.
    fn coalesce(&self, end: &Receiver<()>, beat: &Beat) {
        let left = (beat.last + COALESCE).saturating_duration_since(Instant::now());
        if !left.is_zero() {
            // Nothing is sent there: it is closed, or the time is over. Either is looked at next.
            let _ = end.recv_timeout(left);
        }
        let _ = self.context.worker_state.changes().try_recv();
    }

    fn write(&self, beat: &mut Beat) {
        beat.seq += 1;
        beat.last = Instant::now();
        self.check_lease();
        self.read_gpu(beat);
        let heartbeat = self.heartbeat(beat);
        let (worker, now) = (heartbeat.worker.clone(), self.begun.elapsed());
        match heartbeats::write(&self.context.surroundings.pool, &heartbeat) {
            Ok(()) => {
                if let Some(Say::Cleared { lasted, .. }) = beat.trouble.cleared(now) {
                    let seconds = lasted.as_secs_f64();
                    emit!(Event::WorkerHeartbeatRestored { worker: worker.clone(), seconds });
                }
                let idle_seconds =
                    heartbeat.idle_since.map(|since| heartbeat.at.seconds_since(since));
                let status = heartbeat.status.as_str();
                emit!(Event::WorkerHeartbeat { worker, status, idle_seconds });
            }
            Err(err) => {
                let count = match beat.trouble.seen(now) {
                    Some(Say::First) => 1,
                    Some(Say::Again { count, .. } | Say::Cleared { count, .. }) => count,
                    None => return,
                };
                let error = err.to_string();
                emit!(Event::WorkerHeartbeatFailed { worker, error, count });
            }
        }
    }

    fn check_lease(&self) {
        let lost = self.lease.is_intact().is_ok_and(|intact| !intact);
        let known =
            self.context.worker_state.note(|state| std::mem::replace(&mut state.lease_lost, lost));
        if lost && !known {
            let worker = self.context.worker_state.name().clone();
            let path = self.context.surroundings.pool.layout().worker_lock(&worker);
            emit!(Event::WorkerLockLost { worker, path });
        }
    }

    /// Not more often than the pace: asking the driver is not free.
    fn read_gpu(&self, beat: &mut Beat) {
        let (Some(gpus), Some(index)) = (&self.gpus, self.gpu_index()) else { return };
        if beat.read_at.is_none_or(|at| at.elapsed() >= self.interval.min(Duration::from_secs(5))) {
            beat.reading = gpus.read(Which::Index(index));
            beat.read_at = Some(Instant::now());
        }
    }

    fn gpu_index(&self) -> Option<u32> {
        self.context.worker_state.look(|state| state.ability.gpu)
    }

    fn heartbeat(&self, beat: &Beat) -> Heartbeat {
        self.context.worker_state.look(|state: &Facts| Heartbeat {
            schema: queue::wire::heartbeat::SCHEMA.to_owned(),
            worker: self.context.worker_state.name().clone(),
            process: self.process.clone(),
            life: self.life.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            at: Moment::now(),
            uptime: Some(uptime::now()),
            seq: beat.seq,
            status: state.status(),
            ability: state.ability.clone(),
            current: state.jobs.iter().map(|job| job.run.clone()).collect(),
            gpu_reading: beat.reading.clone(),
            claim: state.claim.clone(),
            completed: state.completed,
            failed: state.failed,
            lost_races: state.lost_races,
            idle_since: state.idle_since,
            log_seq: self.log.seq(),
        })
    }

    /// Looks whether the jobs get on. `true` when somebody should hear of it at once.
    fn sample(&self, beat: &mut Beat) -> bool {
        let pace =
            (self.stuck_after / 10).clamp(Duration::from_millis(100), Duration::from_secs(5));
        beat.next_sample = Instant::now() + pace;
        // Only while its leader is not reaped is a group's number its own.
        let jobs: Vec<Job> =
            self.context.worker_state.look(|state| state.running().cloned().collect());
        let mut tell = false;
        for job in &jobs {
            let (sample, peak) = match (job.run.pgid, job.run.class, job.run.started_at) {
                (Some(pgid), ..) => (self.look_at(job, pgid, beat), self.gpu_memory(pgid)),
                (None, Class::Llm, Some(_begun)) => (self.look_at_request(job), None),
                // It starts in a moment; or it loads a model, of which nothing can be seen.
                (None, ..) => continue,
            };
            let quiet = self.context.worker_state.note(|state| {
                let job = state.jobs.iter_mut().find(|other| other.name == job.name)?;
                note(job, sample, peak)
            });
            let key = job.name.to_string();
            if quiet.is_some_and(|quiet| quiet >= self.stuck_after) {
                tell |= beat.quiet.insert(key);
            } else {
                tell |= beat.quiet.remove(&key);
            }
        }
        beat.quiet.retain(|key| jobs.iter().any(|job| job.name.to_string() == *key));
        // While something is quiet its age is news: a stall limit may be reached.
        tell || !beat.quiet.is_empty()
    }

    fn look_at(&self, job: &Job, pgid: u32, beat: &Beat) -> Sample {
        let layout: &Layout = self.context.surroundings.pool.layout();
        let (id, attempt) = (job.name.id, job.name.attempt);
        let members = fence::members_of_group(pgid).unwrap_or_default();
        let usage = fence::usage(&members);
        let touched = fs::metadata(layout.progress_file(id, attempt));
        let ours = |reading: &GpuReading| {
            let pids: BTreeSet<u32> = members.iter().copied().collect();
            let uses = reading.memory_of(&pids).known().is_some_and(|bytes| bytes > 0);
            uses && reading.utilization.as_ref().known().is_some_and(|percent| *percent > 0)
        };
        Sample {
            output: fs::metadata(layout.run_log(id, attempt)).ok().map(|meta| meta.len()),
            progress_file: touched.and_then(|meta| meta.modified()).ok(),
            cpu_ticks: usage.map(|usage| usage.cpu_ticks),
            stopped: usage.is_some_and(|usage| usage.stopped),
            gpu_busy: beat.reading.as_ref().is_some_and(ours),
            request: false,
        }
    }

    fn look_at_request(&self, job: &Job) -> Sample {
        let log = self.context.surroundings.pool.layout().run_log(job.name.id, job.name.attempt);
        let output = fs::metadata(log).ok().map(|meta| meta.len());
        Sample { output, request: true, ..Sample::default() }
    }

    fn gpu_memory(&self, pgid: u32) -> Option<u64> {
        let (gpus, index) = (self.gpus.as_ref()?, self.gpu_index()?);
        let pids = fence::members_of_group(pgid).ok()?.into_iter().collect();
        gpus.memory_of(Which::Index(index), &pids).known()
    }
}

/// Writes down what was seen of a job. Returns how long it has been quiet.
fn note(job: &mut Job, sample: Sample, memory: Option<u64>) -> Option<Duration> {
    let now = Instant::now();
    job.progress.see(sample, now);
    let quiet = job.progress.quiet(now);
    job.run.quiet_seconds = quiet.map(|quiet| quiet.as_secs_f64());
    job.run.last_output_age_seconds = Some(job.progress.output_age(now).as_secs_f64());
    job.run.evidence = job.progress.evidence(now);
    job.run.peak_vram_bytes = job.run.peak_vram_bytes.max(memory);
    quiet
}
