//! Settings: a flag over the environment over `pool.toml` over the default, and for each value
//! the answer to where it came from.
//!
//! `table.rs` is the one list: from it come the struct, the reading, and what
//! `queue config --explain` prints. A setting that nothing reads does not belong there.

mod file;
mod kinds;
mod pool;
mod table;
mod variables;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::name::{nearest, suggest};
use crate::text;
use file::PoolToml;
use kinds::{Setting, Written};

pub use kinds::{BasePort, GroupPool, Limits, StallTimeouts};
pub use pool::{NoPoolDir, pool_dir};
pub use table::Settings;

/// A setting as given on the command line.
pub type Flags<'a> = BTreeMap<&'a str, String>;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// This environment variable.
    Environment(&'static str),
    /// This line of this file.
    File(PathBuf, usize),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(variable) => write!(f, "env {variable}"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One setting, for `queue config --explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its name in `pool.toml`.
    pub name: &'static str,
    /// Its value, for people.
    pub value: String,
    /// Its line there; a remark where it is not set.
    #[serde(skip)]
    pub line: String,
    /// Where that came from.
    pub origin: Origin,
    /// What it does, as the table of settings says it.
    pub about: &'static str,
}

/// A setting cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// `pool.toml` cannot be read.
    #[error("could not read {}: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// `pool.toml` is not TOML.
    #[error("{}:{line}: {error}", .path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// The line in it.
        line: usize,
        /// What is wrong there.
        error: String,
    },
    /// There is no such setting.
    #[error("{origin}: there is no setting `{}`{}", .name.escape_default(), suggest(*.nearest))]
    Unknown {
        /// Where it was set.
        origin: Origin,
        /// As it was written.
        name: String,
        /// What may have been meant.
        nearest: Option<&'static str>,
    },
    /// The value does not fit.
    #[error("{origin}: {name}: {error}")]
    BadValue {
        /// Where it was set.
        origin: Origin,
        /// The setting.
        name: String,
        /// What is wrong with it.
        error: String,
    },
}

/// A line of `pool.toml`.
fn line(name: &str, value: Option<toml::Value>) -> String {
    value.map_or_else(|| format!("# {name} is not set"), |value| format!("{name} = {value}"))
}

impl Settings {
    /// Reads the settings of the pool whose `pool.toml` is at `path` (it need not be there).
    /// `environment` looks up a variable; `flags` are by setting name.
    pub fn load(
        path: &Path,
        environment: impl Fn(&str) -> Option<String>,
        flags: &Flags<'_>,
    ) -> Result<Self, BadSettings> {
        let text = match std::fs::read(path) {
            Ok(bytes) => match text::of(&bytes) {
                Ok(text) => text.to_owned(),
                Err(problem) => {
                    let error = problem.of_file(&path.display().to_string());
                    return Err(BadSettings::Unreadable { path: path.to_owned(), error });
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                let error = error.to_string();
                return Err(BadSettings::Unreadable { path: path.to_owned(), error });
            }
        };
        Self::read(path, &text, environment, flags)
    }

    /// Like [`load`](Self::load) with the text of `pool.toml` at hand.
    pub fn read(
        path: &Path,
        text: &str,
        environment: impl Fn(&str) -> Option<String>,
        flags: &Flags<'_>,
    ) -> Result<Self, BadSettings> {
        let file = PoolToml::parse(path, text)?;
        if let Some((name, origin)) = file.unknown(Self::NAMES) {
            return Err(unknown(name, origin));
        }
        if let Some(name) = flags.keys().find(|name| !Self::NAMES.contains(name)) {
            return Err(unknown(name, Origin::Flag));
        }
        Self::gather(&Sources { file, environment: &environment, flags })
    }
}

fn unknown(name: &str, origin: Origin) -> BadSettings {
    let nearest = nearest(name, Settings::NAMES);
    BadSettings::Unknown { origin, name: name.to_owned(), nearest }
}

/// All places that a value may come from.
struct Sources<'a> {
    file: PoolToml,
    environment: &'a dyn Fn(&str) -> Option<String>,
    flags: &'a Flags<'a>,
}

impl Sources<'_> {
    /// The value of one setting and its origin: the first place that has it wins.
    fn find<T: Setting>(
        &self,
        name: &'static str,
        variables: &[&'static str],
        default: T,
    ) -> Result<(T, Origin), BadSettings> {
        let (written, origin) = if let Some(text) = self.flags.get(name) {
            (Written::Text(text.clone()), Origin::Flag)
        } else if let Some((text, variable)) = self.variable(variables) {
            (Written::Text(text), Origin::Environment(variable))
        } else if let Some((value, origin)) = self.file.get(name) {
            (Written::Toml(value), origin)
        } else {
            return Ok((default, Origin::Default));
        };
        match T::read(&written) {
            Ok(value) => Ok((value, origin)),
            Err(error) => Err(BadSettings::BadValue { origin, name: name.to_owned(), error }),
        }
    }

    /// The first of `variables` that is set. An empty one counts as not set.
    fn variable(&self, variables: &[&'static str]) -> Option<(String, &'static str)> {
        variables.iter().find_map(|variable| {
            let text = (self.environment)(variable)?;
            (!text.trim().is_empty()).then_some((text, *variable))
        })
    }
}

#[cfg(test)]
mod tests;
