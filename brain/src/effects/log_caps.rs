//! Cuts the run logs of jobs whose worker does not: it is dead and what it left cannot be settled yet, or
//! it is stopped.

use std::time::Duration;

use queue::Pool;
use queue::dir::runs::cut::{self, Cut};
use shared::event::{Event, Repeaters};
use shared::task::{Class, TaskName};

use crate::core::words::snapshot::{Held, Snapshot, Worker};

/// What was said of such logs.
pub(crate) struct LogCaps {
    pool: Pool,
    long: Repeaters<TaskName>,
}

impl LogCaps {
    /// Nothing said yet.
    pub(crate) fn new(pool: &Pool) -> Self {
        Self { pool: pool.clone(), long: Repeaters::default() }
    }

    /// Cuts those that are too long, and says so now and then.
    pub(crate) fn look(&mut self, seen: &Snapshot, now: Duration) -> Vec<Event> {
        let left = seen.processing.iter().filter(|held| is_left(seen, held));
        let long: Vec<_> = left.filter_map(|held| Some((held.name, self.cut(held)?))).collect();
        let names: Vec<_> = long.iter().map(|(name, _event)| *name).collect();
        let said = self.long.look(now, &names);
        let is_due = |name: &TaskName| said.iter().any(|(due, _say)| due == name);
        long.into_iter().filter(|(name, _)| is_due(name)).map(|(_, event)| event).collect()
    }

    /// What there is to say of it.
    fn cut(&self, held: &Held) -> Option<Event> {
        let (task, attempt) = (held.name.id, held.name.attempt);
        let path = self.pool.layout().run_log(task, attempt);
        let cap = cut::cap(&self.pool, held.task.as_ref().and_then(|task| task.log_cap));
        match cap.and_then(|cap| Ok((cap.to_string(), cut::cut(&path, cap)?))) {
            Ok((_, Cut::Whole)) => None,
            Ok((cap, Cut::Shortened { missing })) => {
                Some(Event::JobLogCut { task, attempt, path, cap, missing })
            }
            Ok((cap, Cut::Refused { bytes })) => {
                Some(Event::JobLogUncut { task, attempt, path, cap, bytes })
            }
            // Another user's, perhaps.
            Err(err) => Some(Event::JobLogFailed { task, attempt, path, error: err.to_string() }),
        }
    }
}

/// Whether a job may write there, and its worker does not look.
fn is_left(seen: &Snapshot, held: &Held) -> bool {
    let is_job = |class| matches!(class, Class::Cpu | Class::Script);
    held.task.as_ref().is_some_and(|task| is_job(task.class))
        && seen.workers.get(&held.worker).is_none_or(|worker| !looks(worker))
}

fn looks(worker: &Worker) -> bool {
    worker.is_alive() && !worker.is_stopped()
}
