//! Names that become parts of paths: workers, limit keys, lanes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name that is safe as a file name: `[A-Za-z0-9._-]{1,64}`, not starting with a dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A text that cannot be a [`Name`]; the message shows it, escaped, and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is not a usable name: 1 to 64 of letters, digits, `.`, `_`, `-`, and no dot in front",
    .0.escape_default()
)]
pub struct BadName(String);

impl Name {
    /// The text, fit to be part of a path as it is.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The worker of a GPU, where nobody named it.
    #[must_use]
    pub fn gpu_worker(gpu: u32) -> Self {
        Self(format!("worker-{gpu}"))
    }

    /// The worker without a GPU on a machine, where nobody named it: `cpu-<host>`, with a dash for
    /// every letter that cannot be in a name.
    #[must_use]
    pub fn cpu_worker(host: &str) -> Self {
        let host = host.chars().map(|c| if allowed(c) { c } else { '-' });
        Self("cpu-".chars().chain(host).take(LONGEST).collect())
    }
}

const LONGEST: usize = 64;

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let good = (1..=LONGEST).contains(&text.len())
            && !text.starts_with('.')
            && text.chars().all(allowed);
        if good { Ok(Self(text.to_owned())) } else { Err(BadName(text.to_owned())) }
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The nearest of `known` to `given`, if one is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |name: &&str| strsim::damerau_levenshtein(given, name);
    let best = known.iter().copied().min_by_key(distance)?;
    (distance(&best) <= 1 + best.len() / 4).then_some(best)
}

/// Text for a terminal or one log line: control characters are shown, not sent.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// What may have been meant, as the end of a sentence.
pub(crate) fn suggest(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_nobody_named_have_usable_names() {
        assert_eq!(Name::gpu_worker(1).as_str(), "worker-1");
        assert_eq!(Name::cpu_worker("ann's mac").as_str(), "cpu-ann-s-mac");
        for name in [Name::cpu_worker(""), Name::cpu_worker(&"é".repeat(99)), Name::gpu_worker(9)]
        {
            assert_eq!(name.as_str().parse(), Ok(name));
        }
    }

    #[test]
    fn a_name_can_never_leave_its_directory() {
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ü", "a\n", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        for good in ["worker-1", "cpu-host.example", "A_b", &"x".repeat(64)] {
            assert!(good.parse::<Name>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_typing_error_finds_its_name_and_nonsense_finds_none() {
        assert_eq!(nearest("pirority", &["priority", "name"]), Some("priority"));
        assert_eq!(nearest("zzzzz", &["priority", "name"]), None);
    }
}
