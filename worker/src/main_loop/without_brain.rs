//! Without a brain: an idle worker releases what is due, and finishes what others left half done.

use std::time::Duration;

use queue::dir::batch::roll_forward;
use queue::dir::disk::lock::{Holder, Lock};
use queue::dir::ledger::lines::Damaged;
use queue::dir::operate::Ender;
use queue::dir::recover::promote::{Promoter, Promotion};
use queue::dir::recover::strays::Stray;
use shared::emit;
use shared::event::Event;
use shared::time::Moment;

use super::MainLoop;

impl MainLoop {
    /// Where this worker releases what is due, it wakes when the next delay is over.
    pub(super) fn until_due(&self, patience: Duration) -> Duration {
        let next = self.promoter.as_ref().and_then(|promoter| promoter.next_due().ok().flatten());
        let Some(due) = next else { return patience };
        let left = due.saturating_mul(1000).saturating_sub(Moment::now().unix_millis());
        patience.min(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    /// Without a brain, an idle worker releases what is due.
    pub(super) fn promote(&mut self) -> Result<(), queue::Error> {
        let idle = self.context.worker_state.look(|state| state.jobs.is_empty() && !state.stopping);
        if !idle || Lock::probe(&self.pool.layout().brain_lock())? == Holder::Somebody {
            self.promoter = None;
            return Ok(());
        }
        roll_forward::forward_all(self.pool.layout())?;
        if let Some(ender) = Ender::try_new(&self.pool, &self.context.ledger)? {
            ender.finish_all()?;
        }
        for Stray { path: file, reason } in self.strays.step()? {
            emit!(Event::TaskRejected { file, reason });
        }
        let promoter = match &mut self.promoter {
            Some(promoter) => promoter,
            None => self.promoter.insert(Promoter::new(&self.pool)?),
        };
        for promotion in promoter.step(&self.context.ledger, Moment::now())? {
            say_promotion(promotion);
            self.search.lock().look_again();
        }
        Ok(())
    }
}

/// Says what was released.
fn say_promotion(promotion: Promotion) {
    match promotion {
        Promotion::Due(name) => emit!(Event::TaskDue { task: name.id, attempt: name.attempt }),
        Promotion::Ready { name, after } => emit!(Event::TaskPromoted { task: name.id, after }),
        Promotion::Hopeless { name, needed } => {
            emit!(Event::TaskDependencyFailed { task: name.id, needed });
        }
        Promotion::Rejected(file, reason) => emit!(Event::TaskRejected { file, reason }),
        Promotion::Damaged(Damaged { path, offset, problem, .. }) => {
            emit!(Event::LedgerDamaged { path, offset, problem });
        }
        Promotion::Failed(name, err) => {
            let doing = format!("releasing {}", name.id.short());
            emit!(Event::ProcessFailed { doing, error: err.to_string() });
        }
    }
}
