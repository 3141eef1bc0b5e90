//! History: one JSON line for every attempt that ended, complete with its task.
//!
//! Ending an attempt is: append the line, flush it, then carry out what it says. So after a crash
//! the line is there, with `next`, or the attempt has not ended. Each process writes files of its
//! own (`ledger/<UTC day>/<writer>.<incarnation>.<part>.jsonl`), so that two writers never share one.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shared::id::{Incarnation, TaskId};
use shared::llm::{Answer, Flaw, ModelVerb, Refused};
use shared::name::Name;
use shared::outcome::{Cause, Next, Outcome};
use shared::task::{Class, MAX_DEPTH, Task, TaskName, depth_of_text};
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
    /// What its server answered instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
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
            refused: None,
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

/// Why a line of a ledger file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It breaks off, or is blank, or holds zeros, which is how what did not reach the disk before
    /// the power went reads. Whoever wrote it wrote it again, or died before it was flushed: nothing
    /// is said by it, and what it was to say has not happened.
    Torn,
    /// It was a line, and cannot be understood, for this reason: what it says is unknown.
    Damaged(String),
}

/// Lines that were written before there was [`shared::task::MAX_DEPTH`] are nested so deep at most.
const DEEPEST: usize = 256;

/// Reads a line of a ledger file: a [`Line`], or a [`Brief`] of it.
pub fn read<T: DeserializeOwned>(line: &[u8]) -> Result<T, Unread> {
    let line = line.trim_ascii_end();
    serde_json::from_slice(line).or_else(|err| match depth_of_text(line) {
        _ if err.is_eof() || line.contains(&0) => Err(Unread::Torn),
        MAX_DEPTH..=DEEPEST => {
            let mut deep = serde_json::Deserializer::from_slice(line);
            deep.disable_recursion_limit();
            let value = T::deserialize(&mut deep).and_then(|value| deep.end().map(|()| value));
            value.map_err(|err| Unread::Damaged(err.to_string()))
        }
        _ => Err(Unread::Damaged(err.to_string())),
    })
}

/// How a line begins as long as nobody changes the order of its fields.
pub const HEAD: &[u8] = br#"{"schema":"brainstem.ledger/1","id":""#;

/// The id at the beginning of a line that need not be readable beyond it.
#[must_use]
pub fn id_in(line: &[u8]) -> Option<TaskId> {
    std::str::from_utf8(line.strip_prefix(HEAD)?.get(..36)?).ok()?.parse().ok()
}

/// The attempt that such a line is about.
#[must_use]
pub fn attempt_in(line: &[u8]) -> Option<u32> {
    let rest = line.strip_prefix(HEAD)?.get(36..)?.strip_prefix(br#"","attempt":"#)?;
    let end = rest.iter().position(|byte| *byte == b',')?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
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
    /// What the answer lacks.
    #[serde(default)]
    pub flaw: Option<Flaw>,
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
        self.next.ends_task().then_some(self.outcome)
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
