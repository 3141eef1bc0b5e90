//! When to speak of a condition that lasts: when it starts, then at growing intervals with a
//! count, and once when it clears. No clock inside: the caller says what time it is, counted on
//! its own monotonic clock from any fixed point.

use std::collections::BTreeMap;
use std::time::Duration;

/// What is to be said about a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// It holds, and did not before.
    First,
    /// It still holds, and the gap since it was last said is over.
    Again {
        /// How often it was seen, this time included.
        count: u64,
        /// Since it was first seen.
        lasted: Duration,
    },
    /// It held, and does not any more.
    Cleared {
        /// How often it was seen.
        count: u64,
        /// From the first time to now.
        lasted: Duration,
    },
}

/// The memory of one condition.
#[derive(Clone, Debug, Default)]
pub struct Repeater {
    holds: Option<Holds>,
}

#[derive(Clone, Debug)]
struct Holds {
    since: Duration,
    next: Duration,
    count: u64,
}

/// The first repetition comes after this; the gap doubles each time.
const FIRST_GAP: Duration = Duration::from_secs(60);
/// The gap grows no further than this.
const LONGEST_GAP: Duration = Duration::from_secs(3_600);

impl Repeater {
    /// The condition holds at `now`. Whether, and how, to speak of it.
    pub fn seen(&mut self, now: Duration) -> Option<Say> {
        let Some(holds) = &mut self.holds else {
            self.holds = Some(Holds { since: now, next: now + FIRST_GAP, count: 1 });
            return Some(Say::First);
        };
        holds.count += 1;
        if now < holds.next {
            return None;
        }
        let lasted = now.saturating_sub(holds.since);
        holds.next = now + lasted.clamp(FIRST_GAP, LONGEST_GAP);
        Some(Say::Again { count: holds.count, lasted })
    }

    /// The condition does not hold at `now`. Speaks once, and only if it held before.
    pub fn cleared(&mut self, now: Duration) -> Option<Say> {
        let holds = self.holds.take()?;
        let lasted = now.saturating_sub(holds.since);
        Some(Say::Cleared { count: holds.count, lasted })
    }

    /// Whether the condition held when last looked at.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.holds.is_some()
    }
}

/// One condition per key: per task, per worker, per file.
#[derive(Clone, Debug)]
pub struct Repeaters<K> {
    each: BTreeMap<K, Repeater>,
}

impl<K> Default for Repeaters<K> {
    fn default() -> Self {
        Self { each: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Repeaters<K> {
    /// For `holding`, and for no other key, the condition holds at `now`. What to say of each.
    pub fn look(&mut self, now: Duration, holding: &[K]) -> Vec<(K, Say)> {
        let mut said = Vec::new();
        for key in holding {
            let say = self.each.entry(key.clone()).or_default().seen(now);
            said.extend(say.map(|say| (key.clone(), say)));
        }
        self.each.retain(|key, repeater| {
            let gone = !holding.contains(key);
            if gone {
                said.extend(repeater.cleared(now).map(|say| (key.clone(), say)));
            }
            !gone
        });
        said
    }

    /// For `key` the condition holds at `now`.
    pub fn seen(&mut self, key: K, now: Duration) -> Option<Say> {
        self.each.entry(key).or_default().seen(now)
    }

    /// For `key` the condition does not hold at `now`.
    pub fn cleared(&mut self, key: &K, now: Duration) -> Option<Say> {
        self.each.remove(key)?.cleared(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lasting_condition_is_said_first_then_ever_more_seldom_then_once_when_over() {
        let mut repeater = Repeater::default();
        let said: Vec<_> =
            (0..=1_000).filter(|second| repeater.seen(at(*second)).is_some()).collect();
        assert_eq!(said, [0, 60, 120, 240, 480, 960]);
        assert_eq!(
            repeater.cleared(at(1_001)),
            Some(Say::Cleared { count: 1_001, lasted: at(1_001) })
        );
        assert_eq!(repeater.cleared(at(1_002)), None);
        assert_eq!(repeater.seen(at(1_003)), Some(Say::First));
    }

    #[test]
    fn after_hours_it_is_still_said_once_an_hour() {
        let mut repeater = Repeater::default();
        let said = (0..=36_000).filter(|second| repeater.seen(at(*second)).is_some()).count();
        assert!((14..=18).contains(&said), "{said}");
    }

    #[test]
    fn each_key_has_its_own_story() {
        let mut all = Repeaters::default();
        assert_eq!(all.look(at(0), &["a", "b"]), [("a", Say::First), ("b", Say::First)]);
        let gone = Say::Cleared { count: 1, lasted: at(5) };
        assert_eq!(all.look(at(5), &["b", "c"]), [("c", Say::First), ("a", gone)]);
        assert_eq!(all.look(at(6), &["b", "c"]), []);
    }
}
