//! One thread that records how attempts ended, behind the jobs: a slot is free as soon as nothing
//! of its job is left, and the next job starts while the line of the last one is flushed.
//!
//! Nothing is weaker for it. An attempt has ended when its line is flushed, and only then is
//! anything carried out; until then its file lies in `processing/` under our lease, and whoever
//! settles our affairs finds the line, or the job gone without one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};

use super::Nudge;
use crate::close::{self, Over, Recording};
use crate::desk::State;
use crate::run::Bench;

/// The least time between two flushes while jobs end all the time: what ends meanwhile shares one.
/// An end that comes alone is recorded at once.
const GATHER: Duration = Duration::from_millis(4);
/// So many ends share one flush at most.
const MOST: usize = 64;

/// Takes what is to be recorded.
#[derive(Clone, Debug)]
pub(super) struct Closer(Sender<Over>);

impl Closer {
    /// Starts the thread. Whenever somebody may wait for what was recorded, it nudges.
    pub(super) fn start(bench: Arc<Bench>, nudge: Nudge) -> std::io::Result<Self> {
        let (closer, ends) = unbounded();
        let thread = std::thread::Builder::new().name("close".to_owned());
        thread.spawn(move || serve(&bench, &nudge, &ends))?;
        Ok(Self(closer))
    }

    /// Has it recorded, soon.
    pub(super) fn close(&self, over: Over) {
        // Refused only when the thread has panicked: then the attempt stays claimed, and is put
        // back when this worker's affairs are settled.
        let _ = self.0.send(over);
    }
}

fn serve(bench: &Bench, nudge: &Nudge, ends: &Receiver<Over>) {
    // Nothing is ever sent there: a wait on it is only a wait.
    let (_open, never) = bounded::<()>(0);
    let mut last = None::<Instant>;
    while let Ok(first) = ends.recv() {
        let left = last.map(|last| (last + GATHER).saturating_duration_since(Instant::now()));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            let _time_is_over = never.recv_timeout(left);
        }
        let mut group = vec![first];
        while group.len() < MOST {
            match ends.try_recv() {
                Ok(over) => group.push(over),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        let asked = group.iter().any(|over| over.was_asked(bench));
        let slow = bench.desk.look(|state| !state.keeps_up());
        let held_up = close::close(bench, group) == Recording::HeldUp;
        last = Some(Instant::now());
        if asked || slow || held_up || bench.desk.look(State::may_be_waited_for) {
            nudge.nudge();
        }
    }
}
