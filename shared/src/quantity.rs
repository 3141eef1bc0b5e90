//! Durations (`90s`, `2h 30m`) and sizes (`16GiB`), as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time. Reads `90s`, `2h 30m`, `1.5m`, `250ms`, or a plain number of seconds;
/// in JSON it is a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// A number of bytes. Reads `16GiB`, `512MB`, `4096`; in JSON it is a number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// Not a duration, or not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not {expected}", .text.escape_default())]
pub struct BadQuantity {
    text: String,
    expected: &'static str,
}

const A_SPAN: &str = "a duration; write it as `90s`, `15m` or `2h 30m`";
const A_SIZE: &str = "a size; write it as `512MiB`, `8GiB` or `24GB`";
/// Longer is a typing error: 10,000 days.
const LONGEST: f64 = 864_000_000.0;

impl Span {
    /// So many whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// To the next whole second, for people; less than none is none.
    #[must_use]
    pub fn rounded(seconds: f64) -> Self {
        Self(Duration::try_from_secs_f64(seconds.max(0.0).round()).unwrap_or(Duration::MAX))
    }

    fn from_seconds(seconds: f64) -> Option<Self> {
        (0.0..=LONGEST).contains(&seconds).then(|| Self(Duration::from_secs_f64(seconds)))
    }
}

/// So many of something, as people say it: `1 task`, `2 tasks`.
#[must_use]
pub fn counted(number: impl fmt::Display, what: &str) -> String {
    let number = number.to_string();
    let ending = if number == "1" { "" } else { "s" };
    format!("{number} {what}{ending}")
}

/// Cuts `2h 30m` into `(2.0, "h")`, `(30.0, "m")`. `None` where it is not of that shape.
fn parts(text: &str) -> Option<Vec<(f64, &str)>> {
    let (mut rest, mut found) = (text.trim(), Vec::new());
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let tail = tail.trim_start();
        let end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        found.push((number.parse().ok()?, unit));
        rest = tail.trim_start();
    }
    (!found.is_empty()).then_some(found)
}

impl FromStr for Span {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let bad = || BadQuantity { text: text.to_owned(), expected: A_SPAN };
        let parts = parts(text).ok_or_else(bad)?;
        let mut seconds = 0.0;
        for (number, unit) in &parts {
            seconds += number
                * match *unit {
                    "ms" => 0.001,
                    "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
                    "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
                    "h" | "hour" | "hours" => 3_600.0,
                    "d" | "day" | "days" => 86_400.0,
                    "" if parts.len() == 1 => 1.0,
                    _ => return Err(bad()),
                };
        }
        Self::from_seconds(seconds).ok_or_else(bad)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let text = match (seconds, self.0.subsec_millis()) {
            (0, millis @ 1..) => format!("{millis}ms"),
            (0..60, 0) => format!("{seconds}s"),
            (0..60, millis) => format!("{}s", f64::from(millis) / 1000.0 + seconds as f64),
            (60..3_600, _) => two(seconds / 60, "m", seconds % 60, "s"),
            (3_600..86_400, _) => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
            (_, _) => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
        };
        f.pad(&text)
    }
}

fn two(big: u64, big_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 {
        format!("{big}{big_unit}")
    } else {
        format!("{big}{big_unit} {small}{small_unit}")
    }
}

impl FromStr for Bytes {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let bad = || BadQuantity { text: text.to_owned(), expected: A_SIZE };
        let parts = parts(text).ok_or_else(bad)?;
        let [(number, unit)] = parts[..] else { return Err(bad()) };
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(bad()),
        };
        #[expect(clippy::cast_precision_loss, reason = "the factors are exact")]
        let bytes = number * factor as f64;
        if bytes > 1e18 {
            return Err(bad());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked just above; `parts` reads no sign"
        )]
        Ok(Self(bytes.round() as u64))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        #[expect(clippy::cast_precision_loss, reason = "shown with two decimals at most")]
        let (mut amount, mut unit) = (self.0 as f64, 0);
        while amount >= 1024.0 && unit + 1 < UNITS.len() {
            amount /= 1024.0;
            unit += 1;
        }
        let digits = usize::from(unit > 0 && amount < 100.0 && amount.fract() > 0.05);
        f.pad(&format!("{amount:.digits$} {}", UNITS[unit]))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.subsec_nanos() == 0 {
            serializer.serialize_u64(self.0.as_secs())
        } else {
            serializer.serialize_f64(self.0.as_secs_f64())
        }
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

/// Text as a person writes it, or the bare number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(f64),
    Text(String),
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = || serde::de::Error::custom(format!("expected {A_SPAN}"));
        match Written::deserialize(deserializer).map_err(|_not_either| expected())? {
            Written::Number(seconds) => Self::from_seconds(seconds).ok_or_else(expected),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = || serde::de::Error::custom(format!("expected {A_SIZE}"));
        match Written::deserialize(deserializer).map_err(|_not_either| expected())? {
            Written::Number(bytes) => bytes.to_string().parse().map_err(|_bad| expected()),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("90s", 90_000),
            ("2h 30m", 9_000_000),
            ("2h30m", 9_000_000),
            ("1.5m", 90_000),
            ("250ms", 250),
            ("7", 7_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(text.parse::<Span>().map(|s| s.0.as_millis()), Ok(millis), "{text}");
        }
        for bad in ["", "soon", "5 parsecs", "1 2", "-3s", "1e9d", "99999999999d", "."] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_shown_short() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (9_000, "2h 30m"), (90_000, "1d 1h")]
        {
            assert_eq!(Span::seconds(seconds).to_string(), text);
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("8GiB", 8 << 30), ("1.5 GiB", 3 << 29), ("24GB", 24_000_000_000), ("4096", 4096)]
        {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for bad in ["", "big", "8GiB 2GiB", "-1", "9999999999TB"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
        assert_eq!(Bytes(3 << 29).to_string(), "1.5 GiB");
        assert_eq!(Bytes(512).to_string(), "512 B");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_them_panic(text in ".{0,40}") {
            let _ = text.parse::<Span>();
            let _ = text.parse::<Bytes>();
        }
    }
}
