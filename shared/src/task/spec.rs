//! What a person may ask for, and the reading of it: every error names the line and the field.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::bad_spec::BadSpec;
use super::prompt::{Message, Prompt};
use super::{Class, MAX_PRIORITY, depth};
use crate::llm::{ModelVerb, Request};
use crate::log_cap::LogCap;
use crate::quantity::{Bytes, Span};
use crate::time::Moment;

/// A line of `--batch`, and the inner part of a task file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are the wire format, described in README.md")]
pub struct Spec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall_timeout: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_cap: Option<LogCap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Whether many failures that are alike hold it back; by default as the setting says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brake: Option<BrakeUse>,
    /// Whether an answer that was cut, is empty or was filtered is a failure; by default as the
    /// setting says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete_only: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<After>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Moment>,
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Message>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<Span>,
    /// A request in OpenAI's words, as a line of a batch file in OpenAI's format has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// What the submitter calls it; comes back with the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_id: Option<String>,
    /// What a `resource` task does with its model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verb: Option<ModelVerb>,
    /// The one worker that may take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<crate::name::Name>,
}

/// The names of its fields, as they are written.
pub(super) const SPEC_FIELDS: &[&str] = &[
    "class",
    "name",
    "command",
    "shell",
    "cwd",
    "env",
    "priority",
    "timeout",
    "stall_timeout",
    "grace_period",
    "log_cap",
    "max_attempts",
    "brake",
    "complete_only",
    "after",
    "at",
    "in",
    "hold",
    "key",
    "labels",
    "user",
    "gpu_memory",
    "stdin",
    "image",
    "model",
    "prompt",
    "messages",
    "system",
    "options",
    "format",
    "max_wait",
    "request",
    "custom_id",
    "verb",
    "worker",
];

/// A task that another one waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum After {
    /// Its id or, within a batch, its name; it must succeed.
    Success(String),
    /// The same, with how it must end.
    Ended {
        /// Its id or, within a batch, its name.
        id: String,
        /// How it must end.
        on: On,
    },
}

impl After {
    /// Which task, as it was written.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Success(id) | Self::Ended { id, .. } => id,
        }
    }

    /// How that task must end.
    #[must_use]
    pub const fn on(&self) -> On {
        match self {
            Self::Success(_) => On::Success,
            Self::Ended { on, .. } => *on,
        }
    }
}

crate::outcome::words! {
    /// How a dependency must end before its dependent may run.
    On {
        /// It must succeed.
        Success = "success",
        /// It must fail for good or be cancelled.
        Failure = "failure",
        /// It must end for good, however that is.
        Any = "any",
    }
}

crate::outcome::words! {
    /// Whether many failures in a row that are alike hold back the rest.
    #[derive(Default)]
    BrakeUse {
        /// They do.
        #[default]
        On = "on",
        /// Each task is tried as often as it may be.
        Off = "off",
    }
}

/// What a task does, once it is known to do exactly one thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Payload<'a> {
    /// A program and its arguments; never empty.
    Command(&'a [String]),
    /// One line for `sh -c`.
    Shell(&'a str),
    /// A request to a model.
    Llm {
        /// Which model.
        model: &'a str,
        /// What to ask it.
        prompt: Prompt<'a>,
    },
    /// Made by the brain.
    Model {
        /// What to do.
        verb: ModelVerb,
        /// With which model.
        model: &'a str,
    },
}

impl Spec {
    /// What the task does. Exactly one thing, or an error that says what is missing or too much.
    pub fn payload(&self) -> Result<Payload<'_>, BadSpec> {
        let prompt = match (&self.prompt, &self.messages, &self.request) {
            (Some(text), None, None) => Some(Prompt::Text(text)),
            (None, Some(messages), None) => Some(Prompt::Messages(messages)),
            (None, None, Some(request)) => Some(Prompt::Request(request)),
            (None, None, None) => None,
            (Some(_), Some(_), _) => {
                return Err(BadSpec::field("messages", "give either `prompt` or `messages`"));
            }
            (_, _, Some(_)) => {
                return Err(BadSpec::field(
                    "request",
                    "says all; leave out `prompt` and `messages`",
                ));
            }
        };
        match (&self.command, &self.shell, prompt, &self.model) {
            (Some(command), None, None, _) if command.first().is_none_or(String::is_empty) => {
                Err(BadSpec::field("command", "is empty; give a program and its arguments"))
            }
            (Some(command), None, None, _) => Ok(Payload::Command(command)),
            (None, Some(line), None, _) if line.trim().is_empty() => {
                Err(BadSpec::field("shell", "is empty; give one line for `sh -c`"))
            }
            (None, Some(line), None, _) => Ok(Payload::Shell(line)),
            (None, None, Some(prompt), Some(model)) => Ok(Payload::Llm { model, prompt }),
            (None, None, Some(_), None) => Err(BadSpec::field("model", "a prompt needs a model")),
            (None, None, None, Some(model)) if self.class == Some(Class::Resource) => {
                let missing = || BadSpec::field("verb", "is missing; `load_llm` or `unload_llm`");
                Ok(Payload::Model { verb: self.verb.ok_or_else(missing)?, model })
            }
            (None, None, None, _) => {
                Err(BadSpec::field("command", "is missing; give `command`, `shell` or `prompt`"))
            }
            _ => Err(BadSpec::field("command", "give only one of `command`, `shell`, `prompt`")),
        }
    }

    /// Its class, or the one that follows from what it does.
    #[must_use]
    pub fn class_or_default(&self) -> Class {
        self.class.unwrap_or(if self.asks_a_model() { Class::Llm } else { Class::Script })
    }

    /// Whether it is a prompt, a conversation or a request.
    #[must_use]
    pub fn asks_a_model(&self) -> bool {
        self.prompt.is_some() || self.messages.is_some() || self.request.is_some()
    }

    /// The first words of the command or prompt.
    #[must_use]
    pub fn default_name(&self) -> String {
        let words = match (&self.command, &self.shell, &self.prompt) {
            (Some(command), ..) => {
                let program = command.first().map_or("", |program| {
                    program.rsplit('/').find(|part| !part.is_empty()).unwrap_or(program)
                });
                let rest = command.iter().skip(1).map(String::as_str);
                std::iter::once(program).chain(rest).collect::<Vec<_>>().join(" ")
            }
            (None, Some(text), _) | (None, None, Some(text)) => text.clone(),
            (None, None, None) => {
                let model = || self.model.clone().unwrap_or_default();
                self.asked_words().map_or_else(model, str::to_owned)
            }
        };
        shorten(&words, 40)
    }

    /// Whether all that it says can be meant.
    pub fn check(&self) -> Result<(), BadSpec> {
        let payload = self.payload()?;
        let class = self.class_or_default();
        let fits = match payload {
            Payload::Command(_) | Payload::Shell(_) => matches!(class, Class::Cpu | Class::Script),
            Payload::Llm { .. } => class == Class::Llm,
            Payload::Model { .. } => class == Class::Resource,
        };
        if !fits {
            return Err(BadSpec::field(
                "class",
                format!("`{class}` does not go with what the task does"),
            ));
        }
        self.check_asking(&payload)?;
        self.check_depth()?;
        self.check_texts()?;
        self.check_emptiness()?;
        if self.priority.is_some_and(|priority| priority > MAX_PRIORITY) {
            return Err(BadSpec::field("priority", "must be 0 to 10 (higher first)"));
        }
        if class == Class::Cpu && self.gpu_memory.is_some() {
            return Err(BadSpec::field("gpu_memory", "a cpu task has no GPU; class `script` has"));
        }
        if self.image.is_some() {
            return Err(BadSpec::field("image", "containers are not part of this version"));
        }
        let is_job = matches!(payload, Payload::Command(_) | Payload::Shell(_));
        if self.log_cap.is_some() && !is_job {
            return Err(BadSpec::field(
                "log_cap",
                "is for what jobs print; answers are kept whole",
            ));
        }
        if self.complete_only.is_some() && is_job {
            return Err(BadSpec::field("complete_only", "is for what models answer"));
        }
        if self.max_attempts == Some(0) {
            return Err(BadSpec::field("max_attempts", "must be at least 1"));
        }
        if self.at.is_some() && self.delay.is_some() {
            return Err(BadSpec::field("in", "give either `at` or `in`"));
        }
        Ok(())
    }

    /// What can be nested at all; the body of a request is looked at with the rest of it.
    fn check_depth(&self) -> Result<(), BadSpec> {
        const IN_A_TASK: usize = 1;
        if let Some(options) = &self.options {
            depth::check_fields("options", IN_A_TASK, options)?;
        }
        self.format.as_ref().map_or(Ok(()), |format| depth::check("format", IN_A_TASK, format))
    }

    /// What is empty was meant to be something: a variable that was not set, most often. Taken as
    /// it is, it would make all tasks one, or end each at once.
    fn check_emptiness(&self) -> Result<(), BadSpec> {
        for (field, text) in [("name", &self.name), ("key", &self.key), ("user", &self.user)] {
            if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
                return Err(BadSpec::field(field, "is empty; leave it out, or give one"));
            }
        }
        if self.labels.keys().any(|label| label.trim().is_empty()) {
            return Err(BadSpec::field("labels", "holds a label without a name"));
        }
        let limits = [("timeout", self.timeout), ("stall_timeout", self.stall_timeout)];
        for (field, limit) in limits {
            if limit.is_some_and(|limit| limit.0.is_zero()) {
                return Err(BadSpec::field(field, "must be longer than 0; leave it out for none"));
            }
        }
        Ok(())
    }

    /// What the kernel cannot carry is refused before it is asked to.
    fn check_texts(&self) -> Result<(), BadSpec> {
        let words = self.command.iter().flatten().chain(&self.shell);
        if words.into_iter().any(|word| word.contains('\0')) {
            return Err(BadSpec::field("command", "holds a NUL character"));
        }
        if self.cwd.as_ref().is_some_and(|cwd| cwd.contains('\0') || !cwd.starts_with('/')) {
            return Err(BadSpec::field("cwd", "must be an absolute path"));
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                let name = name.escape_default();
                return Err(BadSpec::field(
                    "env",
                    format!("`{name}` is not a variable that can be set"),
                ));
            }
            if name.starts_with("BRAINSTEM_") {
                return Err(BadSpec::field(
                    "env",
                    format!("`{name}`: BRAINSTEM_ names are the pool's own"),
                ));
            }
        }
        Ok(())
    }
}

fn shorten(text: &str, limit: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= limit {
        return line;
    }
    let cut: String = line.chars().take(limit - 1).collect();
    cut + "…"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::parse_spec;

    fn error(text: &str) -> String {
        parse_spec(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_command_is_a_script_by_default_and_named_by_its_words() {
        let spec = parse_spec(br#"{"command": ["/usr/bin/whisper", "talk.wav"]}"#).unwrap();
        assert_eq!(spec.class_or_default(), Class::Script);
        assert_eq!(spec.default_name(), "whisper talk.wav");
    }

    #[test]
    fn the_error_names_the_field_and_the_nearest_known_one() {
        assert_eq!(
            error(r#"{"command": ["a"], "pirority": 3}"#),
            "field `pirority`: there is no such field; did you mean `priority`?"
        );
        assert_eq!(
            error(r#"{"command": ["a"], "class": "cpu", "gpu_memory": "1GiB"}"#),
            "field `gpu_memory`: a cpu task has no GPU; class `script` has"
        );
        assert!(
            error(r#"{"command": ["a"], "timeout": "soon"}"#)
                .starts_with("field `timeout`: `soon` is not a duration")
        );
        assert!(error(r#"{"command": "a"}"#).starts_with("field `command`: "));
        assert!(error("{\"command\": [\"a\"],\n \"x").starts_with("line 2: not JSON"));
        assert_eq!(error("[]"), "not a JSON object");
    }

    #[test]
    fn a_task_does_exactly_one_thing() {
        assert!(error(r"{}").contains("is missing"));
        for empty in [r#"{"command": []}"#, r#"{"command": [""]}"#, r#"{"shell": " "}"#] {
            assert!(error(empty).contains("is empty"), "{empty}");
        }
        assert!(error(r#"{"shell": "a", "image": "b"}"#).contains("not part of this version"));
        assert!(error(r#"{"command": ["a"], "shell": "b"}"#).contains("only one of"));
        assert!(error(r#"{"prompt": "hi"}"#).contains("needs a model"));
        assert!(error(r#"{"command": ["a"], "class": "llm"}"#).contains("does not go with"));
        assert!(
            error(r#"{"prompt": "hi", "model": "m", "log_cap": "1MB"}"#).contains("kept whole")
        );
    }

    /// 001-B32: a limit of 0 is neither "at once" nor some default that nobody asked for.
    #[test]
    fn seed_001_b32_what_is_empty_or_nothing_is_refused_and_not_guessed_at() {
        for (field, value) in
            [("name", r#"" ""#), ("key", r#""""#), ("user", r#""""#), ("labels", r#"{"": "a"}"#)]
        {
            let problem = error(&format!(r#"{{"shell": "a", "{field}": {value}}}"#));
            assert!(problem.starts_with(&format!("field `{field}`: ")), "{problem}");
        }
        for field in ["timeout", "stall_timeout"] {
            let problem = error(&format!(r#"{{"shell": "a", "{field}": "0s"}}"#));
            assert_eq!(
                problem,
                format!("field `{field}`: must be longer than 0; leave it out for none")
            );
        }
    }

    #[test]
    fn what_the_kernel_cannot_carry_is_refused() {
        assert!(error(r#"{"command": ["a\u0000b"]}"#).contains("NUL"));
        assert!(error(r#"{"command": ["a"], "env": {"A=B": "c"}}"#).contains("env"));
        assert!(
            error(r#"{"command": ["a"], "env": {"BRAINSTEM_TASK_ID": "c"}}"#)
                .contains("pool's own")
        );
        assert!(error(r#"{"command": ["a"], "cwd": "here"}"#).contains("absolute"));
    }

    #[test]
    fn dependencies_come_in_two_spellings() {
        let spec =
            parse_spec(br#"{"shell": "x", "after": ["a", {"id": "b", "on": "any"}]}"#).unwrap();
        let read: Vec<_> = spec.after.iter().map(|after| (after.id(), after.on())).collect();
        assert_eq!(read, [("a", On::Success), ("b", On::Any)]);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse_spec(&bytes);
            let _ = crate::task::Task::parse(&bytes);
        }
    }
}
