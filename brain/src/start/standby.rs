//! One brain per pool: taking its lock, or standing by until it is free.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, select};
use queue::Pool;
use queue::cli::Failure;
use queue::dir::disk::lock::Lock;
use queue::dir::presence::brain_state::{self, brain_record};
use queue::wire::brain_state::BrainRecord;
use shared::emit;
use shared::event::{Event, Repeater, Say};

use crate::main_loop::signals::Signal;

pub(crate) struct HeldLock {
    pub(super) lock: Lock,
    /// How long we stood by, if we did.
    pub(super) waited: Option<Duration>,
}

/// The brain's lock; `None` when a signal came while we stood by.
pub(crate) fn take_lock(
    pool: &Pool,
    signals: &Receiver<Signal>,
    us: &BrainRecord,
) -> Result<Option<HeldLock>, Failure> {
    let path = pool.layout().brain_lock();
    if let Some(lock) = Lock::try_take(&path)? {
        return Ok(Some(HeldLock { lock, waited: None }));
    }
    let since = Instant::now();
    emit!(Event::BrainStandby { holder: holder(pool) });
    let locked = wait_for(path)?;
    let mut seen = show_standby(pool, us);
    let mut rival = Rival::new(since);
    loop {
        select! {
            recv(signals) -> signal => match signal {
                Ok(Signal::Reopen) => {}
                // A thread blocked on a lock cannot be called back; it ends with the process.
                Ok(Signal::End(_)) | Err(_) => return Ok(None),
            },
            recv(locked) -> lock => {
                let lock = lock.expect("the thread says what came of it")?;
                return Ok(Some(HeldLock { lock, waited: Some(since.elapsed()) }));
            }
            default(RIVAL_LOOK) => {
                rival.look(pool);
                seen = seen.or_else(|| show_standby(pool, us));
            }
        }
    }
}

/// The first of those that stand by holds a lock that says so. It is there to be seen and for
/// nothing else, so whoever cannot have it just waits on.
fn show_standby(pool: &Pool, us: &BrainRecord) -> Option<Lock> {
    let lock = Lock::try_take(&pool.layout().standby_lock()).ok().flatten()?;
    lock.write_record(us).ok()?;
    Some(lock)
}

fn wait_for(path: PathBuf) -> Result<Receiver<Result<Lock, queue::Error>>, Failure> {
    let (tell, locked) = bounded(1);
    let waiting = std::thread::Builder::new().name("standby".into());
    let waiting = waiting.spawn(move || tell.send(Lock::wait(&path)));
    waiting.map_err(|err| Failure::at_start("start a thread", &err))?;
    Ok(locked)
}

/// Between two looks at the brain that we stand by for.
const RIVAL_LOOK: Duration = Duration::from_secs(5);

/// A brain writes its state every 10 seconds at least.
const RIVAL_HUNG: Duration = Duration::from_secs(60);

/// The brain that we stand by for: it may hold its lock and do nothing.
struct Rival {
    since: Instant,
    seq: Option<u64>,
    moved: Duration,
    hung: Repeater,
}

impl Rival {
    fn new(since: Instant) -> Self {
        Self { since, seq: None, moved: Duration::ZERO, hung: Repeater::default() }
    }

    fn look(&mut self, pool: &Pool) {
        let now = self.since.elapsed();
        let seq = brain_state::read(pool.layout()).ok().flatten().map(|state| state.seq);
        if seq != self.seq {
            (self.seq, self.moved) = (seq, now);
        }
        let age = now.saturating_sub(self.moved);
        if age < RIVAL_HUNG {
            self.hung.cleared(now);
            return;
        }
        let count = match self.hung.seen(now) {
            Some(Say::First) => 1,
            Some(Say::Again { count, .. }) => count,
            Some(Say::Cleared { .. }) | None => return,
        };
        let record = brain_record(pool.layout()).unwrap_or_default();
        let pid = record.map(|record| record.process.pid);
        emit!(Event::BrainHung { pid, seconds: age.as_secs_f64(), count });
    }
}

fn holder(pool: &Pool) -> String {
    match brain_record(pool.layout()) {
        Ok(Some(record)) => {
            let BrainRecord { process, since, .. } = record;
            format!("pid {} on {} since {since}", process.pid, process.host)
        }
        Ok(None) | Err(_) => "somebody who has not said who".to_owned(),
    }
}
