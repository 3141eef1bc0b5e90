//! How another thread tells the one that runs a job to end it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// Why a job is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A person cancelled it.
    Cancelled,
    /// It makes no progress.
    Stalled,
    /// The worker stops; the task goes back.
    Returned,
}

/// How a job can be ended from another thread. Made for one job; copies are the same handle.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The first reason that was given; later ones change nothing.
    why: Mutex<Option<Why>>,
    /// Readable, and left so, once somebody asked.
    asked: OwnedFd,
    /// The same, once somebody did not want to wait for the grace.
    hurried: OwnedFd,
}

impl Stop {
    /// A handle that nobody has used yet.
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub fn new() -> std::io::Result<Self> {
        let bell = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self(Arc::new(Inner { why: Mutex::new(None), asked: bell()?, hurried: bell()? })))
    }

    /// TERM now, KILL after the grace.
    pub fn ask(&self, why: Why) {
        self.0.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        ring(&self.0.asked);
    }

    /// KILL now, also if it was asked before and the grace is not over.
    pub fn kill_now(&self, why: Why) {
        self.ask(why);
        ring(&self.0.hurried);
    }

    /// The first reason that was given.
    #[must_use]
    pub fn why(&self) -> Option<Why> {
        *self.0.why.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn asked(&self) -> &OwnedFd {
        &self.0.asked
    }

    pub(super) fn hurried(&self) -> &OwnedFd {
        &self.0.hurried
    }
}

fn ring(bell: &OwnedFd) {
    // Refused only when it has been rung 2^64 times.
    let _full = rustix::io::write(bell, &1_u64.to_ne_bytes());
}
