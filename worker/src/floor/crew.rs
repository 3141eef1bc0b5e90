//! Threads that run attempts. They stay for the next one: to make a thread for each would be a
//! noticeable part of what a short job costs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::Ended;

/// An attempt, from claim to ledger line.
pub(super) type Work = Box<dyn FnOnce() -> Ended + Send>;

/// All of them: never more than there were attempts at the same time.
pub(super) struct Crew {
    work: (Sender<Work>, Receiver<Work>),
    /// Threads that take work from there next, less what is there already.
    idle: Arc<AtomicUsize>,
    ended: Sender<Ended>,
}

impl Crew {
    /// Nobody yet. What ends is told to `ended`.
    pub(super) fn new(ended: Sender<Ended>) -> Self {
        Self { work: unbounded(), idle: Arc::default(), ended }
    }

    /// Has it run, by a new thread where all are busy.
    pub(super) fn run(&self, work: Work) -> io::Result<()> {
        let one_less = |idle: usize| idle.checked_sub(1);
        if self.idle.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_ok() {
            self.work.0.send(work).expect("we hold a receiver ourselves");
            return Ok(());
        }
        let (more, idle, ended) = (self.work.1.clone(), self.idle.clone(), self.ended.clone());
        let thread = std::thread::Builder::new().name("run".to_owned());
        let serve = move || {
            let mut work = work;
            loop {
                let end = work();
                // Before it is told: whoever hears of it finds this thread free.
                idle.fetch_add(1, Ordering::AcqRel);
                // Refused only when the main thread is gone, and then nobody waits for it.
                let _ = ended.send(end);
                match more.recv() {
                    Ok(next) => work = next,
                    Err(_nobody_is_left) => return,
                }
            }
        };
        thread.spawn(serve).map(drop)
    }
}
