//! Keeps the run logs of running jobs within their caps: each is looked at once a second, and as often
//! as it takes where it grows so fast that the disk would be full before that.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use queue::Pool;
use queue::dir::disk::reserve;
use queue::dir::runs::cut::{self, Cut};
use queue::dir::runs::growth::{FIRST, Growth};
use queue::wire::heartbeat::RunLog;
use shared::emit;
use shared::event::{Event, Repeater};
use shared::log_cap::LogCap;
use shared::quantity::Bytes;
use shared::task::TaskName;

use crate::attempt::context::AttemptContext;
use crate::job::{Stop, Why};
use crate::worker_state::WorkerState;

/// Of shorter logs nobody is told.
const WORTH_TELLING: u64 = 1 << 20;

/// The logs of the jobs that run, as they were at the last look.
pub(crate) struct LogCaps {
    each: BTreeMap<TaskName, Watched>,
    /// Repetitions are timed from here.
    begun: Instant,
}

struct Watched {
    bytes: u64,
    missing: Option<Bytes>,
    seen: Instant,
    next: Instant,
    cut: Repeater,
    failed: Repeater,
}

/// A log that is to be looked at.
struct Due {
    name: TaskName,
    path: PathBuf,
    /// What its task says.
    own: Option<LogCap>,
    stop: Stop,
}

impl LogCaps {
    /// None looked at yet.
    pub(crate) fn new(begun: Instant) -> Self {
        Self { each: BTreeMap::new(), begun }
    }

    /// When the next look is due; `None` where no job runs.
    pub(crate) fn due(&mut self, state: &WorkerState) -> Option<Instant> {
        let names: Vec<_> = state.look(|state| {
            let jobs = state.running().filter(|job| job.run.pgid.is_some());
            jobs.map(|job| job.name).collect()
        });
        self.each.retain(|name, _watched| names.contains(name));
        let next = |name| self.each.entry(name).or_insert_with(Watched::new).next;
        names.into_iter().map(next).min()
    }

    /// Looks at those that are due, and cuts what is too long.
    pub(crate) fn look(&mut self, context: &AttemptContext) {
        let (now, layout) = (Instant::now(), context.surroundings.pool.layout());
        let is_due = |name: &TaskName| self.each.get(name).is_some_and(|log| log.next <= now);
        let due: Vec<_> = context.worker_state.look(|state| {
            let jobs = state.running().filter(|job| job.run.pgid.is_some() && is_due(&job.name));
            let due = jobs.map(|job| Due {
                name: job.name,
                path: layout.run_log(job.name.id, job.name.attempt),
                own: job.log_cap,
                stop: job.stop.clone(),
            });
            due.collect()
        });
        for due in due {
            let Some(watched) = self.each.get_mut(&due.name) else { continue };
            let log = watched.look(context, &due, self.begun);
            let log = Some(log).filter(|log| log.bytes.0 >= WORTH_TELLING);
            context.worker_state.note(|state| {
                let job = state.jobs.iter_mut().find(|job| job.name == due.name);
                job.into_iter().for_each(|job| job.run.log.clone_from(&log));
            });
        }
    }
}

impl Watched {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            bytes: 0,
            missing: None,
            seen: now,
            next: now + FIRST,
            cut: Repeater::default(),
            failed: Repeater::default(),
        }
    }

    fn look(&mut self, context: &AttemptContext, due: &Due, begun: Instant) -> RunLog {
        let bytes = fs::symlink_metadata(&due.path).map_or(self.bytes, |meta| meta.len());
        let now = Instant::now();
        let growth = Growth {
            bytes: bytes.saturating_sub(self.bytes),
            within: now.saturating_duration_since(self.seen),
        };
        (self.bytes, self.seen) = (bytes, now);
        if growth.bytes > 0 {
            self.cut(context, due, now.saturating_duration_since(begun));
        }
        let free = reserve::free_space(context.surroundings.pool.root());
        // Where that cannot be told, a second is as good as any other wait.
        let free = free.map_or(u64::MAX, |free| free.0);
        self.next = Instant::now() + growth.until_next_look(free);
        RunLog {
            path: due.path.display().to_string(),
            bytes: Bytes(bytes),
            missing: self.missing,
            bytes_per_second: growth.pace(),
        }
    }

    fn cut(&mut self, context: &AttemptContext, due: &Due, now: Duration) {
        let pool = &context.surroundings.pool;
        let (task, attempt, path) = (due.name.id, due.name.attempt, due.path.clone());
        let done = cut::cap(pool, due.own).and_then(|cap| Ok((cap, cut::cut(&due.path, cap)?)));
        match done {
            Ok((LogCap::None, Cut::Whole)) => end_where_full(pool, due),
            Ok((LogCap::At(_), Cut::Whole)) => {}
            Ok((cap, Cut::Shortened { missing })) => {
                self.missing = Some(missing);
                if self.cut.seen(now).is_some() {
                    emit!(Event::JobLogCut { task, attempt, path, cap: cap.to_string(), missing });
                }
            }
            Ok((cap, Cut::Refused { bytes })) => {
                if self.cut.seen(now).is_some() {
                    emit!(Event::JobLogUncut { task, attempt, path, cap: cap.to_string(), bytes });
                }
                end_where_full(pool, due);
            }
            Err(err) => {
                if self.failed.seen(now).is_some() {
                    let error = err.to_string();
                    emit!(Event::JobLogFailed { task, attempt, path, error });
                }
            }
        }
    }
}

/// Ends a job whose log may not be cut, or cannot be, but only where its output would take what
/// the reserve is for. At once: in a grace it would take that too.
fn end_where_full(pool: &Pool, due: &Due) {
    if let Ok(Some(_shortage)) = pool.shortage() {
        due.stop.kill_now(Why::DiskFull);
    }
}
