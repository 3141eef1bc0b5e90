//! Models that do not answer when they are asked for a sign of life: when each is asked again, and
//! whether the whole server stands still. Pure.
//!
//! A model that fails is that model's failure, and fails its canaries without harm to others; what
//! speaks against the server is silence, and only as long as nothing else on it answers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shared::llm::bare_name;
use shared::outcome::Cause;
use shared::time::Moment;

use super::Patience;
use super::now::Now;
use crate::server::Failure;

/// So many canaries in a row of one model must get no answer before its server is called wedged.
const STRIKES: u32 = 2;

/// The models that did not answer, by their one spelling.
#[derive(Debug)]
pub(super) struct Troubles {
    /// The pause after a canary that failed, or got no answer.
    pause: Duration,
    /// Failures double it up to this.
    longest: Duration,
    models: BTreeMap<String, Trouble>,
}

/// What is known of one of them.
#[derive(Clone, Debug)]
struct Trouble {
    /// Canaries in a row that went wrong.
    count: u32,
    /// Those of them that got no answer at all, since anything on the server answered.
    silences: u32,
    /// When the first one went wrong.
    since: Moment,
    /// When the last one did.
    last: Instant,
    /// When it may be asked again.
    again: Instant,
    error: String,
}

impl Troubles {
    pub(super) fn new(patience: Patience) -> Self {
        let Patience { poll, canary_interval, .. } = patience;
        Self { pause: poll, longest: canary_interval.max(poll), models: BTreeMap::new() }
    }

    fn get(&self, model: &str) -> Option<&Trouble> {
        self.models.get(bare_name(model))
    }

    /// A canary went wrong; how many in a row now.
    pub(super) fn met(&mut self, model: &str, failure: &Failure, now: Now) -> u32 {
        // An answer that came too late for somebody behind the server is an answer.
        let silent = failure.cause == Cause::Timeout && failure.refused.is_none();
        let trouble = self.models.entry(bare_name(model).to_owned()).or_insert_with(|| Trouble {
            count: 0,
            silences: 0,
            since: now.at,
            last: now.tick,
            again: now.tick,
            error: String::new(),
        });
        trouble.count = trouble.count.saturating_add(1);
        trouble.silences += u32::from(silent);
        // Silence has taken long enough, and costs nobody anything.
        let doublings = if silent { 0 } else { trouble.count.min(16) - 1 };
        let pause = self.pause.saturating_mul(1 << doublings).min(self.longest);
        (trouble.last, trouble.again) = (now.tick, now.tick + pause);
        trouble.error.clone_from(&failure.message);
        trouble.count
    }

    /// The model has answered: since when it had not. The server does not stand still.
    pub(super) fn answered(&mut self, model: &str) -> Option<Moment> {
        self.models.values_mut().for_each(|trouble| trouble.silences = 0);
        self.models.remove(bare_name(model)).map(|trouble| trouble.since)
    }

    /// The server does not hold it any more.
    pub(super) fn forget(&mut self, model: &str) {
        self.models.remove(bare_name(model));
    }

    /// The server is another one, or was not there.
    pub(super) fn clear(&mut self) {
        self.models.clear();
    }

    /// What went wrong last.
    pub(super) fn error(&self, model: &str) -> Option<String> {
        self.get(model).map(|trouble| trouble.error.clone())
    }

    /// Since when it may be asked again, where it is in trouble.
    pub(super) fn again(&self, model: &str) -> Option<Instant> {
        self.get(model).map(|trouble| trouble.again)
    }

    /// When a model last gave no answer; `None` where something has answered since.
    pub(super) fn last_silence(&self) -> Option<Instant> {
        let silent = self.models.values().filter(|trouble| trouble.silences > 0);
        silent.map(|trouble| trouble.last).max()
    }

    /// Whether all of these models are silent, and one of them has been for long enough.
    pub(super) fn are_all_silent<'a>(&self, models: impl Iterator<Item = &'a str>) -> bool {
        let silences = models.map(|model| self.get(model).map_or(0, |trouble| trouble.silences));
        let (least, most) = silences.fold((u32::MAX, 0), |(least, most), silences| {
            (least.min(silences), most.max(silences))
        });
        least > 0 && most >= STRIKES
    }

    /// When the next of these models may be asked again.
    pub(super) fn next<'a>(&self, models: impl Iterator<Item = &'a str>) -> Option<Instant> {
        models.filter_map(|model| self.again(model)).min()
    }
}
