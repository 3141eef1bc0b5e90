//! When is a log to be looked at again? Often enough that it does not fill the disk meanwhile, and
//! seldom otherwise. Pure.

use std::time::Duration;

/// From a job's start to the first look: most have ended by then.
pub const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(20);

/// What a log did since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Bytes printed.
    pub bytes: u64,
    /// In what time.
    pub within: Duration,
}

impl Growth {
    /// Bytes a second.
    #[must_use]
    pub fn pace(self) -> u64 {
        let millis = self.within.as_millis().max(1);
        u64::try_from(u128::from(self.bytes) * 1000 / millis).unwrap_or(u64::MAX)
    }

    /// How long to wait for the next look, where so many bytes are free: before half of that is
    /// used up.
    #[must_use]
    pub fn until_next_look(self, free: u64) -> Duration {
        let seconds = match self.pace() {
            0 => return LONGEST,
            pace => free / 2 / pace,
        };
        let part = (free / 2 % self.pace()).saturating_mul(1000) / self.pace();
        let wait = Duration::from_secs(seconds.min(1)) + Duration::from_millis(part);
        wait.clamp(SHORTEST, LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_looked_at_before_it_can_fill_half_of_what_is_free() {
        let growth = |bytes, millis| Growth { bytes, within: Duration::from_millis(millis) };
        for (growth, free, millis) in [
            (growth(0, 1000), 1000, 1000),
            (growth(1000, 1000), 1 << 40, 1000),
            (growth(100, 1000), 100, 500),
            (growth(300, 100), 900, 150),
            (growth(1 << 30, 100), 1 << 20, 20),
            (growth(1 << 30, 0), 0, 20),
            (growth(u64::MAX, 1), u64::MAX, 20),
        ] {
            let wait = growth.until_next_look(free);
            assert_eq!(wait, Duration::from_millis(millis), "{growth:?} with {free} free");
        }
    }
}
