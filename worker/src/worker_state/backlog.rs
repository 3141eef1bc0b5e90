//! What has ended and is not carried out yet, and how much of that there may be. Pure.

use std::time::Duration;

/// What may be lost with a death, all in all, without anybody minding: see [`Phase::Finished`].
const CHEAP: Duration = Duration::from_millis(20);
/// How many ends may wait to be recorded, however cheap.
const MOST_UNRECORDED: usize = 16;
/// How many ends that are recorded may wait to be carried out.
const MOST_RECORDED: usize = 64;

/// What waits, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    slots: usize,
    /// Ends that are not recorded.
    unrecorded: usize,
    /// What it costs to do them again.
    cost: Duration,
    /// Ends that are recorded and not carried out.
    recorded: usize,
    /// Ends that cannot be recorded now.
    stuck: usize,
}

impl Backlog {
    /// Of a worker with so many slots, from how far each of its jobs is.
    pub fn of(slots: usize, phases: impl Iterator<Item = Phase>) -> Self {
        let mut backlog = Self { slots, ..Self::default() };
        for phase in phases {
            match phase {
                Phase::Running => {}
                Phase::Finished { cost } => {
                    backlog.unrecorded += 1;
                    backlog.cost += cost;
                }
                Phase::Recorded => backlog.recorded += 1,
                Phase::Stuck => backlog.stuck += 1,
            }
        }
        backlog
    }

    /// Whether ends are recorded as fast as jobs end. What ended and is not recorded runs again if
    /// the worker dies: so beside one for each slot only so many may wait for that as cost next to
    /// nothing.
    #[must_use]
    pub fn keeps_up(&self) -> bool {
        let is_cheap = self.unrecorded < MOST_UNRECORDED && self.cost < CHEAP;
        let may_wait = self.unrecorded < self.slots || is_cheap;
        !self.is_stuck() && may_wait && self.recorded < MOST_RECORDED
    }

    /// Whether what ended should be recorded now, rather than with what ends next: while it is,
    /// as much again may end before anybody has to wait.
    #[must_use]
    pub fn is_worth_a_flush(&self) -> bool {
        let most = self.slots.max(MOST_UNRECORDED);
        self.unrecorded >= most / 2 || self.cost >= CHEAP / 2 || !self.keeps_up()
    }

    /// Whether nothing new may be begun before an end can be recorded again.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.stuck > 0
    }
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its job runs, or is about to.
    Running,
    /// Nothing of its job is left, so its slot is free; its end is being recorded.
    Finished {
        /// What it would cost to do it again, which somebody does if the worker dies now: the time
        /// that it took, and several times that for a job, which may have done more than answer.
        cost: Duration,
    },
    /// Its end cannot be recorded now: nothing new is begun before it is.
    Stuck,
    /// Its line is on the disk, and what the line says is being carried out.
    Recorded,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(2);

    /// With two slots.
    fn backlog(ended: &[Duration], recorded: usize) -> Backlog {
        let over = ended.iter().map(|cost| Phase::Finished { cost: *cost });
        Backlog::of(2, over.chain(std::iter::repeat_n(Phase::Recorded, recorded)))
    }

    #[test]
    fn so_much_may_wait_to_be_recorded_as_is_done_again_without_anybody_minding() {
        for (ended, recorded, keeps_up) in [
            (vec![], 0, true),
            (vec![LONG], 0, true),
            (vec![LONG, LONG], 0, false),
            (vec![SHORT; 9], 0, true),
            (vec![SHORT; 10], 0, false),
            (vec![Duration::ZERO; 15], 0, true),
            (vec![Duration::ZERO; 16], 0, false),
            // What is recorded is not done again.
            (vec![LONG], 63, true),
            (vec![], 64, false),
        ] {
            assert_eq!(backlog(&ended, recorded).keeps_up(), keeps_up, "{ended:?} and {recorded}");
        }
        let stuck = Backlog::of(2, [Phase::Running, Phase::Stuck].into_iter());
        assert!(stuck.is_stuck() && !stuck.keeps_up());
    }

    #[test]
    fn half_of_what_may_wait_is_worth_a_flush() {
        for (ended, is_worth) in [
            (vec![], false),
            (vec![LONG], true),
            (vec![SHORT; 4], false),
            (vec![SHORT; 5], true),
            (vec![Duration::ZERO; 7], false),
            (vec![Duration::ZERO; 8], true),
        ] {
            assert_eq!(backlog(&ended, 0).is_worth_a_flush(), is_worth, "{ended:?}");
        }
    }
}
