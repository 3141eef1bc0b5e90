//! One cycle: what is half done is finished, the pool is looked at, the core decides, others may
//! read of it.

use std::sync::Arc;

use queue::Error;
use queue::dir::disk::reserve;
use queue::dir::ledger::lines::Damaged;
use queue::dir::signal::control::{self, ControlVerb};
use queue::wire::brain_state::ChildProcess;
use shared::emit;
use shared::event::Event as Said;
use shared::name::Name;
use shared::time::Moment;

use super::Brain;
use crate::core::words::event::Event;
use crate::core::words::snapshot::{Paused, Snapshot, Worker};
use crate::effects::recovery::Recovery;

impl Brain {
    pub(super) fn cycle(&mut self) {
        self.cycle += 1;
        self.bell.arm();
        self.step("check the lock", Self::check_lock);
        if self.cycle == 1 {
            self.step("take back drains", Self::take_back_drains);
        }
        self.recover();
        // What could not be seen must not look as if it were gone: then nothing is decided.
        let Some(snapshot) = self.observe() else { return };
        self.step("take over workers", |brain| brain.adopt_orphans(&snapshot));
        let now = self.at().now;
        let cut = self.step("cut logs", |brain| Ok(brain.log_caps.look(&snapshot, now)));
        cut.into_iter().flatten().for_each(|event| emit!(event));
        self.step("decide", |brain| {
            brain.tell(Event::Observed(Box::new(snapshot.clone())));
            Ok(())
        });
        self.publish(&snapshot);
        self.sum_up();
    }

    /// Takes over those that the last brain had started and not yet written down when it died.
    fn adopt_orphans(&mut self, seen: &Snapshot) -> Result<(), Error> {
        let orphan = |(name, worker): (&Name, &Worker)| {
            let process = worker.record.as_ref()?.process.clone();
            let ours = self.places.contains(name) && self.children.is_orphan(name, &process);
            ours.then(|| ChildProcess { worker: name.clone(), process })
        };
        let orphans: Vec<_> = seen.alive().filter_map(orphan).collect();
        for child in orphans {
            if self.children.adopt(&child) {
                self.tell(Event::Adopted { worker: child.worker.clone() });
                // Too late to be told with the others.
                if self.core.is_stopping() {
                    self.children.terminate(&child.worker);
                }
            }
        }
        Ok(())
    }

    pub(super) fn publish(&mut self, snapshot: &Snapshot) {
        self.step("publish", |brain| {
            let Brain { core, observer, publisher, children, .. } = brain;
            publisher.publish(snapshot, core.view(), observer, children)
        });
    }

    /// Drains that a brain asked for which did not live to see them end.
    fn take_back_drains(&mut self) -> Result<(), Error> {
        for (worker, by) in self.observer.drains(&self.places)? {
            if by == "brain" {
                control::withdraw(self.pool.layout(), &worker, ControlVerb::Drain)?;
            }
        }
        Ok(())
    }

    fn recover(&mut self) {
        let ledger = self.ledger.clone();
        self.recovery_step("roll forward", |recovery| recovery.roll_forward());
        self.recovery_step("finish cancels", |recovery| recovery.finish_ends(&ledger));
        self.recovery_step("promote", |recovery| recovery.promote(&ledger));
        self.recovery_step("keep the reserve", |recovery| recovery.keep_reserve());
        self.recovery_step("tidy", |recovery| recovery.strays());
        self.recovery_step("sweep", |recovery| recovery.sweep());
    }

    fn recovery_step(
        &mut self,
        name: &'static str,
        step: impl FnOnce(&mut Recovery) -> Result<Vec<Said>, Error>,
    ) {
        let events = self.step(name, |brain| step(&mut brain.recovery));
        for event in events.into_iter().flatten() {
            emit!(event);
        }
    }

    pub(super) fn observe(&mut self) -> Option<Snapshot> {
        let lives = self.step("watch workers", |brain| brain.watchers.look())?;
        self.step("follow the limits", |brain| brain.pool.follow_limits());
        let counts = self.step("count", |brain| brain.observer.counts());
        let lanes = counts.as_ref().and_then(|counts| {
            self.step("read lanes", |brain| brain.observer.lanes(&counts.lanes))
        });
        // A task is counted before it is claimed, listed while it runs, and in the ledger and in its
        // worker's heartbeat when it has ended: looked at in this order, none is overlooked.
        let requests = lanes
            .as_ref()
            .and_then(|lanes| self.step("read requests", |brain| brain.observer.requests(lanes)));
        let processing = self.step("list what runs", |brain| brain.observer.processing())?;
        let workers = self.step("read heartbeats", |brain| brain.observer.workers(&lives))?;
        let unattended = self.unattended.look(self.pool.layout(), &processing, &workers);
        self.step("follow the ledger", |brain| brain.observer.follow());
        for Damaged { path, offset, problem, .. } in self.observer.damaged() {
            emit!(Said::LedgerDamaged { path, offset, problem });
        }
        let ended = self.observer.ended();
        let pause = self.step("read the pause", |brain| control::pool_pause(brain.pool.layout()));
        let drains = self.step("read drains", |brain| brain.observer.drains(&brain.places));
        let free = self.step("measure the disk", |brain| reserve::free_space(brain.pool.root()));
        Some(Snapshot {
            cycle: self.cycle,
            counts: counts.map(Arc::new),
            lanes: lanes.unwrap_or_default(),
            workers,
            processing,
            unattended,
            requests: requests.unwrap_or_default(),
            completed_lately: self.observer.completions.lately(Moment::now()),
            past: ended.past,
            ended: ended.news,
            gpus: self.gpus.clone(),
            named_gpus: self.named_gpus.clone(),
            pool: if pause.flatten().is_some() { Paused::Pool } else { Paused::No },
            drains: drains.unwrap_or_default(),
            free,
        })
    }
}
