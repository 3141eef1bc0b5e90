//! Lanes: all pending tasks with identical requirements. A worker may take either any task of a
//! lane or none, so that eligibility costs O(lanes), never O(tasks).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shared::name::Name;
use shared::quantity::{Bytes, Span};
use shared::task::{Class, Task};

/// A lane's name: its class and a hash of its requirements, so that the same requirements always
/// make the same lane, whoever writes it first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LaneName(Name);

impl LaneName {
    /// The name as text: the class, a dash and hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for LaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Not a lane's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not the name of a lane: a class, a dash and hex digits", .0.escape_default())]
pub struct BadLane(String);

impl FromStr for LaneName {
    type Err = BadLane;

    fn from_str(text: &str) -> Result<Self, BadLane> {
        let bad = || BadLane(text.to_owned());
        let (class, hash) = text.split_once('-').ok_or_else(bad)?;
        let hex = !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if class.parse::<Class>().is_err() || !hex {
            return Err(bad());
        }
        text.parse().map(Self).map_err(|_bad| bad())
    }
}

/// The fields of [`Requirements`], as a lane's file names them.
pub const FIELDS: [&str; 6] = ["class", "model", "gpu_memory", "limits", "worker", "max_wait"];

/// What every task of a lane needs. Content of `lanes/<lane>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    /// The class.
    pub class: Class,
    /// The model that must be loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How much GPU memory it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<Bytes>,
    /// The limits that count it, as `user=ann`; sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// The one worker that may take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Name>,
    /// How long its tasks may wait for their model, where they say so themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<Span>,
}

impl Requirements {
    /// What `task` needs, where `limits` are the keys that have a limit in this pool.
    #[must_use]
    pub fn of(task: &Task, limits: &[String]) -> Self {
        let spec = &task.spec;
        let user = spec.user.iter().map(|user| format!("user={user}"));
        let model = spec.model.iter().map(|model| format!("model={model}"));
        let labels = spec.labels.iter().flat_map(|(label, value)| {
            [format!("label={label}"), format!("label={label}:{value}")]
        });
        let mut counted: Vec<_> =
            user.chain(model).chain(labels).filter(|key| limits.contains(key)).collect();
        counted.sort();
        let class = task.class();
        let model = matches!(class, Class::Llm).then(|| spec.model.clone()).flatten();
        let max_wait = model.as_ref().and(spec.max_wait);
        let (gpu_memory, worker) = (spec.gpu_memory, spec.worker.clone());
        Self { class, model, gpu_memory, limits: counted, worker, max_wait }
    }

    /// What a worker must be for them: the same whatever limits count the task.
    #[must_use]
    pub fn without_limits(&self) -> Self {
        Self { limits: Vec::new(), ..self.clone() }
    }

    /// The lane of these requirements.
    #[must_use]
    pub fn lane(&self) -> LaneName {
        let hash = Sha256::digest(self.to_bytes());
        let hex: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{}-{hex}", self.class);
        LaneName(name.parse().expect("a class, a dash and hex digits are a name"))
    }

    /// The lane file's content.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("requirements have only string keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::id::TaskId;
    use shared::task::parse_spec;
    use shared::time::Moment;

    fn task(spec: &str) -> Task {
        Task {
            id: TaskId::new(),
            batch_id: None,
            submitted_at: Moment::now(),
            submitted_by: "ann@host".into(),
            correlation_id: "c".into(),
            spec: parse_spec(spec.as_bytes()).unwrap(),
        }
    }

    #[test]
    fn the_fields_are_those_of_a_lanes_file() {
        let all = r#"{"class": "llm", "model": "m", "gpu_memory": 1, "limits": ["a"], "worker": "w",
                      "max_wait": "1s"}"#;
        let all: Requirements = serde_json::from_str(all).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&all.to_bytes()).unwrap();
        let written = written.as_object().unwrap();
        assert!(written.len() == FIELDS.len() && FIELDS.iter().all(|f| written.contains_key(*f)));
    }

    #[test]
    fn equal_needs_share_a_lane_and_different_needs_do_not() {
        let lane = |spec| Requirements::of(&task(spec), &["user=ann".into()]).lane();
        let plain = lane(r#"{"shell": "a"}"#);
        assert_eq!(plain, lane(r#"{"shell": "b", "name": "other", "user": "bob"}"#));
        assert_ne!(plain, lane(r#"{"shell": "a", "gpu_memory": "8GiB"}"#));
        assert_ne!(plain, lane(r#"{"shell": "a", "user": "ann"}"#));
        assert_ne!(plain, lane(r#"{"shell": "a", "class": "cpu"}"#));
        assert!(plain.as_str().starts_with("script-"));
    }
}
