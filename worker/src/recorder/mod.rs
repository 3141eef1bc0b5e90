//! One thread that records how attempts ended, behind the jobs: a slot is free as soon as nothing
//! of its job is left, and the next job starts while the line of the last one is flushed.
//!
//! Nothing is weaker for it. An attempt has ended when its line is flushed, and only then is
//! anything carried out; until then its file lies in `processing/` under our lease, and whoever
//! settles our affairs finds the line, or the job gone without one.

pub(crate) mod record;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::attempt::context::Bench;
use crate::attempt::finished::Over;
use crate::worker_state::{Desk, State};
use record::Recording;

/// The least time between two flushes while jobs end all the time: what ends meanwhile shares one.
/// An end that comes alone is recorded at once.
const GATHER: Duration = Duration::from_millis(10);

/// Takes what is to be recorded.
#[derive(Clone, Debug)]
pub(crate) struct Closer(Arc<Ends>);

/// What has ended. Not a channel: those spin before they wait, which costs a short job more than
/// the rest of this.
#[derive(Debug, Default)]
struct Ends {
    queue: Mutex<Vec<Over>>,
    more: Condvar,
}

impl Closer {
    /// Starts the thread. Whenever somebody may wait for what was recorded, it nudges.
    pub(crate) fn start(bench: Arc<Bench>, nudge: Nudge) -> std::io::Result<Self> {
        let closer = Self(Arc::default());
        let ends = closer.0.clone();
        let thread = std::thread::Builder::new().name("close".to_owned());
        thread.spawn(move || serve(&bench, &nudge, &ends))?;
        Ok(closer)
    }

    /// Has it recorded, soon.
    pub(crate) fn close(&self, over: Over, desk: &Desk) {
        let mut queue = self.0.lock();
        queue.push(over);
        let is_first = queue.len() == 1;
        drop(queue);
        // To wake it for each one, only to have it wait on, would cost more than to record it.
        if is_first || desk.look(State::backlog).is_worth_a_flush() {
            self.0.more.notify_one();
        }
    }
}

impl Ends {
    fn lock(&self) -> MutexGuard<'_, Vec<Over>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has ended, at least one; and what else ends until then, as long as it is not worth a
    /// flush.
    fn gather(&self, until: Option<Instant>, desk: &Desk) -> Vec<Over> {
        let mut queue = self.lock();
        while queue.is_empty() {
            queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        while !desk.look(State::backlog).is_worth_a_flush()
            && let Some(left) = until.and_then(|until| until.checked_duration_since(Instant::now()))
        {
            let waited = self.more.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut *queue)
    }
}

fn serve(bench: &Bench, nudge: &Nudge, ends: &Ends) {
    let mut last = None::<Instant>;
    loop {
        let group = ends.gather(last.map(|last| last + GATHER), &bench.desk);
        let asked = group.iter().any(|over| over.was_asked(bench));
        let held_up = record::close(bench, group) == Recording::HeldUp;
        last = Some(Instant::now());
        if asked || held_up || bench.desk.look(State::may_be_waited_for) {
            nudge.nudge();
        }
    }
}

/// Wakes the main thread.
#[derive(Clone, Debug)]
pub(crate) struct Nudge(Sender<()>);

impl Nudge {
    /// One, and where the main thread hears it.
    pub(crate) fn new() -> (Self, Receiver<()>) {
        let (tell, told) = bounded(1);
        (Self(tell), told)
    }

    /// Wakes it, unless it is awake.
    pub(crate) fn nudge(&self) {
        // Full means that it is about to look anyway.
        let _ = self.0.try_send(());
    }
}
