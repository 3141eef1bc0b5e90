//! Counts that jump: over ten times the last, or from nothing to ten and more. Said with the ages
//! of the tasks behind it, which tell a real batch from old tasks that came back.

use serde_json::{Map, json};
use shared::event::Event;
use shared::id::TaskId;
use shared::time::Moment;

use crate::core::words::command::{Command, say};
use crate::core::words::snapshot::Snapshot;

/// From nothing to at least this.
const FROM_NOTHING: u64 = 10;
/// More than so many times the last.
const FACTOR: u64 = 10;
/// So many workers in one cycle.
pub(crate) const MANY_WORKERS: u64 = 3;

/// Remembers the last count. An unknown one is not 0: it is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountJump {
    last: Option<u64>,
}

impl CountJump {
    /// Takes in a look.
    pub fn look(&mut self, seen: &Snapshot, out: &mut Vec<Command>) {
        let Some(counts) = &seen.counts else { return };
        let Some(now) = counts.known("pending", counts.pending) else { return };
        let Some(kind) = self.last.replace(now).and_then(|last| jump(last, now)) else { return };
        let mut figures = Map::new();
        figures.insert("count".into(), json!(now));
        figures.insert("cycle".into(), json!(seen.cycle));
        let heads = seen.lanes.iter().filter_map(|lane| lane.count.head);
        let lanes = seen.lanes.iter().map(|lane| {
            json!({"lane": lane.count.lane, "pending": lane.count.pending, "oldest": lane.count.oldest})
        });
        figures.insert("oldest".into(), json!(heads.min().map(born)));
        figures.insert("lanes".into(), lanes.collect());
        let causes = ["a large batch", "old tasks that became visible", "a wrong count"];
        figures.insert("possible_causes".into(), json!(causes));
        say(out, Event::Anomaly { kind, figures });
    }
}

fn born(task: TaskId) -> Moment {
    Moment::from_unix_millis(i64::try_from(task.unix_millis()).unwrap_or(i64::MAX))
}

/// The jump in words, where there is one.
fn jump(last: u64, now: u64) -> Option<String> {
    match last {
        0 if now >= FROM_NOTHING => Some(format!("Task count jumped from 0 to {now}")),
        0 => None,
        _ if now > last.saturating_mul(FACTOR) => {
            Some(format!("Task count jumped from {last} to {now}, over {FACTOR} times"))
        }
        _ => None,
    }
}

/// Many workers at once.
pub(crate) fn rapid_scale_up(workers: u64, before: u64, queued: Option<u64>) -> Option<Event> {
    if workers < MANY_WORKERS {
        return None;
    }
    let kind = format!("Rapid scale-up of {workers} workers in one cycle");
    let mut figures = Map::new();
    figures.insert("workers".into(), json!(workers));
    figures.insert("workers_before".into(), json!(before));
    figures.insert("queued".into(), json!(queued));
    let causes = ["a large batch", "workers that ended together and are replaced"];
    figures.insert("possible_causes".into(), json!(causes));
    Some(Event::Anomaly { kind, figures })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_out_of_nothing_or_more_than_ten_times_as_many_is_a_jump() {
        for (last, now, is) in [
            (0, 9, false),
            (0, 10, true),
            (1, 10, false),
            (1, 11, true),
            (50, 500, false),
            (50, 501, true),
            (500, 0, false),
        ] {
            assert_eq!(jump(last, now).is_some(), is, "{last} -> {now}");
        }
    }
}
