//! How many tasks were completed lately: counted in slices of ten seconds, so that a brain that
//! takes over goes on where the last one stopped.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use shared::time::Moment;

/// How long a slice is, in seconds.
const SLICE: i64 = 10;
/// For how long completions are remembered, in seconds.
const REMEMBERED: i64 = 300;

/// Tasks that succeeded in the last five minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedLately {
    /// Oldest first; none is empty.
    slices: VecDeque<Slice>,
}

/// Ten seconds, and how many tasks succeeded in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Slice {
    /// Unix time in tens of seconds.
    begins: i64,
    count: u64,
}

impl CompletedLately {
    /// One succeeded at that moment. Moments come nearly in order; what is long past is left out.
    pub fn add(&mut self, at: Moment) {
        let begins = slice_of(at);
        let newest = self.slices.back().map_or(begins, |slice| slice.begins.max(begins));
        if begins <= newest - REMEMBERED / SLICE {
            return;
        }
        match self.slices.iter().rposition(|slice| slice.begins <= begins) {
            Some(index) if self.slices[index].begins == begins => self.slices[index].count += 1,
            Some(index) => self.slices.insert(index + 1, Slice { begins, count: 1 }),
            None => self.slices.push_front(Slice { begins, count: 1 }),
        }
        while self.slices.front().is_some_and(|slice| slice.begins <= newest - REMEMBERED / SLICE) {
            self.slices.pop_front();
        }
    }

    /// How many succeeded in the five minutes before `now`, give or take ten seconds.
    #[must_use]
    pub fn lately(&self, now: Moment) -> u64 {
        let since = slice_of(now) - REMEMBERED / SLICE;
        self.slices.iter().filter(|slice| slice.begins > since).map(|slice| slice.count).sum()
    }
}

fn slice_of(at: Moment) -> i64 {
    at.unix_millis().div_euclid(SLICE * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Moment {
        Moment::from_unix_millis(1_700_000_000_000 + second * 1_000)
    }

    #[test]
    fn what_was_completed_in_the_last_five_minutes_counts_in_whatever_order_it_comes() {
        let mut completions = CompletedLately::default();
        for second in [0, 5, 290, 20, 299, 1] {
            completions.add(at(second));
        }
        assert_eq!(completions.lately(at(299)), 6);
        assert_eq!(completions.lately(at(310)), 3);
        assert_eq!(completions.lately(at(900)), 0);
        // A history of a year costs no more than five minutes.
        for second in 0..3_000 {
            completions.add(at(second * 10));
        }
        assert_eq!((completions.slices.len(), completions.lately(at(29_990))), (30, 30));
        completions.add(at(0));
        assert_eq!(completions.lately(at(29_990)), 30);
    }
}
