//! A task: what a person asked for ([`Spec`]), made complete by its submitter ([`Task`]), and the
//! name of its file ([`TaskName`]), which carries all that ever changes about it.

mod ask;
mod bad_spec;
mod depth;
mod file_name;
mod line;
mod parse;
mod prompt;
mod spec;

use serde::{Deserialize, Serialize};

use crate::id::{BatchId, TaskId};
use crate::time::Moment;

pub use ask::{REQUEST_URLS, ROLES};
pub use bad_spec::BadSpec;
pub use depth::{MAX_DEPTH, depth_of, depth_of_text, too_deep};
pub use file_name::{BadTaskName, TaskName};
pub use line::parse_line;
pub use parse::parse_spec;
pub use prompt::{Message, Prompt};
pub use spec::{After, BrakeUse, On, Payload, Spec};

crate::outcome::words! {
    /// What a task needs from a worker.
    Class {
        /// No GPU: it takes a cpu slot, and its job sees no GPU.
        Cpu = "cpu",
        /// A GPU, and no model on it. The class of a command that names none.
        Script = "script",
        /// A model on a model server.
        Llm = "llm",
        /// Loads or unloads a model; made by the brain, addressed to one worker.
        Resource = "resource",
    }
}

/// What a task file holds. Never changes once submitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// The bulk submit it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<BatchId>,
    /// When it was submitted, by the submitter's clock.
    pub submitted_at: Moment,
    /// `user@host` of the submitter.
    pub submitted_by: String,
    /// Follows the request through every log line and into the job's environment.
    pub correlation_id: String,
    /// What was asked for, with all defaults filled in.
    #[serde(flatten)]
    pub spec: Spec,
}

/// Fields that only a task file has, beside those of a [`Spec`].
const RECORD_FIELDS: &[&str] =
    &["id", "batch_id", "submitted_at", "submitted_by", "correlation_id"];

impl Task {
    /// Reads a task file's content. The error names line and field.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadSpec> {
        parse::parse_fields(bytes, RECORD_FIELDS)
    }

    /// What stands in history for a task whose file cannot be understood: only its id is known.
    #[must_use]
    pub fn unreadable(id: TaskId) -> Self {
        let made = i64::try_from(id.unix_millis()).unwrap_or(0);
        Self {
            id,
            batch_id: None,
            submitted_at: Moment::from_unix_millis(made),
            submitted_by: "unknown".to_owned(),
            correlation_id: "unknown".to_owned(),
            spec: Spec { name: Some("unreadable task".to_owned()), ..Spec::default() },
        }
    }

    /// Whether it is such a one: it says nothing of what was to be done.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.spec.payload().is_err()
    }

    /// The schema that a newer program gave a task file that cannot be read here; `None` where it was
    /// not written by one. Tasks of this version name none: theirs is `brainstem.task/1`.
    #[must_use]
    pub fn newer_schema(bytes: &[u8]) -> Option<String> {
        #[derive(Deserialize)]
        struct Named {
            schema: String,
        }
        let Named { schema } = serde_json::from_slice(bytes).ok()?;
        let version: u32 = schema.strip_prefix("brainstem.task/")?.parse().ok()?;
        (version > 1).then_some(schema)
    }

    /// The task file's content: one JSON object and a newline.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("a task has only string keys");
        bytes.push(b'\n');
        bytes
    }

    /// Its class. Filled in when the task was submitted; a command needs a GPU by default.
    #[must_use]
    pub fn class(&self) -> Class {
        self.spec.class_or_default()
    }

    /// Its name, or what stands for one.
    #[must_use]
    pub fn name(&self) -> String {
        self.spec.name.clone().unwrap_or_else(|| self.spec.default_name())
    }

    /// Its priority: 0 to 10, higher first.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.spec.priority.unwrap_or(DEFAULT_PRIORITY)
    }
}

/// The priority of a task that names none.
pub const DEFAULT_PRIORITY: u8 = 5;
/// The highest priority; the lowest is 0.
pub const MAX_PRIORITY: u8 = 10;
/// The largest task file that is read.
pub const MAX_TASK_BYTES: u64 = 1 << 20;
