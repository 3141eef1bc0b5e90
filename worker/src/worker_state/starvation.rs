//! Whether the machine gives what it takes to start a job: a thread, a process, a descriptor, room
//! for a log. Where it does not, nothing is claimed for a while, and each time for twice as long:
//! what is claimed and cannot be run here is kept from those who could run it.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// The pauses between tries. Over at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Starvation {
    /// The last pause; none since a job was started.
    pause: Duration,
    until: Option<Instant>,
}

impl Starvation {
    /// Something could not be had. How long nothing is claimed now; `None` where that was so
    /// already, as several threads may have tried at once.
    pub fn begin(&mut self, now: Instant) -> Option<Duration> {
        if self.left(now).is_some() {
            return None;
        }
        self.pause = (self.pause * 2).clamp(FIRST, LONGEST);
        self.until = Some(now + self.pause);
        Some(self.pause)
    }

    /// A job was started.
    pub fn end(&mut self) {
        *self = Self::default();
    }

    /// How much of the pause is left; `None` where it is over.
    #[must_use]
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Whether nothing could be started lately.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.pause.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pause_is_twice_as_long_until_a_job_is_started() {
        let (mut starvation, mut now) = (Starvation::default(), Instant::now());
        assert_eq!(starvation.left(now), None);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = Duration::from_secs(seconds);
            assert_eq!(starvation.begin(now), Some(pause));
            assert_eq!(starvation.begin(now), None, "it is one pause for all threads");
            assert_eq!(starvation.left(now), Some(pause));
            now += pause;
            assert_eq!(starvation.left(now), None);
        }
        assert!(starvation.is_known());
        starvation.end();
        assert!(!starvation.is_known());
        assert_eq!(starvation.begin(now), Some(FIRST));
    }
}
