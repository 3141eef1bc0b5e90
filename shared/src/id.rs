//! One type per kind of id, so that a batch can never be passed for a task.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The text is not an id of the kind that was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct BadId {
    text: String,
    expected: &'static str,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new one, later in order than all that this process made before.
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The last 8 hex digits: what people see. (The first 8 are time and collide.)
            #[must_use]
            pub fn short(&self) -> String {
                let text = self.0.simple().to_string();
                text[24..].to_owned()
            }

            /// Milliseconds since 1970 at which the id was made, as the id says.
            #[must_use]
            pub fn unix_millis(&self) -> u64 {
                let bytes = self.0.as_bytes();
                bytes[..6].iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let bad = || BadId { text: text.to_owned(), expected: $expected };
                // Only the one form that is a file name: 36 characters, lower case.
                let uuid = Uuid::try_parse(text).map_err(|_not_a_uuid| bad())?;
                let same = uuid.hyphenated().to_string() == text;
                same.then_some(Self(uuid)).ok_or_else(bad)
            }
        }
    };
}

uuid_id!(
    /// A task, for its whole life and across attempts. A UUIDv7, so ids sort by time.
    TaskId,
    "a task id"
);
uuid_id!(
    /// A bulk submit, named by each of its tasks. A UUIDv7, so ids sort by time.
    BatchId,
    "a batch id"
);

impl TaskId {
    /// The first 9 hex digits: all tasks of the same 4.096 seconds share them.
    #[must_use]
    pub fn segment(&self) -> String {
        let text = self.0.simple().to_string();
        text[..9].to_owned()
    }

    /// The UTC day on which the id was made: no record of this task is older.
    #[must_use]
    pub fn day(&self) -> String {
        let millis = i64::try_from(self.unix_millis()).unwrap_or(i64::MAX);
        let made = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        crate::time::day(made)
    }
}

/// One life of one process: tells a restarted worker from the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(String);

impl Incarnation {
    /// A new one: 12 hex digits, the last ones of a UUIDv7.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7().simple().to_string()[20..].to_owned())
    }

    /// The 12 hex digits, as in log lines, heartbeats and lease files.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Incarnation {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A new correlation id: 12 hex digits that follow a request through every line.
#[must_use]
pub fn new_correlation_id() -> String {
    Uuid::now_v7().simple().to_string()[20..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_made_in_a_row_sort_in_that_order() {
        let ids: Vec<_> = (0..1000).map(|_| TaskId::new()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn only_the_form_that_is_a_file_name_is_read() {
        let id = TaskId::new();
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        assert!(text.to_uppercase().parse::<TaskId>().is_err());
        assert!(text.replace('-', "").parse::<TaskId>().is_err());
        assert!("".parse::<TaskId>().is_err());
    }

    #[test]
    fn the_short_form_is_the_end_and_the_segment_the_beginning() {
        let id: TaskId = "0194c3f2-aaaa-7bbb-8ccc-ddddeeeeffff".parse().unwrap();
        assert_eq!(id.short(), "eeeeffff");
        assert_eq!(id.segment(), "0194c3f2a");
        assert_eq!(id.unix_millis(), 0x0194_c3f2_aaaa);
    }
}
