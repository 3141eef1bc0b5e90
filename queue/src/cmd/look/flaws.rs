//! What answers lack, counted.

use std::collections::BTreeMap;

use shared::llm::Flaw;

/// How many answers lack what.
#[derive(Clone, Debug, Default)]
pub(in crate::cmd) struct Flaws(BTreeMap<Flaw, u64>);

impl Flaws {
    /// One more.
    pub(in crate::cmd) fn add(&mut self, flaw: Flaw) {
        *self.0.entry(flaw).or_default() += 1;
    }

    /// How many lack anything.
    pub(in crate::cmd) fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// ` (answers: 2 cut, 1 empty)`, or nothing.
    pub(in crate::cmd) fn in_brackets(&self) -> String {
        let each: Vec<String> =
            self.0.iter().map(|(flaw, count)| format!("{count} {flaw}")).collect();
        if each.is_empty() { String::new() } else { format!(" (answers: {})", each.join(", ")) }
    }

    /// For programs: `{"cut": 2}`.
    pub(in crate::cmd) fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self.0)
    }
}
