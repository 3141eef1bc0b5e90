//! When something was seen.

use std::time::Duration;

use shared::time::Moment;

/// When something was seen: twice, because neither clock does for both purposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// On the brain's monotonic clock, from any fixed point; inside the core only the time counts
    /// during which somebody looked. Ages are counted on this.
    pub now: Duration,
    /// On the wall. For people.
    pub wall: Moment,
}
