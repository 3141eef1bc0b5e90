//! How long a run log may grow: `100MB`, or `none` where the output is what a person wants.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::quantity::Bytes;

/// How much of what a job prints is kept. In JSON a number of bytes, or `"none"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogCap {
    /// All of it.
    #[default]
    None,
    /// So much: of what is longer, the beginning and the end.
    At(Bytes),
}

/// What a cap looks like, for whoever wrote none.
pub const A_CAP: &str = "a size of at least 64 KiB, as in `100MB`, or `none`";

impl LogCap {
    /// The smallest: a file system gives back whole blocks only, and of less there would be no
    /// beginning and no end.
    pub const LEAST: Bytes = Bytes(64 << 10);

    /// The cap of a pool whose disk is so large: a tenth of it at most, so that one job's output
    /// never fills it.
    #[must_use]
    pub fn on_disk(self, size: Bytes) -> Self {
        match self {
            Self::None => Self::None,
            Self::At(cap) => Self::At(cap.min(Bytes(size.0 / 10)).max(Self::LEAST)),
        }
    }
}

impl fmt::Display for LogCap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::At(bytes) => bytes.fmt(f),
        }
    }
}

impl FromStr for LogCap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "none" {
            return Ok(Self::None);
        }
        let cap = text.parse().ok().filter(|cap| *cap >= Self::LEAST);
        cap.map(Self::At).ok_or_else(|| format!("`{}` is not {A_CAP}", text.escape_default()))
    }
}

impl Serialize for LogCap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::At(bytes) => bytes.serialize(serializer),
        }
    }
}

/// Text as a person writes it, or the bare number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(f64),
    Text(String),
}

impl<'de> Deserialize<'de> for LogCap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer);
        let text =
            match written.map_err(|_| serde::de::Error::custom(format!("expected {A_CAP}")))? {
                Written::Number(bytes) => bytes.to_string(),
                Written::Text(text) => text,
            };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_is_read_as_people_write_it_and_written_so_that_it_is_read_again() {
        for (text, cap) in [
            (r#""none""#, LogCap::None),
            (r#""100MB""#, LogCap::At(Bytes(100_000_000))),
            ("65536", LogCap::At(Bytes(65_536))),
        ] {
            let read: LogCap = serde_json::from_str(text).unwrap();
            assert_eq!(read, cap, "{text}");
            let again = serde_json::to_string(&read).unwrap();
            assert_eq!(serde_json::from_str::<LogCap>(&again).unwrap(), cap, "{again}");
        }
        for bad in ["0", "65535", r#""off""#, r#""-1""#, "true", "null"] {
            assert!(serde_json::from_str::<LogCap>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_log_takes_a_tenth_of_a_small_disk_at_most() {
        let (cap, on) = (LogCap::At(Bytes(100 << 20)), |size| LogCap::At(Bytes(size)));
        assert_eq!(cap.on_disk(Bytes(1 << 40)), cap);
        assert_eq!(cap.on_disk(Bytes(200 << 20)), on(20 << 20));
        assert_eq!(cap.on_disk(Bytes(1000)), on(LogCap::LEAST.0), "enough for both ends");
        assert_eq!(LogCap::None.on_disk(Bytes(1 << 20)), LogCap::None);
    }
}
