//! What the jobs of a storm do, and how each must end when nobody cancels it.

use fastrand::Rng;
use serde_json::{Value, json};

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Ends at once.
    Quick,
    /// Waits up to a second.
    Rests,
    /// Uses the processor.
    Works,
    /// Leaves processes behind, in its group and outside.
    Leaks,
    /// Runs beside such processes when it is ended.
    Haunted,
    /// Takes no notice of TERM.
    Deaf,
    /// Ends with exit code 3, at every attempt.
    Fails,
    /// Ends by a signal, at every attempt.
    Crashes,
    /// Is a command that there is not.
    Missing,
    /// Is not ready, twice.
    TriesLater,
    /// Outlives its time limit, and has one attempt.
    Late,
    /// Prints much.
    Talks,
}

const KINDS: &[(Kind, u32)] = &[
    (Kind::Quick, 40),
    (Kind::Rests, 22),
    (Kind::Works, 6),
    (Kind::Leaks, 4),
    (Kind::Haunted, 6),
    (Kind::Deaf, 2),
    (Kind::Fails, 5),
    (Kind::Crashes, 2),
    (Kind::Missing, 2),
    (Kind::TriesLater, 5),
    (Kind::Late, 2),
    (Kind::Talks, 4),
];

/// How a task must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Success,
    /// With this cause, so many times.
    Failure(&'static str, usize),
}

impl Kind {
    fn any(random: &mut Rng) -> Self {
        let mut left = random.u32(0..KINDS.iter().map(|(_kind, weight)| weight).sum());
        for (kind, weight) in KINDS {
            if left < *weight {
                return *kind;
            }
            left -= weight;
        }
        Self::Quick
    }

    pub(crate) const fn expected(self) -> Expected {
        match self {
            Self::Quick
            | Self::Rests
            | Self::Works
            | Self::Leaks
            | Self::Haunted
            | Self::Deaf
            | Self::TriesLater
            | Self::Talks => Expected::Success,
            Self::Fails => Expected::Failure("exit_code", 3),
            Self::Crashes => Expected::Failure("signal", 3),
            Self::Missing => Expected::Failure("spawn_failed", 3),
            Self::Late => Expected::Failure("timeout", 1),
        }
    }

    fn words(self, label: &str, random: &mut Rng) -> Vec<String> {
        let rest = format!("rest={:.3}", 0.02 + random.f64() * random.f64());
        let words: &[&str] = match self {
            Self::Quick => &[],
            Self::Rests => &[&rest],
            Self::Works => &["spin=0.03"],
            Self::Leaks => &["child", "daemon", "daemon=closed"],
            Self::Haunted => &["child", "daemon", "daemon=closed", "daemon=noenv", &rest],
            Self::Deaf => &["ignore-term", &rest],
            Self::Fails => &["exit=3"],
            Self::Crashes => &["signal=11"],
            Self::Missing => return vec!["no-such-program".to_owned()],
            Self::TriesLater => &[&format!("exit75-until=tries-{label}:2")],
            Self::Late => &["hang"],
            Self::Talks => &["bytes=100000"],
        };
        let all = ["fake-job", "alone=alone", "mark=marks"].iter().chain(words);
        all.map(|word| (*word).to_owned()).collect()
    }
}

/// One task, before it is submitted.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Finds it again, whatever its id is: a label, and its name.
    pub(crate) label: String,
    pub(crate) kind: Kind,
    pub(crate) spec: Value,
}

impl Order {
    /// `earlier` are tasks it may depend on, as an `after` takes them.
    pub(crate) fn any(label: String, earlier: &[String], random: &mut Rng) -> Self {
        let kind = Kind::any(random);
        let class = if random.u32(0..10) < 6 { "cpu" } else { "script" };
        let mut spec = json!({
            "class": class,
            "name": label,
            "labels": {"storm": label},
            "command": kind.words(&label, random),
            "priority": random.u8(0..=10),
        });
        if kind == Kind::Late {
            spec["timeout"] = "200ms".into();
            spec["max_attempts"] = 1.into();
        }
        if kind.expected() != Expected::Success {
            // They fail on purpose, all of them, and are not to wait for that to end.
            spec["brake"] = "off".into();
        }
        if kind == Kind::Deaf {
            spec["grace_period"] = "200ms".into();
        }
        if !earlier.is_empty() && random.u32(0..10) == 0 {
            let id = &earlier[random.usize(0..earlier.len())];
            let on = ["success", "any", "failure"][random.usize(0..3)];
            spec["after"] = json!([{"id": id, "on": on}]);
        }
        if random.u32(0..40) == 0 {
            spec["hold"] = true.into();
        }
        Self { label, kind, spec }
    }

    /// The same as words for `queue submit`.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec![format!("--label=storm={}", self.label)];
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        for (field, flag) in [
            ("class", "--class"),
            ("name", "--name"),
            ("priority", "--priority"),
            ("timeout", "--timeout"),
            ("grace_period", "--grace"),
            ("max_attempts", "--max-attempts"),
            ("brake", "--brake"),
        ] {
            if let Some(value) = self.spec.get(field) {
                words.push(format!("{flag}={}", text(value)));
            }
        }
        for after in self.spec["after"].as_array().into_iter().flatten() {
            words.push(format!("--after={}:{}", text(&after["id"]), text(&after["on"])));
        }
        if self.spec.get("hold").is_some() {
            words.push("--hold".to_owned());
        }
        words.push("--".to_owned());
        words.extend(self.spec["command"].as_array().into_iter().flatten().map(text));
        words
    }
}
