//! `pool.toml`, with the line of every key, so that an error can point at it.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::Value;
use toml::de::{DeTable, DeValue};

use super::{BadSettings, Origin};

/// A `pool.toml` that was read: its top-level keys with their lines.
pub(super) struct PoolToml {
    path: PathBuf,
    entries: Vec<Entry>,
}

struct Entry {
    name: String,
    line: usize,
    value: Value,
}

impl PoolToml {
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, BadSettings> {
        let bad = |at: usize, error: String| BadSettings::NotToml {
            path: path.to_owned(),
            line: line_of(text, at),
            error,
        };
        let table = DeTable::parse(text).map_err(|error| {
            bad(error.span().map_or(0, |span| span.start), error.message().to_owned())
        })?;
        let entries = table.into_inner().into_iter().map(|(name, value)| {
            let at = name.span().start;
            let value = plain(&value).map_err(|error| bad(at, error))?;
            Ok(Entry { name: name.into_inner().into_owned(), line: line_of(text, at), value })
        });
        Ok(Self { path: path.to_owned(), entries: entries.collect::<Result<_, _>>()? })
    }

    /// A key that is none of `known`, and where it stands.
    pub(super) fn unknown(&self, known: &[&str]) -> Option<(&str, Origin)> {
        let entry = self.entries.iter().find(|entry| !known.contains(&entry.name.as_str()))?;
        Some((&entry.name, self.origin(entry)))
    }

    pub(super) fn get(&self, name: &str) -> Option<(Value, Origin)> {
        let entry = self.entries.iter().find(|entry| entry.name == name)?;
        Some((entry.value.clone(), self.origin(entry)))
    }

    fn origin(&self, entry: &Entry) -> Origin {
        Origin::File(self.path.clone(), entry.line)
    }
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// The value without its spans.
fn plain(value: &Spanned<DeValue<'_>>) -> Result<Value, String> {
    use serde::Deserialize as _;
    use serde::de::IntoDeserializer as _;
    let deserializer = value.clone().into_deserializer();
    Value::deserialize(deserializer).map_err(|error: toml::de::Error| error.message().to_owned())
}
