//! Threads that run attempts. They stay for the next one (to make a thread for each would be a
//! noticeable part of what a short job costs), and take it themselves: to hand each task from one
//! thread to another costs two wake-ups.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};
use queue::eligible::SlotKind;
use shared::emit;
use shared::event::Event;
use shared::task::TaskName;

use super::search::{SharedSearch, Work};
use crate::attempt;
use crate::attempt::context::AttemptContext;
use crate::recorder::{Nudge, Recorder};
use crate::worker_state::Facts;
use crate::worker_state::backlog::Phase;

/// All of them: never more than there were attempts at the same time.
pub(super) struct RunThreads {
    hand_over: Sender<Work>,
    work: Receiver<Work>,
    /// Threads that wait for work, less what was handed over and not taken yet.
    idle: Arc<AtomicUsize>,
    thread: RunThread,
}

/// What each of them has.
#[derive(Clone)]
pub(super) struct RunThread {
    pub(super) context: Arc<AttemptContext>,
    pub(super) search: SharedSearch,
    pub(super) recorder: Recorder,
    pub(super) nudge: Nudge,
}

impl RunThreads {
    /// No thread yet: each is made when an attempt needs it.
    pub(super) fn new(thread: RunThread) -> Self {
        let (hand_over, work) = unbounded();
        Self { hand_over, work, idle: Arc::default(), thread }
    }

    /// Makes sure that a thread is there for the next attempt, before anything is claimed for it.
    ///
    /// # Errors
    /// When all are busy and no other can be had.
    pub(super) fn ready(&self) -> io::Result<()> {
        if self.idle.load(Ordering::Acquire) > 0 {
            return Ok(());
        }
        let (work, idle, own) = (self.work.clone(), self.idle.clone(), self.thread.clone());
        let thread = std::thread::Builder::new().name("run".to_owned());
        let serve = move || {
            while let Ok(first) = work.recv() {
                let mut next = Some(first);
                while let Some(this) = next {
                    let kind = SlotKind::of(this.claim.task().class());
                    own.run(this);
                    next = own.next(kind);
                }
                idle.fetch_add(1, Ordering::AcqRel);
            }
        };
        thread.spawn(serve)?;
        self.idle.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Has it run by the thread that is [ready](Self::ready) for it: only one thread calls these.
    pub(super) fn run(&self, work: Work) {
        self.idle.fetch_sub(1, Ordering::AcqRel);
        self.hand_over.send(work).expect("we hold a receiver ourselves");
    }
}

impl RunThread {
    /// Runs one, and leaves what is to be recorded to the recorder. A panic costs that attempt: it
    /// stays claimed, and is put back when this worker's affairs are settled.
    fn run(&self, work: Work) {
        let Work { claim, stop } = work;
        let name = claim.name();
        let meanwhile = || self.prefetch(name);
        let attempt = || attempt::attempt(&self.context, claim, &stop, &meanwhile);
        let ran = catch_unwind(AssertUnwindSafe(attempt));
        match ran {
            // The worker ends, and something of the job may not: the task stays where it is.
            Ok(None) => drop(self.context.worker_state.clear(name)),
            Ok(Some(finished)) => {
                self.context.worker_state.enter(name, Phase::Finished { cost: finished.cost });
                self.recorder.record(finished, &self.context.worker_state);
            }
            Err(panic) => {
                self.context.worker_state.clear(name);
                let doing = format!("running {}", name.id.short());
                emit!(Event::ProcessFailed { doing, error: panic_text(panic.as_ref()) });
            }
        }
    }

    /// Whoever waits for an answer uses the time.
    fn prefetch(&self, job: TaskName) {
        // Somebody who claims has looked, too.
        if let Some(mut search) = self.search.try_lock() {
            search.prefetch(job);
        }
    }

    /// The next task, where there is one that fits, for the slot that is free now. What else there
    /// is to do is left to the main thread.
    fn next(&self, kind: SlotKind) -> Option<Work> {
        let mut search = loop {
            self.context.worker_state.wait_to_keep_up();
            let search = self.search.lock();
            // Another thread may have been faster.
            if self.context.worker_state.look(Facts::is_behind) {
                drop(search);
            } else {
                break search;
            }
        };
        search.look_for(kind);
        if !search.may_claim() {
            return None;
        }
        let found = search.claim();
        // More than one may fit now (two small ones in the place of a large one).
        let more = found.is_err() || search.may_claim();
        drop(search);
        if more {
            self.nudge.nudge();
        }
        found.ok().flatten().map(|won| won.told(&self.context))
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}
