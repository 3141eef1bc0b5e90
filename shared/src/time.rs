//! Wall-clock time as text: RFC 3339, UTC, exactly three decimals.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment on the wall clock. Written as `2026-02-07T20:45:30.123Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Timestamp);

impl Moment {
    /// Now, cut to milliseconds, so that what is written equals what is held.
    #[must_use]
    pub fn now() -> Self {
        Self::from_unix_millis(Timestamp::now().as_millisecond())
    }

    /// From milliseconds since 1970; what lies outside the calendar is held to its ends.
    #[must_use]
    pub fn from_unix_millis(millis: i64) -> Self {
        let end = if millis < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Self(Timestamp::from_millisecond(millis).unwrap_or(end))
    }

    /// Milliseconds since 1970, negative before.
    #[must_use]
    pub fn unix_millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub fn unix_seconds(self) -> i64 {
        self.0.as_second()
    }

    /// Seconds from `earlier` to this, never negative (clocks jump).
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        let millis = (self.unix_millis() - earlier.unix_millis()).max(0);
        #[expect(clippy::cast_precision_loss, reason = "ages of 285,000 years are exact")]
        let seconds = millis as f64 / 1000.0;
        seconds
    }

    /// This moment and so many milliseconds.
    #[must_use]
    pub fn plus_millis(self, millis: i64) -> Self {
        Self::from_unix_millis(self.unix_millis().saturating_add(millis))
    }

    /// The same moment as a [`jiff::Timestamp`], for sums with calendar units.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        self.0
    }

    /// The UTC day, as `2026-02-07`.
    #[must_use]
    pub fn day(self) -> String {
        day(self.0)
    }

    /// Local time for people: `2026-02-07 21:45:30.123`.
    #[must_use]
    pub fn local(self) -> String {
        let zone = jiff::tz::TimeZone::system();
        self.0.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
    }
}

/// The UTC day of a moment, as `2026-02-07`.
#[must_use]
pub fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{:.3}", self.0))
    }
}

impl std::str::FromStr for Moment {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        text.parse::<Timestamp>().map(|at| Self::from_unix_millis(at.as_millisecond()))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn always_three_decimals_and_z() {
        assert_eq!(Moment::from_unix_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
        let at: Moment = "2026-02-07T21:45:30.123456+01:00".parse().unwrap();
        assert_eq!(at.to_string(), "2026-02-07T20:45:30.123Z");
        assert_eq!(at.day(), "2026-02-07");
    }

    #[test]
    fn an_age_is_never_negative() {
        let (a, b) = (Moment::from_unix_millis(1_000), Moment::from_unix_millis(3_500));
        assert!((b.seconds_since(a) - 2.5).abs() < 1e-9);
        assert!(a.seconds_since(b).abs() < 1e-9);
    }
}
