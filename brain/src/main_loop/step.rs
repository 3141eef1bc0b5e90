//! Steps of the loop: each stands alone, so that one that fails, or panics, is said, and the others
//! go on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use queue::Error;
use shared::emit;
use shared::event::{Event as Said, Say};

use super::Brain;

impl Brain {
    /// One step of a cycle. What goes wrong in it is said and goes no further.
    pub(super) fn step<T>(
        &mut self,
        name: &'static str,
        step: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Option<T> {
        let now = self.started.elapsed();
        let error = match catch_unwind(AssertUnwindSafe(|| step(self))) {
            Ok(Ok(value)) => {
                self.failing.cleared(&name, now);
                self.failed.remove(name);
                return Some(value);
            }
            Ok(Err(err)) => err.to_string(),
            Err(_said_by_the_panic_hook) => "it panicked".to_owned(),
        };
        self.failed.insert(name);
        let count = match self.failing.seen(name, now) {
            Some(Say::First) => 1,
            Some(Say::Again { count, .. }) => count,
            Some(Say::Cleared { .. }) | None => return None,
        };
        emit!(Said::BrainStepFailed { step: name.to_owned(), error, count });
        None
    }
}
