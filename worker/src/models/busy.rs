//! Models that their server has no time for: asked for nothing for a while, which grows as long as
//! it says so. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shared::llm::{Busy, bare_name};
use shared::time::Moment;

use super::now::Now;
use crate::server::Failure;

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// No pause of ours grows beyond this.
const LONGEST: Duration = Duration::from_secs(60);
/// Nor is a server that names a longer one left alone for more than this.
const MOST: Duration = Duration::from_secs(300);
/// Who was busy so long ago begins with the first pause again.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// From the third pause on it is worth a line: by then no request was taken for 3 s or more.
const TOLD: u32 = 3;

/// The models, by their one spelling.
#[derive(Debug, Default)]
pub(super) struct BusyModels(BTreeMap<String, Pause>);

#[derive(Debug)]
struct Pause {
    /// Pauses in a row.
    count: u32,
    said: Busy,
    /// When it is over.
    end: Instant,
    standing: Standing,
}

/// Whether anything is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing is.
    Pausing,
    /// The next request tells.
    Over,
}

/// What a server that is busy brings about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Met {
    /// What began before the pause did.
    Known,
    /// A pause begins that nobody need hear of.
    Paused,
    /// One that is worth a line, of so many seconds.
    Told(f64),
}

impl BusyModels {
    /// The server had no time for a request.
    pub(super) fn met(&mut self, model: &str, failure: &Failure, now: Now) -> Met {
        let known =
            self.0.remove(bare_name(model)).filter(|pause| now.tick < pause.end + FORGOTTEN);
        let (count, since) = match known {
            Some(pause) if pause.standing == Standing::Pausing => {
                self.0.insert(bare_name(model).to_owned(), pause);
                return Met::Known;
            }
            Some(pause) => (pause.count.saturating_add(1), pause.said.since),
            None => (1, now.at),
        };
        let doubled = FIRST.saturating_mul(1 << (count.min(16) - 1)).min(LONGEST);
        let asked_for = failure.refused.as_ref().and_then(|refused| refused.retry_after_seconds);
        let length = asked_for.map_or(doubled, |seconds| {
            doubled.max(Duration::from_secs(seconds)).min(MOST.max(doubled))
        });
        let until = now.at.plus_millis(i64::try_from(length.as_millis()).unwrap_or(i64::MAX));
        let said = Busy { model: model.to_owned(), since, until, message: failure.message.clone() };
        let (end, standing) = (now.tick + length, Standing::Pausing);
        self.0.insert(bare_name(model).to_owned(), Pause { count, said, end, standing });
        if count >= TOLD { Met::Told(length.as_secs_f64()) } else { Met::Paused }
    }

    /// The model was served: since when it had not been, where that was told.
    pub(super) fn served(&mut self, model: &str) -> Option<Moment> {
        let pause = self.0.remove(bare_name(model))?;
        (pause.count >= TOLD).then_some(pause.said.since)
    }

    /// The server is another one, or was not there.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Ends the pauses that are over.
    pub(super) fn go_on(&mut self, now: Instant) {
        for pause in self.0.values_mut().filter(|pause| pause.end <= now) {
            pause.standing = Standing::Over;
        }
    }

    fn pausing(&self) -> impl Iterator<Item = &Pause> {
        self.0.values().filter(|pause| pause.standing == Standing::Pausing)
    }

    /// Whether it is asked for nothing now.
    pub(super) fn is_paused(&self, model: &str) -> bool {
        self.0.get(bare_name(model)).is_some_and(|pause| pause.standing == Standing::Pausing)
    }

    /// As the heartbeat says it.
    pub(super) fn list(&self) -> Vec<Busy> {
        self.pausing().map(|pause| pause.said.clone()).collect()
    }

    /// When the next pause is over.
    pub(super) fn next(&self) -> Option<Instant> {
        self.pausing().map(|pause| pause.end).min()
    }
}

#[cfg(test)]
mod tests {
    use shared::llm::Refused;
    use shared::outcome::Cause;

    use super::*;
    use crate::models::fixture::failure;
    use crate::server::Again;

    fn busy(retry_after_seconds: Option<u64>) -> Failure {
        let body = serde_json::Value::Null;
        let refused = Some(Box::new(Refused { status: 429, body, retry_after_seconds }));
        Failure { refused, ..failure(Cause::ServerError, Again::Later) }
    }

    #[test]
    fn pauses_grow_until_the_model_is_served_and_one_busy_moment_counts_once() {
        let (mut all, mut now) = (BusyModels::default(), Now::new());
        let mut pauses = Vec::new();
        for _time in 0..9 {
            let met = all.met("m", &busy(None), now);
            assert_eq!(met == Met::Paused, pauses.len() < 2, "{met:?}");
            assert_eq!(all.met("m:latest", &busy(None), now), Met::Known, "asked beside it");
            let end = all.next().unwrap();
            pauses.push((end - now.tick).as_secs());
            now.tick = end;
            assert!(all.is_paused("m") && all.list().len() == 1);
            all.go_on(now.tick);
            assert!(!all.is_paused("m") && all.list().is_empty() && all.next().is_none());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(all.served("m").is_some(), "that was told, and is over");
        assert_eq!(all.met("m", &busy(None), now), Met::Paused);
        assert_eq!(all.served("m"), None);
        all.met("m", &busy(None), now);
        now.tick += FORGOTTEN * 2;
        all.go_on(now.tick);
        all.met("m", &busy(None), now);
        assert_eq!(all.next(), Some(now.tick + FIRST), "long ago");
    }

    #[test]
    fn what_the_server_asks_for_is_kept_within_reason() {
        for (asked, pause) in [(None, 1), (Some(0), 1), (Some(20), 20), (Some(u64::MAX), 300)] {
            let (mut all, now) = (BusyModels::default(), Now::new());
            all.met("m", &busy(asked), now);
            assert_eq!(all.next(), Some(now.tick + Duration::from_secs(pause)), "{asked:?}");
        }
    }
}
