//! Ages that survive a clock that is set: whoever writes something down says also what the
//! machine's own clock says, which only ever goes forward, and goes on while the machine sleeps.
//! Whoever reads it on the same machine, since the same start, compares that. From elsewhere there
//! is only the wall clock.

use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use shared::time::Moment;

use crate::fence;
use crate::wire::uptime::Uptime;

/// Now, by the machine's own clock.
#[must_use]
pub fn now() -> Uptime {
    Uptime { boot: this_boot().to_owned(), seconds: seconds() }
}

/// How many seconds ago something was written down, by the machine's clock where that is possible,
/// else by the wall clocks of both.
#[must_use]
pub fn age(written: Option<&Uptime>, at: Moment, now: Moment) -> f64 {
    let by_machine = written.and_then(|then| then.seconds_until(&self::now()));
    by_machine.unwrap_or_else(|| now.seconds_since(at))
}

fn seconds() -> f64 {
    let now = clock_gettime(ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default().as_secs_f64()
}

fn this_boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| fence::boot_id().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_counts_only_where_the_machines_own_does_not() {
        let (now, long_ago) = (Moment::now(), Moment::from_unix_millis(0));
        assert!(age(Some(&super::now()), long_ago, now) < 60.0, "the wall clock was set forward");
        let ahead = now.plus_millis(3_600_000);
        let earlier = Uptime { seconds: super::now().seconds - 90.0, ..super::now() };
        assert!(age(Some(&earlier), ahead, now) >= 90.0, "the wall clock was set back");
        let elsewhere = Uptime { boot: "another".into(), ..super::now() };
        let minute_ago = now.plus_millis(-60_000);
        for unknown in [Some(&elsewhere), None] {
            assert!((age(unknown, minute_ago, now) - 60.0).abs() < 0.001);
        }
    }
}
