//! One thread that records how attempts ended, behind the jobs: a slot is free as soon as nothing
//! of its job is left, and the next job starts while the line of the last one is flushed.
//!
//! Nothing is weaker for it. An attempt has ended when its line is flushed, and only then is
//! anything carried out; until then its file lies in `processing/` under our lease, and whoever
//! settles our affairs finds the line, or the job gone without one.

mod brake;
pub(crate) mod record;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::attempt::context::AttemptContext;
use crate::attempt::finished::Finished;
use crate::worker_state::{Facts, WorkerState};
use record::Recording;

/// The least time between two flushes while jobs end all the time: what ends meanwhile shares one.
/// An end that comes alone is recorded at once.
const GATHER: Duration = Duration::from_millis(10);

/// Takes what is to be recorded.
#[derive(Clone, Debug)]
pub(crate) struct Recorder(Arc<Ends>);

/// What has ended. Not a channel: those spin before they wait, which costs a short job more than
/// the rest of this.
#[derive(Debug, Default)]
struct Ends {
    queue: Mutex<Vec<Finished>>,
    more: Condvar,
}

impl Recorder {
    /// Starts the thread. Whenever somebody may wait for what was recorded, it nudges.
    pub(crate) fn start(context: Arc<AttemptContext>, nudge: Nudge) -> std::io::Result<Self> {
        let recorder = Self(Arc::default());
        let ends = recorder.0.clone();
        let thread = std::thread::Builder::new().name("recorder".to_owned());
        thread.spawn(move || serve(&context, &nudge, &ends))?;
        Ok(recorder)
    }

    /// Has it recorded, soon.
    pub(crate) fn record(&self, finished: Finished, worker_state: &WorkerState) {
        let mut queue = self.0.lock();
        queue.push(finished);
        let is_first = queue.len() == 1;
        drop(queue);
        // To wake it for each one, only to have it wait on, would cost more than to record it.
        if is_first || worker_state.look(Facts::backlog).is_worth_a_flush() {
            self.0.more.notify_one();
        }
    }
}

impl Ends {
    fn lock(&self) -> MutexGuard<'_, Vec<Finished>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has ended, at least one; and what else ends until then, as long as it is not worth a
    /// flush.
    fn gather(&self, until: Option<Instant>, worker_state: &WorkerState) -> Vec<Finished> {
        let mut queue = self.lock();
        while queue.is_empty() {
            queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        while !worker_state.look(Facts::backlog).is_worth_a_flush()
            && let Some(left) = until.and_then(|until| until.checked_duration_since(Instant::now()))
        {
            let waited = self.more.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut *queue)
    }
}

fn serve(context: &AttemptContext, nudge: &Nudge, ends: &Ends) {
    let mut last = None::<Instant>;
    loop {
        let group = ends.gather(last.map(|last| last + GATHER), &context.worker_state);
        let asked = group.iter().any(|finished| finished.was_asked(context));
        let held_up = record::record_group(context, group) == Recording::HeldUp;
        last = Some(Instant::now());
        if asked || held_up || context.worker_state.look(Facts::may_be_waited_for) {
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
