//! Whether what was read of a file or a directory still holds: one rule for all who do not read
//! again what has not changed.
//!
//! A change in the same tick of the file system's clock as the reading would not show. That clock
//! may be another machine's, an hour ahead or back, so it is compared with itself only: what was
//! read counts when it was read later than a tick, by our own clock, after its version was first
//! seen. What changes all the time is so read once more than it would have to be. Only who looks
//! afresh before relying on it may take both clocks for one ([`Freshness::glance`]).

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::Error;
use crate::error::{At as _, OrGone as _};

/// Longer than any tick of a file system's clock that has nanoseconds, also where the machine is a
/// guest that is not always given its processor.
const TICK: Duration = Duration::from_millis(50);
/// Longer than a tick of the kernel's own clock, for those who look afresh anyway.
const SHORT_TICK: Duration = Duration::from_millis(20);
/// The same for clocks that have whole seconds, or two.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// Which content of which file, or directory, a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds, by the file system's clock.
    changed: (i64, i64),
}

impl From<&Metadata> for Version {
    fn from(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            changed: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

impl Version {
    /// What a path names now. `None` where that is nothing.
    pub fn of(path: &Path) -> Result<Option<Self>, Error> {
        let meta = fs::metadata(path).at("look at", path).or_gone()?;
        Ok(meta.as_ref().map(Self::from))
    }

    /// Whether both are of one file, which may have changed between them.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// By the wall clock, as far as that is the file system's, too.
    fn seems_old(&self, now: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let (Ok(whole), Ok(part)) = (seconds.try_into(), nanoseconds.try_into()) else {
            return false;
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::new(whole, part);
        let tick = if nanoseconds == 0 { COARSE_TICK } else { SHORT_TICK };
        now.duration_since(changed).is_ok_and(|age| age > tick)
    }

    fn tick(&self) -> Duration {
        let (_seconds, nanoseconds) = self.changed;
        if nanoseconds == 0 { COARSE_TICK } else { TICK }
    }
}

/// What is known between looks of what a path names. To be kept together with what was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Freshness(Option<Seen>);

/// A version that was seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// `None`: there was nothing.
    version: Option<Version>,
    /// Since when it is known, by our own clock.
    since: Instant,
    /// Whether what was read before this look still holds.
    holds: bool,
    /// Whether what is read after this look will hold as long as the version stays.
    will_hold: bool,
}

impl Freshness {
    /// Nothing is known yet: whatever the path names must be read.
    pub const UNKNOWN: Self = Self(None);

    /// Looks. What this returns is kept when, unless [`Freshness::is_current`], the content was
    /// read after it.
    pub fn look(&self, path: &Path) -> Result<Self, Error> {
        Ok(self.next(Version::of(path)?, Instant::now()))
    }

    /// The same, where what is overlooked now is seen in time by a look afresh: what seems old by
    /// the wall clock is taken to be old.
    pub fn glance(&self, path: &Path) -> Result<Self, Error> {
        let version = Version::of(path)?;
        let next = self.next(version, Instant::now());
        let seems_old = version.is_some_and(|version| version.seems_old(SystemTime::now()));
        Ok(Self(next.0.map(|seen| Seen { will_hold: seen.will_hold || seems_old, ..seen })))
    }

    fn next(&self, version: Option<Version>, now: Instant) -> Self {
        let known = self.0.filter(|seen| seen.version == version);
        let since = known.map_or(now, |seen| seen.since);
        let holds = known.is_some_and(|seen| seen.will_hold);
        // Nothing cannot change without being something.
        let is_late = version.is_none_or(|version| now.duration_since(since) > version.tick());
        Self(Some(Seen { version, since, holds, will_hold: holds || is_late }))
    }

    /// Whether what was read before this look still holds.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.0.is_some_and(|seen| seen.holds)
    }

    /// Whether there was nothing at the last look: then there is nothing to read either.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.0.is_some_and(|seen| seen.version.is_none())
    }

    /// The same, where not all could be read: it is read again at the next look.
    #[must_use]
    pub fn unread(self) -> Self {
        Self(self.0.map(|seen| Seen { holds: false, will_hold: false, ..seen }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(seconds: i64, nanoseconds: i64) -> Option<Version> {
        Some(Version { device: 1, inode: 2, size: 3, changed: (seconds, nanoseconds) })
    }

    #[test]
    fn what_was_read_in_the_tick_of_a_change_does_not_hold_and_later_does() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let first = Freshness::UNKNOWN.next(version(7, 1), after(0));
        assert!(!first.is_current(), "nothing was read before");
        let soon = first.next(version(7, 1), after(5));
        assert!(!soon.is_current(), "another change in the same tick would not show");
        let late = soon.next(version(7, 1), after(60));
        assert!(!late.is_current(), "read in the tick, the last time");
        let next = late.next(version(7, 1), after(61));
        assert!(next.is_current(), "read after the tick");
        assert!(!late.unread().next(version(7, 1), after(61)).is_current(), "not all was read");
        assert!(!next.next(version(7, 2), after(90)).is_current(), "it changed");
    }

    #[test]
    fn what_seems_old_is_old_for_those_alone_who_look_afresh_anyway() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        file.as_file().set_modified(hour_ago).unwrap();
        let glanced = Freshness::UNKNOWN.glance(file.path()).unwrap();
        assert!(!glanced.is_current() && glanced.glance(file.path()).unwrap().is_current());
        let looked = Freshness::UNKNOWN.look(file.path()).unwrap();
        assert!(!looked.look(file.path()).unwrap().is_current());
        file.as_file().set_modified(SystemTime::now()).unwrap();
        assert!(!glanced.glance(file.path()).unwrap().is_current(), "it changed");
    }

    #[test]
    fn clocks_of_whole_seconds_are_given_more_time_and_nothing_needs_none() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let late = Freshness::UNKNOWN.next(version(7, 0), after(0)).next(version(7, 0), after(900));
        assert!(!late.next(version(7, 0), after(901)).is_current());
        let later = late.next(version(7, 0), after(2100));
        assert!(later.next(version(7, 0), after(2101)).is_current());
        let nothing = Freshness::UNKNOWN.next(None, after(0));
        assert!(nothing.is_absent() && nothing.next(None, after(1)).is_current());
        assert!(!nothing.next(version(7, 1), after(1)).is_absent());
    }
}
