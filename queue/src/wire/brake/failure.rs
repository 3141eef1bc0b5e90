//! A failure as a brake compares it, and which tasks are counted together.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::id::{BatchId, TaskId};
use shared::name::Name;
use shared::outcome::{Cause, Outcome};
use shared::task::{self, Class, Payload, Task};
use shared::time::Moment;

/// What ran for longer than this did something before it failed.
pub const AT_ONCE: Duration = Duration::from_secs(60);
/// So much of a job's last line is compared and told.
const LINE: usize = 200;

/// Which tasks are counted together: a limit's key that the pool makes, as `brake=<batch>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BrakeKey(String);

const PREFIX: &str = "brake=";

impl BrakeKey {
    /// That of a task; `None` where the task wants none, or is the pool's own.
    #[must_use]
    pub fn of(task: &Task) -> Option<Self> {
        if task.class() == Class::Resource || task.spec.brake == Some(task::BrakeUse::Off) {
            return None;
        }
        Some(Self(match task.batch_id {
            Some(batch) => format!("{PREFIX}{batch}"),
            None => format!("{PREFIX}{}:{}", task.submitted_by, program(task)?),
        }))
    }

    /// Reads a limit's key. `None` where that is a person's limit.
    #[must_use]
    pub fn of_limit(key: &str) -> Option<Self> {
        key.starts_with(PREFIX).then(|| Self(key.to_owned()))
    }

    /// What follows the prefix: a batch, or submitter and program.
    pub(super) fn whose(&self) -> &str {
        self.0.strip_prefix(PREFIX).unwrap_or(&self.0)
    }

    /// As a limit's key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What stands for tasks without a batch: a program's name, or a model's.
fn program(task: &Task) -> Option<String> {
    Some(match task.spec.payload().ok()? {
        Payload::Command(words) => words.first()?.clone(),
        Payload::Shell(line) => line.split_whitespace().next()?.to_owned(),
        Payload::Llm { model, .. } | Payload::Model { model, .. } => model.to_owned(),
    })
}

/// By what two failures are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The cause in the ledger.
    pub cause: Cause,
    /// The exit code, where there is one.
    pub exit_code: Option<i32>,
    /// The signal that ended it, where one did.
    pub signal: Option<i32>,
    /// The last line that it printed or, where it printed nothing, the error; without digits.
    pub line: String,
}

/// An attempt that failed at once.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedAtOnce {
    /// Which tasks it counts for.
    pub key: BrakeKey,
    /// Their batch.
    pub batch: Option<BatchId>,
    /// The task.
    pub task: TaskId,
    /// Who ran it.
    pub worker: Name,
    /// When it ended.
    pub at: Moment,
    /// How: compared.
    pub signature: Signature,
    /// How: told. The last line, with its digits.
    pub line: String,
}

impl Signature {
    /// Of an attempt with this last line.
    #[must_use]
    pub fn new(cause: Cause, exit_code: Option<i32>, signal: Option<i32>, line: &str) -> Self {
        let line = line.chars().filter(|c| !c.is_ascii_digit()).take(LINE).collect();
        Self { cause, exit_code, signal, line }
    }
}

/// Whether an attempt that ended so counts for the brake.
#[must_use]
pub fn counts(outcome: Outcome, cause: Option<Cause>, wall: Duration) -> bool {
    let cause = matches!(
        cause,
        Some(Cause::ExitCode | Cause::Signal | Cause::Oom | Cause::GpuError | Cause::SpawnFailed)
    );
    outcome == Outcome::Failed && cause && wall < AT_ONCE
}

/// The last line of an output that says something, as far as it is compared and told.
#[must_use]
pub fn last_line(output: &str) -> Option<String> {
    // A progress bar writes its line again and again behind carriage returns.
    let line = output.split(['\n', '\r']).map(str::trim).rfind(|line| !line.is_empty())?;
    Some(line.chars().take(LINE).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_fails_at_once_and_by_itself_counts() {
        let soon = Duration::from_secs(1);
        assert!(counts(Outcome::Failed, Some(Cause::Oom), soon));
        assert!(!counts(Outcome::Failed, Some(Cause::ExitCode), AT_ONCE));
        assert!(!counts(Outcome::Failed, Some(Cause::Timeout), soon));
        assert!(!counts(Outcome::Returned, Some(Cause::ExitCode), soon), "not ready is no failure");
        assert!(!counts(Outcome::Succeeded, None, soon));
    }

    #[test]
    fn the_last_line_is_the_last_that_says_something() {
        let said = last_line("loading\n 10%\r 20%\rCUDA out of memory\n\n  \n");
        assert_eq!(said.as_deref(), Some("CUDA out of memory"));
        assert_eq!(last_line(" \n"), None);
    }
}
