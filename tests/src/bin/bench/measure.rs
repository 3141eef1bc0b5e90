//! Figures: medians, clocks, and rounds that take turns.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

/// The value so far up (0.5: the median). NaN where there is none.
pub(crate) fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index between none and the last"
    )]
    let index = ((sorted.len() as f64 * at) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Two things measured in turn.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) ours: f64,
    pub(crate) raw: f64,
    pub(crate) ratio: f64,
}

impl Pair {
    /// Medians of the rounds, and the median of their ratios.
    pub(crate) fn of(ours: &[f64], raw: &[f64]) -> Self {
        let ratios: Vec<f64> = ours.iter().zip(raw).map(|(ours, raw)| ours / raw).collect();
        Self { ours: median(ours), raw: median(raw), ratio: median(&ratios) }
    }

    /// Short rounds in turn; who begins changes with each.
    pub(crate) fn in_turn(
        rounds: usize,
        mut ours: impl FnMut() -> f64,
        mut raw: impl FnMut() -> f64,
    ) -> Self {
        let (mut our, mut their) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            if round % 2 == 0 {
                their.push(raw());
                our.push(ours());
            } else {
                our.push(ours());
                their.push(raw());
            }
        }
        Self::of(&our, &their)
    }
}

/// So many per second.
pub(crate) fn rate(count: usize, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let count = count as f64;
    count / took.as_secs_f64()
}

/// Measures a call.
pub(crate) fn timed(call: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    call();
    begun.elapsed()
}

/// Nanoseconds on a clock that all processes share.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds * 1_000_000_000 + nanos
}

/// How many processes want a core, as the kernel averages it over a minute.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// Lets time go by: what is measured is how others spend it.
pub(crate) fn pause(length: Duration) {
    let until = Instant::now() + length;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        let left = Timespec::try_from(left).expect("a short time fits");
        // Interrupted or not: the loop looks at the clock.
        let _ = poll(&mut [], Some(&left));
    }
}

/// Looks every millisecond until there is something; a minute at most.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let look =
        || look().map_or(ControlFlow::Continue(Duration::from_millis(1)), ControlFlow::Break);
    until_with(what, look)
}

/// The same, where each look says how long to wait for the next one.
pub(crate) fn until_with<T>(what: &str, mut look: impl FnMut() -> ControlFlow<T, Duration>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            ControlFlow::Break(seen) => return seen,
            ControlFlow::Continue(wait) => pause(wait),
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
    }
}
