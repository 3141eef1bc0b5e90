//! How another thread tells the one that runs a job to end it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::server::Cancel;

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

/// How a job, or a request to a model, can be ended from another thread. Made for one attempt;
/// copies are the same handle.
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
    /// How a request is given up.
    cancel: Cancel,
}

impl Stop {
    /// A handle that nobody has used yet.
    ///
    /// # Errors
    /// When no more descriptors can be had.
    pub fn new() -> std::io::Result<Self> {
        let bell = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let (why, cancel) = (Mutex::new(None), Cancel::default());
        Ok(Self(Arc::new(Inner { why, asked: bell()?, hurried: bell()?, cancel })))
    }

    /// TERM now, KILL after the grace.
    pub fn ask(&self, why: Why) {
        self.0.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        ring(&self.0.asked);
        self.0.cancel.give_up();
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

    /// How a request that runs for the same attempt is given up; it is when this is asked.
    #[must_use]
    pub fn cancel(&self) -> &Cancel {
        &self.0.cancel
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
