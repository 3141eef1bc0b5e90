//! How another thread tells the one that runs a job to end it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Its log fills the disk, and may not, or cannot, be cut.
    DiskFull,
}

/// How a job, or a request to a model, can be ended from another thread. Made for one attempt;
/// copies are the same handle.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    asked: Mutex<Asked>,
    /// How a request is given up.
    cancel: Cancel,
}

/// What was asked so far, and whom to tell.
#[derive(Debug, Default)]
struct Asked {
    /// The first reason that was given; later ones change nothing.
    why: Option<Why>,
    /// Somebody did not want to wait for the grace.
    hurried: bool,
    /// A request to a model needs none: it ends with its connection.
    bells: Option<Arc<Bells>>,
}

/// What a thread that waits for a job can wait for beside.
#[derive(Debug)]
pub(super) struct Bells {
    /// Readable, and left so, once somebody asked.
    pub(super) asked: OwnedFd,
    /// The same, once somebody did not want to wait for the grace.
    pub(super) hurried: OwnedFd,
}

impl Stop {
    /// TERM now, KILL after the grace.
    pub fn ask(&self, why: Why) {
        self.tell(why, false);
    }

    /// KILL now, also if it was asked before and the grace is not over.
    pub fn kill_now(&self, why: Why) {
        self.tell(why, true);
    }

    fn tell(&self, why: Why, hurried: bool) {
        let mut asked = self.asked();
        asked.why.get_or_insert(why);
        asked.hurried |= hurried;
        asked.ring();
        drop(asked);
        self.0.cancel.give_up();
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first reason that was given.
    #[must_use]
    pub fn why(&self) -> Option<Why> {
        self.asked().why
    }

    /// How a request that runs for the same attempt is given up; it is when this is asked.
    #[must_use]
    pub fn cancel(&self) -> &Cancel {
        &self.0.cancel
    }

    /// Its bells: they ring for what was asked before, too. An error when no more descriptors can
    /// be had.
    pub(super) fn bells(&self) -> std::io::Result<Arc<Bells>> {
        let mut asked = self.asked();
        let bells = match &asked.bells {
            Some(bells) => bells.clone(),
            None => asked.bells.insert(Arc::new(Bells::new()?)).clone(),
        };
        asked.ring();
        Ok(bells)
    }
}

impl Asked {
    fn ring(&self) {
        let Some(bells) = &self.bells else { return };
        if self.why.is_some() {
            ring(&bells.asked);
        }
        if self.hurried {
            ring(&bells.hurried);
        }
    }
}

impl Bells {
    fn new() -> std::io::Result<Self> {
        let bell = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self { asked: bell()?, hurried: bell()? })
    }
}

fn ring(bell: &OwnedFd) {
    // Refused only when it has been rung 2^64 times.
    let _full = rustix::io::write(bell, &1_u64.to_ne_bytes());
}
