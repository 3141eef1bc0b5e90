//! Elsewhere first: what failed here is left to another worker for a few seconds when it comes again,
//! as long as there is one that could take it at once. Nothing is written for that: who forgets it
//! (a restart) takes the task as any other.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use queue::Pool;
use queue::dir::disk::lock::Holder;
use queue::dir::presence::{heartbeats, lease};
use queue::eligible::{self, Candidate};
use queue::wire::heartbeat::Heartbeat;
use queue::wire::lane::Requirements;
use shared::id::TaskId;
use shared::name::Name;
use shared::time::Moment;

use crate::worker_state::retries::Retries;

/// What others do is looked at no more often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Who else there is, as of a moment ago.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    others: Vec<Heartbeat>,
    looked: Option<Instant>,
}

impl Elsewhere {
    /// Those of these tasks that others should have first.
    ///
    /// # Errors
    /// When it cannot be told who else there is.
    pub(super) fn pass_over(
        &mut self,
        pool: &Pool,
        me: &Name,
        retries: &Retries,
        silent: Duration,
    ) -> Result<HashSet<TaskId>, queue::Error> {
        let due = retries.due(Instant::now());
        if due.is_empty() {
            return Ok(HashSet::new());
        }
        if self.looked.is_none_or(|looked| looked.elapsed() > LOOK_EVERY) {
            self.others = living(pool, me, silent)?;
            self.looked = Some(Instant::now());
        }
        let could = |needs: &Requirements| {
            self.others
                .iter()
                .any(|beat| eligible::reasons(Candidate::from(beat), needs).is_empty())
        };
        Ok(due.into_iter().filter(|retry| could(&retry.needs)).map(|retry| retry.task).collect())
    }
}

/// The heartbeats of other workers that live and have said something lately.
fn living(pool: &Pool, me: &Name, silent: Duration) -> Result<Vec<Heartbeat>, queue::Error> {
    let (mut found, now) = (Vec::new(), Moment::now());
    for name in heartbeats::workers(pool)? {
        if name == *me || lease::probe(pool.layout(), &name)? != Holder::Somebody {
            continue;
        }
        // One that cannot be read is nobody who could take it.
        let beat = heartbeats::read(pool, &name).ok().flatten();
        found.extend(beat.filter(|beat| heartbeats::age(beat, now) < silent.as_secs_f64()));
    }
    Ok(found)
}
