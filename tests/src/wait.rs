//! Waiting for things. The only pause of the harness is in here, and no test ever names its length.

use std::env;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};

/// How long anything may take that a test waits for: 30 s, or `$TEST_DEADLINE` seconds.
pub(crate) fn default_patience() -> Duration {
    let seconds = env::var("TEST_DEADLINE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(30.0))
}

/// Looks until there is something to see; nothing when patience ends first.
///
/// A look may cost a process or a walk through a tree, so the pause between two is as long as the
/// look was: waiting never takes more than half a core from what it waits for.
pub(crate) fn until<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        let start = Instant::now();
        if let Some(seen) = look() {
            return Some(seen);
        }
        if Instant::now() >= deadline {
            return None;
        }
        pause(start.elapsed().clamp(Duration::from_millis(2), Duration::from_millis(200)));
    }
}

fn pause(length: Duration) {
    let length = Timespec::try_from(length).expect("a fraction of a second fits");
    // An interrupted pause is a shorter one.
    let _ = poll(&mut [], Some(&length));
}
