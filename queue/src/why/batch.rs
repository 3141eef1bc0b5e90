//! Why a batch is not done: what the first of its tasks that has not ended waits for.

use shared::id::{BatchId, TaskId};
use shared::outcome::Outcome;
use shared::quantity::counted;

use super::{Explanation, Look, Subject, Word, task};
use crate::Error;
use crate::dir::find::batch_ends::{BatchEnds, Slot};

/// Why a batch is not done.
pub fn why_batch(look: &Look<'_>, batch: BatchId, ids: Vec<TaskId>) -> Result<Explanation, Error> {
    let subject = Subject { kind: "batch", id: batch.to_string() };
    let all = counted(ids.len(), "task");
    let ends = BatchEnds::of(look.pool.layout(), ids)?;
    ends.all_was_read()?;
    let slots = || (0..ends.ids().len()).map(|index| ends.slot(index));
    let open = slots().filter(|slot| matches!(slot, Slot::Open { .. })).count();
    let first =
        ends.ids().iter().zip(slots()).find(|(_id, slot)| matches!(slot, Slot::Open { .. }));
    let explained = match first {
        Some((id, _slot)) => task::why_task(look, *id)?.map(|explained| (id, explained)),
        None => None,
    };
    let Some((id, first)) = explained else {
        let good = |slot: &Slot| match slot {
            Slot::Ended(end) => end.outcome == Outcome::Succeeded,
            Slot::Open { .. } | Slot::Unknown => false,
        };
        let good = slots().filter(good).count();
        let text = format!("all have ended: {good} of {all} succeeded");
        return Ok(look.verdict(subject, Word::Gone, text, Vec::new()));
    };
    let text = format!("{open} of {all} have not ended; {}, the first: {}", id.short(), first.text);
    Ok(look.verdict(subject, first.verdict, text, first.reasons))
}
