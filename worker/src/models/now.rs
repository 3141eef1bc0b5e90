//! A moment, by both clocks.

use std::time::Instant;

use shared::time::Moment;

/// A moment, for people and for measuring.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// By the wall clock.
    pub at: Moment,
    /// By the monotonic one.
    pub tick: Instant,
}

impl Now {
    /// Now, by both clocks.
    #[must_use]
    pub fn new() -> Self {
        Self { at: Moment::now(), tick: Instant::now() }
    }
}

impl Default for Now {
    fn default() -> Self {
        Self::new()
    }
}
