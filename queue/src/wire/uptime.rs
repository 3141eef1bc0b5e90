//! When something was written down, by the clock of the machine.

use serde::{Deserialize, Serialize};

/// When something was written down, by the clock of the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Uptime {
    /// Which start of which machine.
    pub boot: String,
    /// Seconds since that start.
    pub seconds: f64,
}

impl Uptime {
    /// Seconds from then to `now`. `None` where it was on another machine, or before its last start.
    #[must_use]
    pub fn seconds_until(&self, now: &Self) -> Option<f64> {
        let same = !self.boot.is_empty() && self.boot == now.boot;
        same.then(|| (now.seconds - self.seconds).max(0.0))
    }
}
