//! Tasks that some living, idle worker may take, and that nobody takes: the one thing that must
//! never happen unseen.

use std::collections::BTreeMap;
use std::time::Duration;

use queue::wire::brain_state::Warning;
use queue::wire::lane::LaneName;
use shared::event::Event;
use shared::id::TaskId;
use shared::settings::Settings;

use super::activity::Idlers;
use super::condition::Conditions;
use crate::core::words::at::At;
use crate::core::words::command::{Command, say};
use crate::core::words::snapshot::{Lane, Paused, Snapshot};

/// Watches the heads of lanes.
#[derive(Clone, Debug)]
pub struct UnclaimedTasks {
    after: Duration,
    heads: BTreeMap<LaneName, Head>,
    unclaimed: Conditions<TaskId>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Head {
    task: TaskId,
    pending: u64,
    since: Duration,
}

impl UnclaimedTasks {
    /// With the threshold of the settings.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let after = settings.unclaimed_after.0;
        Self { after, heads: BTreeMap::new(), unclaimed: Conditions::default() }
    }

    /// Takes in a look.
    pub fn look(&mut self, at: At, seen: &Snapshot, idle: Idlers<'_>, out: &mut Vec<Command>) {
        self.heads.retain(|name, _head| seen.lanes.iter().any(|lane| lane.count.lane == *name));
        let mut holding = Vec::new();
        for lane in &seen.lanes {
            let Some(head) = self.unmoved(at, lane) else { continue };
            let waited = at.now.saturating_sub(head.since);
            if waited < self.after || lane.limited.is_some() || seen.pool == Paused::Pool {
                continue;
            }
            let Some(needs) = &lane.needs else { continue };
            let workers = idle.for_lane(at, seen, needs, self.after);
            if workers.is_empty() {
                continue;
            }
            holding.push(head.task);
            if let Some(count) = self.unclaimed.holds(at, &head.task) {
                let (class, seconds) = (lane.count.class, waited.as_secs_f64());
                say(out, Event::Unclaimed { task: head.task, class, seconds, workers, count });
            }
        }
        for (task, seconds) in self.unclaimed.keep(at, |task| holding.contains(task)) {
            let seconds = seconds + self.after.as_secs_f64();
            say(out, Event::UnclaimedCleared { task, seconds });
        }
    }

    /// The lane's head, and since when nobody has taken anything from the lane.
    fn unmoved(&mut self, at: At, lane: &Lane) -> Option<Head> {
        let (task, pending) = (lane.count.head?, lane.count.pending);
        let new = Head { task, pending, since: at.now };
        let head = self.heads.entry(lane.count.lane.clone()).or_insert(new);
        if head.task == task && pending >= head.pending {
            head.pending = pending;
        } else {
            *head = new;
        }
        Some(*head)
    }

    /// What somebody should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let each = self.unclaimed.all().map(|(task, since)| Warning {
            code: "claim.stalled".into(),
            text: format!("a worker could take task {} and nobody does", task.short()),
            since,
        });
        each.collect()
    }
}
