//! The brain's own health: is it still the brain, is what it says heard, what went wrong lately.

use std::time::Duration;

use queue::Error;
use queue::dir::disk::lock::Lock;
use serde_json::{Value, json};
use shared::emit;
use shared::event::Event as Said;

use super::Brain;
use crate::core::words::event::Event;

/// Between two summaries.
const SUMMARY: Duration = Duration::from_secs(600);

/// What makes us the brain: kept until the very end, so that whoever stands by does not begin
/// before.
pub(crate) struct Guard {
    pub(crate) lock: Lock,
    pub(crate) named: Named,
}

/// Whether the lock file is still the one that others look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Yes,
    No,
}

impl Brain {
    /// A brain whose lock file was removed is not the brain any more: another may be by now.
    pub(crate) fn check_lock(&mut self) -> Result<(), Error> {
        if self.lock.named == Named::No || self.lock.lock.is_still_named()? {
            return Ok(());
        }
        self.lock.named = Named::No;
        let doing = "Being the brain".to_owned();
        let path = self.lock.lock.path().display();
        let error = format!("the lock `{path}` was removed, so another brain may be at work");
        emit!(Said::ProcessFailed { doing, error });
        self.tell(Event::Shutdown { signal: "the lock is gone".into() });
        Ok(())
    }

    /// Every ten minutes: is what we say heard, and what went wrong meanwhile.
    pub(crate) fn sum_up(&mut self) {
        let now = self.started.elapsed();
        if now.saturating_sub(self.summed_up) < SUMMARY {
            return;
        }
        self.summed_up = now;
        let figures = json!({
            "cycles": self.cycle,
            "uptime_seconds": now.as_secs(),
            "log_lines": self.log.seq(),
            "log_lines_lost": self.log.lost(),
            "stderr_lines_lost": self.log.lost_on_stderr(),
            "ledger_lines_torn": self.observer.torn(),
            "failing_steps": self.failed,
            "warnings": self.core.view().warnings.len(),
            "bells_heard": self.bell.hears(),
        });
        let Value::Object(figures) = figures else { return };
        emit!(Said::HealthSummary { figures });
    }
}
