//! How quickly a model writes, beside its own history: a model that has silently fallen back to
//! the processor still answers, at a tenth of its speed.

use shared::llm::Answer;

/// Below this share of what is usual a model is slow.
const SLOW: f64 = 0.3;
/// So many answers make a history.
const HISTORY: usize = 5;
/// So many slow answers in a row are no accident.
const STREAK: u32 = 3;
/// An answer with fewer tokens says little about speed.
const MIN_TOKENS: u64 = 16;
/// How much the latest answer counts in what is usual.
const WEIGHT: f64 = 0.2;

/// One answer that is so many times as quick as usual counts as this much: it may be a mistake.
const MOST: f64 = 2.0;

/// The history of one model.
#[derive(Clone, Debug, Default)]
pub(super) struct Speed {
    /// The first rates, until there are enough of them: the middle one is what is usual.
    first: Vec<f64>,
    usual: Option<f64>,
    slow: u32,
}

/// A change of pace, said when it comes and not again while it lasts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Turn {
    /// It has become slow.
    Slow {
        /// What it usually writes, in tokens per second.
        usual: f64,
    },
    /// It is not slow any more.
    QuickAgain,
}

impl Speed {
    /// Tokens per second of the whole server, where the answer is long enough to tell: requests
    /// that run beside each other share it.
    pub(super) fn of(answer: &Answer, beside: u32) -> Option<f64> {
        let long = answer.completion_tokens.is_some_and(|tokens| tokens >= MIN_TOKENS);
        answer.tokens_per_second().filter(|_rate| long).map(|rate| rate * f64::from(beside.max(1)))
    }

    /// Takes in an answer. What is slow does not become what is usual.
    pub(super) fn see(&mut self, rate: f64) -> Option<Turn> {
        let Some(usual) = self.usual else {
            self.first.push(rate);
            if self.first.len() == HISTORY {
                self.first.sort_by(f64::total_cmp);
                self.usual = Some(self.first[HISTORY / 2]);
            }
            return None;
        };
        if rate < SLOW * usual {
            self.slow += 1;
            return (self.slow == STREAK).then_some(Turn::Slow { usual });
        }
        self.usual = Some(usual + WEIGHT * (rate.min(MOST * usual) - usual));
        let was_slow = std::mem::take(&mut self.slow) >= STREAK;
        was_slow.then_some(Turn::QuickAgain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_slow_beside_its_own_history_only() {
        let mut speed = Speed::default();
        let turns = |speed: &mut Speed, rates: &[f64]| -> Vec<Turn> {
            rates.iter().filter_map(|rate| speed.see(*rate)).collect()
        };
        assert_eq!(turns(&mut speed, &[40.0, 40.0, 40.0, 40.0, 40.0]), []);
        assert_eq!(turns(&mut speed, &[11.0, 11.0, 38.0, 11.0, 11.0]), [], "no streak");
        let turned = turns(&mut speed, &[11.0, 11.0, 11.0]);
        assert!(matches!(turned[..], [Turn::Slow { usual }] if (38.0..=40.0).contains(&usual)));
        assert_eq!(turns(&mut speed, &[39.0]), [Turn::QuickAgain]);
        // A figure that cannot be, first or later, does not become what is usual.
        for wild in [0, 4, 7] {
            let mut speed = Speed::default();
            let rates = (0..9).map(|turn| if turn == wild { 90_000.0 } else { 40.0 });
            assert_eq!(turns(&mut speed, &rates.collect::<Vec<_>>()), [], "{wild}");
            assert_eq!(turns(&mut speed, &[30.0, 30.0, 30.0]), [], "{wild}");
        }
        let mut slow_from_the_start = Speed::default();
        assert_eq!(turns(&mut slow_from_the_start, &[2.0; 20]), []);
    }

    #[test]
    fn requests_beside_each_other_share_the_speed() {
        let answer = Answer {
            model: "m".into(),
            body: serde_json::Value::Null,
            prompt_tokens: None,
            completion_tokens: Some(21),
            load_seconds: None,
            first_token_seconds: Some(1.0),
            seconds: 3.0,
            writing_seconds: None,
            flaw: None,
        };
        assert_eq!(Speed::of(&answer, 1), Some(10.0));
        assert_eq!(Speed::of(&answer, 4), Some(40.0));
        assert_eq!(Speed::of(&Answer { completion_tokens: Some(5), ..answer }, 1), None);
    }
}
