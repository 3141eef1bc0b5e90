//! History: one JSON line for every attempt that ended, complete with its task.
//!
//! Ending an attempt is: append the line, flush it, then carry out what it says. So after a crash
//! the line is there, with `next`, or the attempt has not ended. Each process writes files of its
//! own (`ledger/<UTC day>/<writer>.<incarnation>.<part>.jsonl`), so that two writers never share one.

use serde::{Deserialize, Serialize};
use shared::id::{Incarnation, TaskId};
use shared::llm::{Answer, ModelVerb};
use shared::name::Name;
use shared::outcome::{Cause, Next, Outcome};
use shared::task::{Class, Task, TaskName};
use shared::time::Moment;

use super::retry::{AttemptEnd, Verdict};

/// The schema that every line names.
pub const SCHEMA: &str = "brainstem.ledger/1";

/// One ended attempt. Whether the task has ended with it is not in `outcome`, but in `next`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the wire format, named as in `queue show --json`")]
pub struct Line {
    pub schema: String,
    pub id: TaskId,
    pub attempt: u32,
    pub outcome: Outcome,
    pub cause: Option<Cause>,
    pub next: Next,
    /// The task's file name from now on, without `.json`: the new counters.
    #[serde(with = "stem")]
    pub next_name: TaskName,
    pub worker: Option<Name>,
    pub gpu_uuid: Option<String>,
    pub started_at: Option<Moment>,
    pub ended_at: Moment,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub error_message: Option<String>,
    pub log_path: Option<String>,
    pub peak_vram_bytes: Option<u64>,
    pub diagnostics_path: Option<String>,
    /// Processes that outlived their job and were ended.
    #[serde(default)]
    pub leaked: u32,
    /// What a model answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// Who wrote the line, where it was not the worker that ran the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_by: Option<String>,
    pub task: Task,
}

mod stem {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use shared::task::TaskName;

    pub(super) fn serialize<S: Serializer>(
        name: &TaskName,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(name)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<TaskName, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Line {
    /// A line about the attempt `name` of `task`, with what follows from `verdict`.
    #[must_use]
    pub fn new(task: Task, name: TaskName, verdict: Verdict, end: AttemptEnd) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            id: name.id,
            attempt: name.attempt,
            outcome: verdict.outcome(),
            cause: verdict.cause(),
            next: end.next,
            next_name: end.next_name,
            worker: None,
            gpu_uuid: None,
            started_at: None,
            ended_at: end.at,
            exit_code: None,
            signal: None,
            error_message: None,
            log_path: None,
            peak_vram_bytes: None,
            diagnostics_path: None,
            leaked: 0,
            answer: None,
            written_by: None,
            task,
        }
    }

    /// The line as it stands in the file, with its newline.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("a line has only string keys");
        bytes.push(b'\n');
        bytes
    }
}

/// What is needed of a line to count it and to follow up on it: cheap to read.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "named as in `Line`")]
pub struct Brief {
    pub id: TaskId,
    pub attempt: u32,
    pub outcome: Outcome,
    pub cause: Option<Cause>,
    pub next: Next,
    #[serde(with = "stem")]
    pub next_name: TaskName,
    pub worker: Option<Name>,
    #[serde(default)]
    pub started_at: Option<Moment>,
    pub ended_at: Moment,
    #[serde(default)]
    pub answer: Option<Took>,
    pub task: About,
}

/// How long a model took to answer; what it answered is left unread.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Took {
    /// From the request to the end of the answer, in seconds.
    pub seconds: f64,
    /// How much of that the server loaded the model, in seconds.
    #[serde(default)]
    pub load_seconds: Option<f64>,
}

/// What is needed of a line's task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct About {
    /// Its class.
    #[serde(default)]
    pub class: Option<Class>,
    /// The model it asks, loads or unloads.
    #[serde(default)]
    pub model: Option<String>,
    /// What it does with that model, where it is a `resource` task.
    #[serde(default)]
    pub verb: Option<ModelVerb>,
}

impl Brief {
    /// Whether the task itself has ended with this attempt, and how.
    #[must_use]
    pub fn end_of_task(&self) -> Option<Outcome> {
        match self.next {
            Next::End | Next::Failed => Some(self.outcome),
            Next::Pending | Next::Delayed(_) => None,
        }
    }
}

/// Which process writes a ledger file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Writer {
    /// `worker-1`, `brain`, `queue`.
    pub name: Name,
    /// Which life of it.
    pub life: Incarnation,
}

impl Writer {
    /// A new life of `name`.
    #[must_use]
    pub fn new(name: Name) -> Self {
        Self { name, life: Incarnation::new() }
    }

    /// Whether a ledger file of this name was written by it.
    #[must_use]
    pub fn wrote(&self, file_name: &str) -> bool {
        let rest =
            file_name.strip_prefix(self.name.as_str()).and_then(|rest| rest.strip_prefix('.'));
        let rest = rest.and_then(|rest| rest.strip_prefix(self.life.as_str()));
        rest.is_some_and(|rest| rest.starts_with('.'))
    }
}
