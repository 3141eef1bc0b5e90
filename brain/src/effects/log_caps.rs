//! Cuts the run logs of jobs whose worker does not: it is dead and what it left cannot be settled yet, or
//! it is stopped.

use std::time::Duration;

use queue::dir::runs::cut::{self, Cut};
use queue::{Error, Pool};
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
    pub(crate) fn look(&mut self, seen: &Snapshot, now: Duration) -> Result<Vec<Event>, Error> {
        let mut cut = Vec::new();
        for held in seen.processing.iter().filter(|held| is_left(seen, held)) {
            cut.extend(self.cut(held)?.map(|event| (held.name, event)));
        }
        let names: Vec<_> = cut.iter().map(|(name, _event)| *name).collect();
        let said = self.long.look(now, &names);
        let is_due = |name: &TaskName| said.iter().any(|(due, _say)| due == name);
        Ok(cut.into_iter().filter(|(name, _)| is_due(name)).map(|(_, event)| event).collect())
    }

    fn cut(&self, held: &Held) -> Result<Option<Event>, Error> {
        let (task, attempt) = (held.name.id, held.name.attempt);
        let path = self.pool.layout().run_log(task, attempt);
        let cap = cut::cap(&self.pool, held.task.as_ref().and_then(|task| task.log_cap))?;
        Ok(match cut::cut(&path, cap)? {
            Cut::Shortened { missing } => {
                Some(Event::JobLogCut { task, attempt, path, cap: cap.to_string(), missing })
            }
            Cut::Whole | Cut::Refused => None,
        })
    }
}

/// Whether a job may write there, and its worker does not look.
fn is_left(seen: &Snapshot, held: &Held) -> bool {
    let is_job = |class| matches!(class, Class::Cpu | Class::Script);
    held.task.as_ref().is_some_and(|task| is_job(task.class))
        && seen.workers.get(&held.worker).is_none_or(|worker| !looks(worker))
}

fn looks(worker: &Worker) -> bool {
    worker.is_alive() && !matches!(worker.process, Some('T' | 't'))
}
