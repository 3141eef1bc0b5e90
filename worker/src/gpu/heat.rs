//! Whether the worker's GPU is too hot to be given more, with a gap between *too hot* and *cool
//! again*, so that it does not swing around one degree. A temperature that is not known is none.

use queue::wire::heartbeat::gpu_state::{Heat, HeatLimit};
use shared::gpu::Reading;
use shared::settings::Settings;
use shared::time::Moment;

/// In degrees Celsius.
#[derive(Clone, Copy, Debug)]
pub struct HeatRules {
    /// From here on nothing new is begun.
    pub soft: u32,
    /// From here on somebody has to look after it.
    pub hard: u32,
    /// So far below a limit it counts as no longer reached.
    pub below: u32,
}

impl HeatRules {
    /// As the settings say.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let (soft, hard) = (settings.gpu_soft_limit, settings.gpu_hard_limit);
        Self { soft, hard, below: settings.gpu_resume_below }
    }
}

/// Which limit the GPU has reached, and since when.
#[derive(Clone, Debug)]
pub struct HeatWatch {
    rules: HeatRules,
    /// `None`: it is cool enough.
    hot: Option<Heat>,
}

impl HeatWatch {
    /// Nothing measured yet.
    #[must_use]
    pub fn new(rules: HeatRules) -> Self {
        Self { rules, hot: None }
    }

    /// Takes in what was measured; what follows.
    pub fn see(&mut self, wall: Moment, celsius: Reading<u32>) -> Option<&Heat> {
        let before = self.hot.take();
        let limit = celsius.known().and_then(|celsius| {
            let limit = self.limit(celsius, before.as_ref().map(|heat| heat.limit))?;
            Some((limit, celsius))
        });
        self.hot = limit.map(|(limit, celsius)| {
            let resume = self.rules.soft.saturating_sub(self.rules.below);
            let since = before.map_or(wall, |heat| heat.since);
            Heat { limit, celsius, resume, since }
        });
        self.hot.as_ref()
    }

    fn limit(&self, celsius: u32, before: Option<HeatLimit>) -> Option<HeatLimit> {
        let HeatRules { soft, hard, below } = self.rules;
        let holds =
            |at: u32, held: bool| celsius >= at || held && celsius > at.saturating_sub(below);
        if holds(hard, before == Some(HeatLimit::Hard)) {
            Some(HeatLimit::Hard)
        } else {
            holds(soft, before.is_some()).then_some(HeatLimit::Soft)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hot_gpu_gets_nothing_new_until_it_has_cooled_down() {
        let mut watch = HeatWatch::new(HeatRules { soft: 80, hard: 90, below: 4 });
        let (soft, hard) = (Some(HeatLimit::Soft), Some(HeatLimit::Hard));
        for (celsius, limit) in [
            (79, None),
            (80, soft),
            (77, soft),
            (90, hard),
            (87, hard),
            (86, soft),
            (76, None),
            (79, None),
            (95, hard),
            (60, None),
        ] {
            let heat = watch.see(Moment::from_unix_millis(0), Reading::Known(celsius));
            assert_eq!(heat.map(|heat| heat.limit), limit, "at {celsius}");
        }
    }

    #[test]
    fn a_temperature_that_is_not_known_never_counts() {
        let mut watch = HeatWatch::new(HeatRules { soft: 80, hard: 90, below: 4 });
        for unknown in [Reading::Failed, Reading::Unsupported] {
            assert_eq!(watch.see(Moment::from_unix_millis(0), unknown), None);
            assert!(watch.see(Moment::from_unix_millis(0), Reading::Known(85)).is_some());
            assert_eq!(watch.see(Moment::from_unix_millis(0), unknown), None);
        }
    }

    #[test]
    fn since_when_it_is_hot_does_not_change_with_the_degrees() {
        let mut watch = HeatWatch::new(HeatRules { soft: 80, hard: 90, below: 4 });
        let mut see = |second: i64, celsius| {
            let wall = Moment::from_unix_millis(second * 1_000);
            watch.see(wall, Reading::Known(celsius)).cloned()
        };
        let first = see(1, 82).unwrap();
        let later = see(9, 91).unwrap();
        assert_eq!((later.since, later.celsius, later.resume), (first.since, 91, 76));
    }
}
