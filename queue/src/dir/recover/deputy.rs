//! Who looks after the pool while there is no brain: one worker at a time, so that many cost no more
//! than one. Whose turn it was last touches the lock's file; the others look at that alone, and when
//! nobody has touched it for a while, the next one goes on.
//!
//! What a deputy does may be done twice (each step is one rename), so the lock saves work and
//! protects nothing: one that its holder, stopped or hung, does not give back stops nobody for ever.
//! A deputy that dies at any point leaves its lock free, and what it had not done to the next.

use std::time::{Duration, Instant};

use crate::Error;
use crate::dir::disk::freshness::Version;
use crate::dir::disk::lock::{Holder, Lock};
use crate::dir::layout::Layout;

/// Between two turns of a deputy, and between two looks of the others.
pub const PACE: Duration = Duration::from_millis(300);
/// The same while a brain is there.
pub const PACE_BESIDE_BRAIN: Duration = Duration::from_secs(1);
/// After so long without a turn of anybody the deputy is gone. More than a pace, or two would take
/// turns and know half each; less than a second, with a look.
const GONE: Duration = Duration::from_millis(550);
/// After so long a deputy that holds the lock is stopped or hung.
const HUNG: Duration = Duration::from_secs(60);

/// One worker that may become the deputy.
#[derive(Debug)]
pub struct Deputy {
    layout: Layout,
    last: Option<LastTurn>,
}

/// Whose turn it is now.
#[derive(Debug)]
pub enum Turn {
    /// There is a brain: it does all that.
    Brain,
    /// Another worker did it just now, or is at it.
    Another,
    /// Ours, for as long as this is held.
    Ours(Held),
}

/// Keeps others from doing the same beside us.
#[derive(Debug)]
pub struct Held {
    /// `None` where somebody holds it who is stopped or hung.
    _lock: Option<Lock>,
}

/// The last turn that anybody had, as far as this worker saw.
#[derive(Clone, Copy, Debug)]
struct LastTurn {
    by: By,
    /// Of the lock's file, as it was touched. `None`: nobody ever had a turn.
    touched: Option<Version>,
    /// Since when we know of it.
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Us,
    Another,
}

impl Deputy {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone(), last: None }
    }

    /// Looks whose turn it is; takes it where it is ours.
    ///
    /// # Errors
    /// When the lock's file or the brain's cannot be looked at, or not be touched.
    pub fn turn(&mut self) -> Result<Turn, Error> {
        let path = self.layout.deputy_lock();
        let (touched, now) = (Version::of(&path)?, Instant::now());
        let last = LastTurn::seen(self.last, touched, now);
        self.last = Some(last);
        if !last.is_over(now) {
            return Ok(Turn::Another);
        }
        if Lock::probe(&self.layout.brain_lock())? == Holder::Somebody {
            return Ok(Turn::Brain);
        }
        let lock = Lock::try_take(&path)?;
        match &lock {
            None if !last.is_hung(now) => return Ok(Turn::Another),
            None => {}
            Some(lock) => {
                lock.touch()?;
                let touched = Version::of(&path)?;
                self.last = Some(LastTurn { by: By::Us, touched, since: now });
            }
        }
        Ok(Turn::Ours(Held { _lock: lock }))
    }
}

impl LastTurn {
    /// What is known after a look.
    fn seen(known: Option<Self>, touched: Option<Version>, now: Instant) -> Self {
        match known {
            Some(known) if known.touched == touched => known,
            Some(_) | None => Self { by: By::Another, touched, since: now },
        }
    }

    /// Whether the next turn may be ours: who had the last one goes on.
    fn is_over(&self, now: Instant) -> bool {
        let is_gone = now.duration_since(self.since) >= GONE;
        self.by == By::Us || self.touched.is_none() || is_gone
    }

    /// Whether who holds the lock does not use it.
    fn is_hung(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= HUNG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ours(deputy: &mut Deputy) -> bool {
        matches!(deputy.turn().unwrap(), Turn::Ours(_))
    }

    /// As if the last turn had been so long ago.
    fn age(deputy: &mut Deputy, by: Duration) {
        let last = deputy.last.as_mut().unwrap();
        last.since = last.since.checked_sub(by).unwrap();
    }

    #[test]
    fn one_goes_on_as_long_as_it_lives_and_then_the_next_one_does() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path());
        let [mut one, mut two] = [Deputy::new(&layout), Deputy::new(&layout)];
        for _turn in 0..3 {
            assert!(is_ours(&mut one));
            assert!(!is_ours(&mut two), "one had a turn just now");
        }
        age(&mut two, GONE);
        assert!(is_ours(&mut two), "one is gone");
        assert!(!is_ours(&mut one), "it came back");
        assert!(is_ours(&mut two));
    }

    #[test]
    fn nobody_is_the_deputy_of_a_brain_that_lives_or_beside_one_who_is_at_it() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path());
        let [mut one, mut two] = [Deputy::new(&layout), Deputy::new(&layout)];
        let brain = Lock::try_take(&layout.brain_lock()).unwrap().unwrap();
        assert!(matches!(one.turn().unwrap(), Turn::Brain));
        drop(brain);
        let held = one.turn().unwrap();
        assert!(matches!(held, Turn::Ours(_)));
        assert!(!is_ours(&mut two));
        age(&mut two, GONE);
        assert!(!is_ours(&mut two), "it is at it");
        age(&mut two, HUNG);
        assert!(is_ours(&mut two), "it is stopped, or hung");
    }
}
