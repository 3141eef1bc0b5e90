//! Conditions that last: when each was first seen, and when to speak of it again.

use std::collections::BTreeMap;

use shared::event::{Repeater, Say};
use shared::time::Moment;

use crate::core::words::at::At;

/// Conditions by what they are about.
#[derive(Clone, Debug)]
pub struct Conditions<K> {
    each: BTreeMap<K, Condition>,
}

#[derive(Clone, Debug)]
struct Condition {
    repeater: Repeater,
    since: Moment,
}

impl<K> Default for Conditions<K> {
    fn default() -> Self {
        Self { each: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Conditions<K> {
    /// It holds. How often it was seen, where that is to be said.
    pub fn holds(&mut self, at: At, key: &K) -> Option<u64> {
        self.lasts(at, key).map(|(count, _seconds)| count)
    }

    /// It holds. How often it was seen, and for how many seconds, where that is to be said.
    pub fn lasts(&mut self, at: At, key: &K) -> Option<(u64, f64)> {
        let new = || Condition { repeater: Repeater::default(), since: at.wall };
        match self.each.entry(key.clone()).or_insert_with(new).repeater.seen(at.now)? {
            Say::First => Some((1, 0.0)),
            Say::Again { count, lasted } => Some((count, lasted.as_secs_f64())),
            Say::Cleared { .. } => None,
        }
    }

    /// It does not hold. For how many seconds it did, where it did.
    pub fn ended(&mut self, at: At, key: &K) -> Option<f64> {
        match self.each.remove(key)?.repeater.cleared(at.now)? {
            Say::Cleared { lasted, .. } => Some(lasted.as_secs_f64()),
            Say::First | Say::Again { .. } => None,
        }
    }

    /// Ends all of which `goes_on` says no. For how many seconds each held.
    pub fn keep(&mut self, at: At, goes_on: impl Fn(&K) -> bool) -> Vec<(K, f64)> {
        let over: Vec<K> = self.each.keys().filter(|key| !goes_on(key)).cloned().collect();
        over.into_iter().filter_map(|key| Some((key.clone(), self.ended(at, &key)?))).collect()
    }

    /// Those that hold, and since when.
    pub fn all(&self) -> impl Iterator<Item = (&K, Moment)> {
        self.each.iter().map(|(key, condition)| (key, condition.since))
    }

    /// Whether it held when last looked at.
    #[must_use]
    pub fn has(&self, key: &K) -> bool {
        self.each.contains_key(key)
    }
}
