//! Submitting a batch again under its key: what is done, or on its way, is not submitted again.
//!
//! A task is known by its `custom_id`, else by its own `key`, else by all that its line says (the
//! second of two equal lines is another task). So lines may be added, reordered and left out.

use std::collections::{HashMap, HashSet};

use queue::Error;
use queue::dir::batch::members::{self, LineKey, Member};
use queue::dir::find::batch_ends::{BatchEnds, Slot};
use queue::dir::layout::Layout;
use shared::id::{BatchId, TaskId};
use shared::outcome::Outcome;
use shared::task::Spec;

use super::line_text;

/// Counts equal lines, so that each has a key of its own.
#[derive(Default)]
pub(super) struct Twins(HashMap<LineKey, u64>);

impl Twins {
    /// What the next line is known by; `spec` as it stands there.
    pub(super) fn key_of(&mut self, spec: &Spec) -> LineKey {
        if let Some(custom_id) = &spec.custom_id {
            return LineKey::of(&[b"custom_id", custom_id.as_bytes()]);
        }
        if let Some(key) = &spec.key {
            return LineKey::of(&[b"key", key.as_bytes()]);
        }
        let text = line_text::of(spec);
        let count = self.0.entry(LineKey::of(&[&text])).or_default();
        *count += 1;
        LineKey::of(&[b"line", &text, &count.to_le_bytes()])
    }
}

/// What was submitted under the batch's key so far.
pub(super) struct Known {
    members: Vec<Member>,
    done: HashMap<LineKey, TaskId>,
}

/// Looks up how all tasks of a batch stand: one look at all places, one at history.
pub(super) fn known(layout: &Layout, batch: BatchId) -> Result<Known, Error> {
    let members = members::of_batch(layout, batch)?;
    let answers = BatchEnds::of(layout, members.iter().map(|member| member.id).collect())?;
    // What is unknown is not missing: it would run a second time.
    answers.all_was_read()?;
    let mut done = HashMap::new();
    for (index, member) in members.iter().enumerate() {
        if let Some(key) = member.key.filter(|_key| is_done(answers.slot(index))) {
            done.insert(key, member.id);
        }
    }
    Ok(Known { members, done })
}

/// Done, or on its way. What failed or was cancelled is missing, as is what nobody knows.
fn is_done(slot: Slot) -> bool {
    match slot {
        Slot::Unknown => false,
        Slot::Open { .. } => true,
        Slot::Ended(end) => match end.outcome {
            Outcome::Succeeded => true,
            Outcome::Failed | Outcome::Cancelled | Outcome::Returned => false,
        },
    }
}

impl Known {
    /// The task that need not be submitted again.
    pub(super) fn done(&self, key: LineKey) -> Option<TaskId> {
        self.done.get(&key).copied()
    }

    /// Those that none of these lines is.
    pub(super) fn others(&self, lines: &[LineKey]) -> Vec<Member> {
        let lines: HashSet<LineKey> = lines.iter().copied().collect();
        let is_other = |member: &&Member| member.key.is_some_and(|key| !lines.contains(&key));
        self.members.iter().filter(is_other).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::task::parse_spec;

    #[test]
    fn a_line_is_known_by_its_id_and_equal_lines_are_told_apart() {
        let spec = |text: &str| parse_spec(text.as_bytes()).unwrap();
        let mut twins = Twins::default();
        let one = twins.key_of(&spec(r#"{"shell": "a", "custom_id": "x"}"#));
        assert_eq!(one, twins.key_of(&spec(r#"{"shell": "b", "custom_id": "x"}"#)));
        let plain = spec(r#"{"shell": "a"}"#);
        let (first, second) = (twins.key_of(&plain), twins.key_of(&plain));
        assert_ne!(first, second);
        assert_eq!(Twins::default().key_of(&plain), first, "the next submit finds it");
        assert_ne!(first, one);
    }
}
