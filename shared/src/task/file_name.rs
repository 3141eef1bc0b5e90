//! `<id>.a<attempt>f<failures>d<deaths>`: all that changes about a task, in its file's name.

use std::fmt;
use std::str::FromStr;

use crate::id::TaskId;

/// The stem of a task's file name: which task, and how often it was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskName {
    /// The task.
    pub id: TaskId,
    /// The attempt that comes next or is going on, from 1. Always grows; names log and ledger line.
    pub attempt: u32,
    /// Failures of its own so far; compared with `max_attempts`.
    pub failures: u32,
    /// Workers that died with it so far; compared with the poison guard.
    pub deaths: u32,
}

/// The last attempt that a name can tell.
const LAST: u32 = u32::MAX - 1;

/// Not a task's file name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not the name of a task file (`<id>.a<attempt>f<failures>d<deaths>.json`)", .0.escape_default())]
pub struct BadTaskName(String);

impl TaskName {
    /// A task that was never tried.
    #[must_use]
    pub const fn first(id: TaskId) -> Self {
        Self { id, attempt: 1, failures: 0, deaths: 0 }
    }

    /// The next attempt, with nothing counted against the task. Nobody ever gets to the last one;
    /// but a name may say so.
    #[must_use]
    pub const fn again(self) -> Self {
        let attempt = if self.attempt < LAST { self.attempt + 1 } else { LAST };
        Self { attempt, ..self }
    }

    /// The next attempt after a failure of its own.
    #[must_use]
    pub const fn failed(self) -> Self {
        Self { failures: self.failures + 1, ..self.again() }
    }

    /// The next attempt after its worker died.
    #[must_use]
    pub const fn died(self) -> Self {
        Self { deaths: self.deaths + 1, ..self.again() }
    }

    /// The next attempt when a person retries it: the slate is clean, the count goes on.
    #[must_use]
    pub const fn retried(self) -> Self {
        Self { failures: 0, deaths: 0, ..self.again() }
    }

    /// The file's name, with `.json`.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{self}.json")
    }

    /// Reads a file's name, with `.json`.
    pub fn from_file_name(text: &str) -> Result<Self, BadTaskName> {
        let bad = || BadTaskName(text.to_owned());
        let stem = text.strip_suffix(".json").ok_or_else(bad)?;
        stem.parse().map_err(|_bad_stem: BadTaskName| bad())
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.a{}f{}d{}", self.id, self.attempt, self.failures, self.deaths)
    }
}

impl FromStr for TaskName {
    type Err = BadTaskName;

    fn from_str(text: &str) -> Result<Self, BadTaskName> {
        parse(text).ok_or_else(|| BadTaskName(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<TaskName> {
    let (id, counters) = text.split_once('.')?;
    let (attempt, rest) = counters.strip_prefix('a')?.split_once('f')?;
    let (failures, deaths) = rest.split_once('d')?;
    let name = TaskName {
        id: id.parse().ok()?,
        attempt: attempt.parse().ok().filter(|n| (1..=LAST).contains(n))?,
        failures: failures.parse().ok()?,
        deaths: deaths.parse().ok()?,
    };
    // Each attempt is at most one failure or one death; counted upon, nothing can overflow.
    let counted = name.failures.checked_add(name.deaths)?;
    if counted > name.attempt {
        return None;
    }
    // One name has one spelling: `a01` or `+1` would be a second file of the same task.
    (name.to_string() == text).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_itself() {
        let first = TaskName::first(TaskId::new());
        for name in [first, first.again(), first.failed().died(), first.failed().retried()] {
            assert_eq!(TaskName::from_file_name(&name.file_name()), Ok(name));
        }
    }

    #[test]
    fn the_attempt_always_grows() {
        let name =
            TaskName { attempt: 3, failures: 1, deaths: 1, ..TaskName::first(TaskId::new()) };
        assert_eq!(
            (name.failed().attempt, name.failed().failures, name.failed().deaths),
            (4, 2, 1)
        );
        assert_eq!((name.died().attempt, name.died().failures, name.died().deaths), (4, 1, 2));
        assert_eq!(
            (name.retried().attempt, name.retried().failures, name.retried().deaths),
            (4, 0, 0)
        );
    }

    #[test]
    fn a_second_spelling_is_no_name() {
        let id = TaskId::new();
        for bad in ["a01f0d0", "a0f0d0", "a1f0", "a1f0d0x", "a+1f0d0", "a1f-1d0", "a4294967295f0d0"]
        {
            assert!(format!("{id}.{bad}").parse::<TaskName>().is_err(), "{bad}");
        }
        let last: TaskName = format!("{id}.a4294967294f0d0").parse().unwrap();
        assert_eq!(TaskName::from_file_name(&last.again().file_name()), Ok(last), "still a name");
        // 001-B22: a sidecar beside the task file is not a task.
        assert!(TaskName::from_file_name(&format!("{id}.heartbeat.json")).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            let _ = TaskName::from_file_name(&text);
        }
    }
}
