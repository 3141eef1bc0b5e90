//! Ages that survive a clock that is set: whoever writes something down says also what the
//! machine's own clock says, which only ever goes forward, and goes on while the machine sleeps.
//! Whoever reads it on the same machine, since the same start, compares that. From elsewhere there
//! is only the wall clock.

use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use shared::time::Moment;

use crate::dir::presence::lease::boot_id;

/// When something was written down, by the clock of the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Uptime {
    /// Which start of which machine.
    pub boot: String,
    /// Seconds since that start.
    pub seconds: f64,
}

impl Uptime {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { boot: this_boot().to_owned(), seconds: seconds() }
    }

    /// How long ago that was. `None` where it was on another machine, or before its last start.
    #[must_use]
    pub fn age(&self) -> Option<f64> {
        let here = !self.boot.is_empty() && self.boot == this_boot();
        here.then(|| (seconds() - self.seconds).max(0.0))
    }
}

/// How long ago something was written down, by the machine's clock where that is possible, else
/// by the wall clocks of both.
#[must_use]
pub fn of(uptime: Option<&Uptime>, at: Moment, now: Moment) -> f64 {
    uptime.and_then(Uptime::age).unwrap_or_else(|| now.seconds_since(at))
}

fn seconds() -> f64 {
    let now = clock_gettime(ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default().as_secs_f64()
}

fn this_boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(boot_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_counts_only_where_the_machines_own_does_not() {
        let (now, long_ago) = (Moment::now(), Moment::from_unix_millis(0));
        assert!(of(Some(&Uptime::now()), long_ago, now) < 60.0, "the wall clock was set forward");
        let ahead = now.plus_millis(3_600_000);
        let earlier = Uptime { seconds: Uptime::now().seconds - 90.0, ..Uptime::now() };
        assert!(of(Some(&earlier), ahead, now) >= 90.0, "the wall clock was set back");
        let elsewhere = Uptime { boot: "another".into(), ..Uptime::now() };
        let minute_ago = now.plus_millis(-60_000);
        for unknown in [Some(&elsewhere), None] {
            assert!((of(unknown, minute_ago, now) - 60.0).abs() < 0.001);
        }
    }
}
