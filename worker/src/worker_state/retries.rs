//! Tasks that failed here and are tried again. Pure: time is given.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use queue::wire::lane::Requirements;
use shared::id::TaskId;

/// So long others have the first chance, from when the task may be claimed again; and a moment for
/// whoever releases it.
const FIRST_CHANCE: Duration = Duration::from_secs(5);
/// More are not remembered: who fails so much has other troubles.
const MOST: usize = 64;

/// Tasks that failed here and are tried again, the last ones.
#[derive(Clone, Debug, Default)]
pub struct Retries {
    known: VecDeque<Retry>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Retry {
    /// The task.
    pub task: TaskId,
    /// What it needs.
    pub needs: Requirements,
    /// From when on it may be claimed again.
    pub due: Instant,
}

impl Retries {
    /// One failed. Those that only this worker may take are not remembered.
    pub fn add(&mut self, retry: Retry) {
        if retry.needs.worker.is_some() {
            return;
        }
        self.known.retain(|known| known.task != retry.task);
        if self.known.len() >= MOST {
            self.known.pop_front();
        }
        self.known.push_back(retry);
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Those that others should have first now.
    #[must_use]
    pub fn due(&self, now: Instant) -> Vec<Retry> {
        self.known.iter().filter(|retry| retry.is_due(now)).cloned().collect()
    }

    /// Forgets those whose time is over; whether there were any.
    pub fn forget(&mut self, now: Instant) -> bool {
        let before = self.known.len();
        self.known.retain(|retry| now < retry.due + FIRST_CHANCE);
        self.known.len() < before
    }

    /// When the next one is nobody's any more.
    #[must_use]
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let ends = self.known.iter().map(|retry| retry.due + FIRST_CHANCE);
        ends.min().map(|end| end.saturating_duration_since(now))
    }
}

impl Retry {
    fn is_due(&self, now: Instant) -> bool {
        // Who releases it may be a little early by our clock.
        now + Duration::from_secs(1) >= self.due && now < self.due + FIRST_CHANCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::task::Class;

    fn retry(due: Instant, worker: Option<&str>) -> Retry {
        let worker = worker.map(|name| name.parse().unwrap());
        let (class, limits) = (Class::Cpu, Vec::new());
        let needs =
            Requirements { class, model: None, gpu_memory: None, limits, worker, max_wait: None };
        Retry { task: TaskId::new(), needs, due }
    }

    #[test]
    fn others_have_the_first_chance_for_five_seconds() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        retries.add(retry(at(10), None));
        retries.add(retry(at(10), Some("me")));
        assert_eq!(retries.due(at(8)).len(), 0);
        assert_eq!(retries.due(at(10)).len(), 1, "what is addressed is nobody else's");
        assert_eq!(retries.left(at(10)), Some(FIRST_CHANCE));
        assert_eq!(retries.due(at(15)).len(), 0);
        assert!(!retries.forget(at(14)));
        assert!(retries.forget(at(15)) && retries.is_empty());
    }

    #[test]
    fn only_the_last_ones_are_remembered() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        (0..3 * MOST).for_each(|_task| retries.add(retry(now, None)));
        assert_eq!(retries.due(now).len(), MOST);
    }
}
