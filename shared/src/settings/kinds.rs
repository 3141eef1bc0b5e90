//! The kinds of values that settings have: how each is read and how it is shown.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use toml::Value;

use crate::event::Level;
use crate::log_cap::{A_CAP, LogCap};
use crate::name::nearest;
use crate::quantity::{Bytes, Span};
use crate::task::{BrakeUse, Class};

/// A value as somebody wrote it.
pub(super) enum Written {
    /// In a flag or a variable.
    Text(String),
    /// In `pool.toml`.
    Toml(Value),
}

impl Written {
    /// As text where one word is enough: `30`, `"30s"` and `1.5` all do.
    fn word(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.trim().to_owned()),
            Self::Toml(Value::String(text)) => Some(text.trim().to_owned()),
            Self::Toml(Value::Integer(number)) => Some(number.to_string()),
            Self::Toml(Value::Float(number)) => Some(number.to_string()),
            Self::Toml(Value::Boolean(value)) => Some(value.to_string()),
            Self::Toml(Value::Datetime(_) | Value::Array(_) | Value::Table(_)) => None,
        }
    }

    /// As a table: `[limits]` in the file, `user=ann=2,user=bob=1` in a flag or a variable.
    fn pairs(&self) -> Result<Vec<(String, Written)>, String> {
        match self {
            Self::Toml(Value::Table(table)) => {
                let pairs = table.iter();
                Ok(pairs.map(|(key, value)| (key.clone(), Self::Toml(value.clone()))).collect())
            }
            Self::Text(text) => text
                .split(',')
                .filter(|pair| !pair.trim().is_empty())
                .map(|pair| match pair.trim().rsplit_once('=') {
                    Some((key, value)) => Ok((key.to_owned(), Self::Text(value.to_owned()))),
                    None => Err(format!("`{}` is not KEY=VALUE", pair.escape_default())),
                })
                .collect(),
            Self::Toml(_) => Err("expected a table".to_owned()),
        }
    }
}

/// A kind of value.
pub(super) trait Setting: Sized {
    fn read(written: &Written) -> Result<Self, String>;
    fn show(&self) -> String;
    /// As it is written in `pool.toml`; `None` where it is not set.
    fn toml(&self) -> Option<Value> {
        Some(Value::String(self.show()))
    }
}

fn word<T>(written: &Written, what: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, String> {
    let bad = |text: &str| format!("`{}` is not {what}", text.escape_default());
    let word = written.word().ok_or_else(|| format!("expected {what}"))?;
    read(&word).ok_or_else(|| bad(&word))
}

impl Setting for Span {
    fn read(written: &Written) -> Result<Self, String> {
        word(written, "a duration; write it as `90s` or `15m`", |text| text.parse().ok())
    }

    fn show(&self) -> String {
        exact(self, format!("{}s", self.0.as_secs_f64()))
    }
}

/// As people write it, or `plain` where that would round.
fn exact<T: ToString + FromStr + PartialEq>(value: &T, plain: String) -> String {
    let text = value.to_string();
    if text.parse().is_ok_and(|read: T| read == *value) { text } else { plain }
}

impl Setting for Bytes {
    fn read(written: &Written) -> Result<Self, String> {
        word(written, "a size; write it as `64MiB` or `100MB`", |text| text.parse().ok())
    }

    fn show(&self) -> String {
        let megabytes = self.0 / 1_000_000;
        let plain = if megabytes * 1_000_000 == self.0 {
            format!("{megabytes} MB")
        } else {
            self.0.to_string()
        };
        exact(self, plain)
    }
}

impl Setting for LogCap {
    fn read(written: &Written) -> Result<Self, String> {
        word(written, A_CAP, |text| text.parse().ok())
    }

    fn show(&self) -> String {
        match self {
            Self::None => self.to_string(),
            Self::At(bytes) => bytes.show(),
        }
    }
}

impl Setting for u32 {
    fn read(written: &Written) -> Result<Self, String> {
        word(written, "a whole number", |text| text.parse().ok())
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn toml(&self) -> Option<Value> {
        Some(Value::Integer(i64::from(*self)))
    }
}

/// A number that may be left open.
impl Setting for Option<u32> {
    fn read(written: &Written) -> Result<Self, String> {
        u32::read(written).map(Some)
    }

    fn show(&self) -> String {
        self.map_or_else(|| "not set".to_owned(), |number| number.to_string())
    }

    fn toml(&self) -> Option<Value> {
        self.as_ref().and_then(Setting::toml)
    }
}

/// A factor.
impl Setting for f64 {
    fn read(written: &Written) -> Result<Self, String> {
        let fits = |number: &f64| (0.0..=1_000.0).contains(number);
        word(written, "a number from 0 to 1000", |text| text.parse().ok().filter(fits))
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }

    fn toml(&self) -> Option<Value> {
        Some(Value::Float(*self))
    }
}

impl Setting for Level {
    fn read(written: &Written) -> Result<Self, String> {
        let what = "one of DEBUG, INFO, WARNING, ERROR, CRITICAL";
        word(written, what, |text| match text.to_ascii_uppercase().as_str() {
            "WARN" => Some(Self::Warning),
            upper => upper.parse().ok(),
        })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// The port of the model server beside GPU 0; that of GPU 1 is the next one, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BasePort {
    /// There are no such servers.
    Off,
    /// It is this one.
    From(u16),
}

impl BasePort {
    /// Beside those where people run an Ollama of their own.
    pub const DEFAULT: Self = Self::From(11436);

    /// The port of the server beside this GPU, or of one for no GPU; `None` where there is none.
    #[must_use]
    pub fn of(self, gpu: Option<u32>) -> Option<u16> {
        let Self::From(base) = self else { return None };
        base.checked_add(u16::try_from(gpu.unwrap_or(0)).ok()?)
    }
}

impl Setting for BasePort {
    fn read(written: &Written) -> Result<Self, String> {
        word(written, "a port, or `off`", |text| match text {
            "off" | "0" => Some(Self::Off),
            port => port.parse().ok().map(Self::From),
        })
    }

    fn show(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::From(port) => port.to_string(),
        }
    }

    fn toml(&self) -> Option<Value> {
        Some(match self {
            Self::Off => Value::String(self.show()),
            Self::From(port) => Value::Integer(i64::from(*port)),
        })
    }
}

/// A file that may be named.
impl Setting for Option<PathBuf> {
    fn read(written: &Written) -> Result<Self, String> {
        // What the file should hold may have been written here by mistake, and must not be shown.
        let path = written.word().map(PathBuf::from).filter(|path| path.is_absolute());
        let wrong = || "this is not a file's whole path, from `/` on".to_owned();
        path.map(Some).ok_or_else(wrong)
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "not set".to_owned(), |path| path.display().to_string())
    }

    fn toml(&self) -> Option<Value> {
        self.as_ref().map(|path| Value::String(path.display().to_string()))
    }
}

/// The name of an environment variable.
impl Setting for String {
    fn read(written: &Written) -> Result<Self, String> {
        let is_name = |text: &str| {
            let mut letters = text.chars();
            let is_big = |letter: char| letter == '_' || letter.is_ascii_uppercase();
            letters.next().is_some_and(is_big)
                && letters.all(|letter| is_big(letter) || letter.is_ascii_digit())
        };
        // What it should hold may have been written here by mistake, and must not be shown.
        let name = written.word().filter(|text| is_name(text));
        name.ok_or_else(|| "this is not the name of a variable, as in `MY_KEY`".to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

/// Whom a pool belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupPool {
    /// Its owner alone: 0700.
    Private,
    /// Its owner and the owner's group: 0770.
    Shared,
}

impl Setting for bool {
    fn read(written: &Written) -> Result<Self, String> {
        word(written, "true or false", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Some(true),
            "false" | "0" | "no" => Some(false),
            _ => None,
        })
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn toml(&self) -> Option<Value> {
        Some(Value::Boolean(*self))
    }
}

impl Setting for GroupPool {
    fn read(written: &Written) -> Result<Self, String> {
        let shared = bool::read(written)?;
        Ok(if shared { Self::Shared } else { Self::Private })
    }

    fn show(&self) -> String {
        matches!(self, Self::Shared).to_string()
    }

    fn toml(&self) -> Option<Value> {
        Some(Value::Boolean(matches!(self, Self::Shared)))
    }
}

impl Setting for BrakeUse {
    fn read(written: &Written) -> Result<Self, String> {
        word(written, "on or off", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Some(Self::On),
            "false" | "0" | "no" => Some(Self::Off),
            word => word.parse().ok(),
        })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// After how long without progress a job is ended, per class. A class that is not there: never.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StallTimeouts(pub BTreeMap<Class, Span>);

impl Setting for StallTimeouts {
    fn read(written: &Written) -> Result<Self, String> {
        let known: Vec<_> = Class::ALL.iter().map(|class| class.as_str()).collect();
        let mut all = BTreeMap::new();
        for (class, limit) in written.pairs()? {
            let unknown = || {
                let near = nearest(&class, &known);
                format!(
                    "there is no class `{}`{}",
                    class.escape_default(),
                    crate::name::suggest(near)
                )
            };
            let parsed: Class = class.parse().map_err(|_unknown| unknown())?;
            let limit = Span::read(&limit).map_err(|error| format!("{class}: {error}"))?;
            all.insert(parsed, limit);
        }
        Ok(Self(all))
    }

    fn show(&self) -> String {
        show_pairs(self.0.iter().map(|(class, limit)| format!("{class}={limit}")))
    }

    fn toml(&self) -> Option<Value> {
        let pairs = self.0.iter();
        let pairs = pairs.filter_map(|(class, limit)| Some((class.to_string(), limit.toml()?)));
        Some(Value::Table(pairs.collect()))
    }
}

/// How many may run at once, per key: `user=ann`, `model=qwen2.5:7b`, `label=room` (whatever its
/// value) or `label=room:1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits(pub BTreeMap<String, u32>);

impl Limits {
    /// Refuses a key that counts nothing.
    pub fn check_key(key: &str) -> Result<(), String> {
        let shown = key.escape_default();
        let parts = key.split_once('=').filter(|(kind, who)| !kind.is_empty() && !who.is_empty());
        let Some((kind, who)) = parts else {
            return Err(format!("`{shown}` is not a limit's key; write it as `user=ann`"));
        };
        let kinds = ["user", "model", "label"];
        if !kinds.contains(&kind) {
            let near = crate::name::suggest(nearest(kind, &kinds));
            return Err(format!("`{shown}`: a limit is per user, model or label{near}"));
        }
        match who.split_once(['=', ':']).filter(|_split| kind == "label") {
            Some((label, value)) if !who.contains(':') => {
                let (label, value) = (label.escape_default(), value.escape_default());
                Err(format!("`{shown}`: write a label's value as `label={label}:{value}`"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Setting for Limits {
    fn read(written: &Written) -> Result<Self, String> {
        let mut all = BTreeMap::new();
        for (key, limit) in written.pairs()? {
            Self::check_key(&key)?;
            let limit = u32::read(&limit).map_err(|error| format!("{key}: {error}"))?;
            all.insert(key, limit);
        }
        Ok(Self(all))
    }

    fn show(&self) -> String {
        show_pairs(self.0.iter().map(|(key, limit)| format!("{key}={limit}")))
    }

    fn toml(&self) -> Option<Value> {
        let pairs = self.0.iter();
        let pairs = pairs.filter_map(|(key, limit)| Some((key.clone(), limit.toml()?)));
        Some(Value::Table(pairs.collect()))
    }
}

fn show_pairs(pairs: impl Iterator<Item = String>) -> String {
    let pairs: Vec<_> = pairs.collect();
    if pairs.is_empty() { "none".to_owned() } else { pairs.join(",") }
}
