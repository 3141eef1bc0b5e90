//! What lies in `processing/<me>/` and is in nobody's hand: a thread that panicked has dropped it,
//! or it could not be handed to one. Nobody else may touch it while this worker lives.
//!
//! It may also be between its claim and the hand, or have ended and be about to be carried out; so
//! only what is seen there at two looks is settled, and as by whoever settles for the dead: its line
//! in the ledger comes first, and nothing is put back while its job may run.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use queue::dir::disk::listing;
use queue::dir::recover::settle::{Patience, Settler};
use queue::wire::fate::{Fate, Kept};
use shared::emit;
use shared::event::Event;
use shared::task::TaskName;

use crate::attempt::context::AttemptContext;

/// From KILL until processes are called unkillable.
const GIVE_UP: Duration = Duration::from_secs(1);

/// What was seen at the last look.
#[derive(Debug)]
pub(super) struct Dropped {
    seen: HashSet<TaskName>,
    last: Instant,
    every: Duration,
}

impl Dropped {
    /// Nothing seen yet. Half of a heartbeat between looks finds it within one.
    pub(super) fn new(heartbeat: Duration) -> Self {
        Self { seen: HashSet::new(), last: Instant::now(), every: heartbeat / 2 }
    }

    /// When to look next.
    pub(super) fn until_look(&self) -> Duration {
        self.every.saturating_sub(self.last.elapsed())
    }

    /// Looks, where it is time.
    pub(super) fn step(&mut self, context: &AttemptContext) -> Result<(), queue::Error> {
        if !self.until_look().is_zero() {
            return Ok(());
        }
        self.last = Instant::now();
        let (pool, state) = (&context.surroundings.pool, &context.worker_state);
        let there = listing::tasks_in(&pool.layout().processing_of(state.name()))?.tasks;
        let in_hand: HashSet<TaskName> =
            state.look(|state| state.jobs.iter().map(|job| job.name).collect());
        let dropped: HashSet<TaskName> =
            there.into_iter().filter(|name| !in_hand.contains(name)).collect();
        for name in dropped.intersection(&self.seen) {
            give_back(context, *name)?;
        }
        self.seen = dropped;
        Ok(())
    }
}

fn give_back(context: &AttemptContext, name: TaskName) -> Result<(), queue::Error> {
    let (pool, worker) = (&context.surroundings.pool, context.worker_state.name());
    let patience = Patience { grace: context.grace, give_up: GIVE_UP };
    let (task, attempt) = (name.id, name.attempt);
    match Settler::new(pool, &context.ledger, patience).take_up(worker, name)? {
        Fate::Kept(obstacle) => emit!(Kept::of(name, obstacle).event(0.0, 1)),
        Fate::PutBack { .. } | Fate::Cancelled | Fate::Finished(_) | Fate::Rejected(_) => {
            emit!(Event::TaskDropped { task, attempt, worker: worker.clone() });
        }
    }
    Ok(())
}
