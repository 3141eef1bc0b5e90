//! Kinds of task that go wrong here and not elsewhere: when several in a row fail at once on this
//! worker, and others succeed with theirs, or several that have nothing to do with each other cannot
//! even be started, the fault is this worker's (a missing mount, a broken library). It leaves them to
//! others for growing pauses, and then tries one. Pure: time is given.

use std::time::{Duration, Instant};

use queue::wire::brake::BrakeKey;
use queue::wire::lane::Requirements;
use shared::id::TaskId;
use shared::outcome::Cause;

/// So many different tasks in a row are no accident.
const SEVERAL: usize = 3;
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(600);

/// All kinds with which something went wrong since the last time that it went well.
#[derive(Clone, Debug, Default)]
pub struct BackOffs {
    rows: Vec<Row>,
}

/// Failures in a row of tasks that need the same.
#[derive(Clone, Debug)]
struct Row {
    /// What they need, without limits.
    needs: Requirements,
    tasks: Vec<TaskId>,
    /// What they belong to.
    keys: Vec<BrakeKey>,
    /// All that was not a failed start.
    ran: usize,
    /// Whether others have succeeded with what failed here.
    goes_elsewhere: bool,
    /// The last pause; none yet.
    pause: Duration,
    /// When one may be tried.
    until: Option<Instant>,
}

/// An attempt that failed at once.
#[derive(Clone, Debug)]
pub struct FailedHere {
    /// What its task needs, without limits.
    pub needs: Requirements,
    /// The task.
    pub task: TaskId,
    /// What it belongs to.
    pub key: BrakeKey,
    /// Why.
    pub cause: Cause,
    /// Whether it is the first failure that is known of its batch, though there may have been some
    /// here: then somebody has succeeded since.
    pub is_first: bool,
}

impl BackOffs {
    /// Whether nothing went wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// One went wrong. How long nothing like it is taken now, where that begins.
    pub fn failed(&mut self, failed: FailedHere, now: Instant) -> Option<Duration> {
        let FailedHere { needs, task, key, cause, is_first } = failed;
        let index = self.rows.iter().position(|row| row.needs == needs).unwrap_or_else(|| {
            self.rows.push(Row::new(needs));
            self.rows.len() - 1
        });
        let row = self.rows.get_mut(index)?;
        row.goes_elsewhere |= is_first && row.keys.contains(&key);
        row.ran += usize::from(cause != Cause::SpawnFailed);
        if !row.keys.contains(&key) {
            row.keys.push(key);
        }
        if !row.tasks.contains(&task) {
            row.tasks.push(task);
        }
        let is_ours = row.goes_elsewhere || row.ran == 0 && row.keys.len() > 1;
        if row.tasks.len() < SEVERAL || !is_ours || row.is_shut(now) && row.is_pausing() {
            return None;
        }
        row.pause = (row.pause * 2).clamp(FIRST, LONGEST);
        row.until = Some(now + row.pause);
        Some(row.pause)
    }

    /// One went well, or at least for a while. Whether they were left to others before.
    pub fn went_well(&mut self, needs: &Requirements) -> bool {
        let known = self.rows.iter().position(|row| row.needs == *needs);
        known.is_some_and(|index| self.rows.swap_remove(index).is_pausing())
    }

    /// One is taken: where that is the one that is tried, the others wait for its end as long again.
    pub fn taken(&mut self, needs: &Requirements, now: Instant) {
        let row = self.rows.iter_mut().find(|row| row.needs == *needs && row.is_pausing());
        if let Some(row) = row {
            row.until = Some(now + row.pause);
        }
    }

    /// What is left to others now.
    #[must_use]
    pub fn shut(&self, now: Instant) -> Vec<Requirements> {
        let shut = self.rows.iter().filter(|row| row.is_shut(now));
        shut.map(|row| row.needs.clone()).collect()
    }

    /// When the next of them may be tried.
    #[must_use]
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let until = self.rows.iter().filter(|row| row.is_shut(now)).filter_map(|row| row.until);
        until.min().map(|until| until.saturating_duration_since(now))
    }
}

impl Row {
    fn new(needs: Requirements) -> Self {
        let (tasks, keys) = (Vec::new(), Vec::new());
        let pause = Duration::ZERO;
        Self { needs, tasks, keys, ran: 0, goes_elsewhere: false, pause, until: None }
    }

    fn is_pausing(&self) -> bool {
        !self.pause.is_zero()
    }

    fn is_shut(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::task::Class;

    fn needs(class: Class) -> Requirements {
        let (model, gpu_memory, worker, max_wait) = (None, None, None, None);
        Requirements { class, model, gpu_memory, limits: vec![], worker, max_wait }
    }

    fn failed(batch: &str, cause: Cause) -> FailedHere {
        let key = BrakeKey::of_limit(&format!("brake={batch}")).unwrap();
        let (needs, task) = (needs(Class::Cpu), TaskId::new());
        FailedHere { needs, task, key, cause, is_first: false }
    }

    #[test]
    fn a_batch_that_fails_everywhere_is_no_fault_of_the_worker() {
        let (mut back_offs, now) = (BackOffs::default(), Instant::now());
        for _task in 0..20 {
            assert_eq!(back_offs.failed(failed("a", Cause::SpawnFailed), now), None);
            assert_eq!(back_offs.failed(failed("a", Cause::ExitCode), now), None);
        }
        assert_eq!(back_offs.shut(now), []);
    }

    #[test]
    fn what_succeeds_elsewhere_is_left_to_others_for_growing_pauses() {
        let (mut back_offs, mut now) = (BackOffs::default(), Instant::now());
        let here = || failed("a", Cause::ExitCode);
        assert_eq!(back_offs.failed(here(), now), None);
        assert_eq!(back_offs.failed(FailedHere { is_first: true, ..here() }, now), None);
        for seconds in [5, 10, 20, 40, 80, 160, 320, 600, 600] {
            let pause = Duration::from_secs(seconds);
            assert_eq!(back_offs.failed(here(), now), Some(pause));
            assert_eq!(back_offs.failed(here(), now), None, "those beside it make it no longer");
            assert_eq!(back_offs.shut(now), [needs(Class::Cpu)]);
            assert_eq!(back_offs.left(now), Some(pause));
            now += pause;
            assert_eq!(back_offs.shut(now), []);
        }
        back_offs.taken(&needs(Class::Cpu), now);
        assert_eq!(back_offs.shut(now), [needs(Class::Cpu)], "one is tried");
        assert!(!back_offs.went_well(&needs(Class::Script)));
        assert!(back_offs.went_well(&needs(Class::Cpu)));
        assert!(back_offs.is_empty());
    }

    #[test]
    fn several_that_cannot_start_and_have_nothing_in_common_are_its_fault() {
        let (mut back_offs, now) = (BackOffs::default(), Instant::now());
        for batch in ["a", "b"] {
            assert_eq!(back_offs.failed(failed(batch, Cause::SpawnFailed), now), None);
        }
        assert!(back_offs.failed(failed("c", Cause::SpawnFailed), now).is_some());
    }
}
