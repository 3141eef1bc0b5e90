//! What was measured about models: how long they take to answer and to load, how large they are,
//! which loads failed. A fold over the lines of the ledger and over what workers say, so that
//! whoever reads the same lines knows the same; the brain keeps it beside its place in the ledger.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::llm::{HeldModel, ModelVerb, bare_name};
use shared::name::Name;
use shared::outcome::{Cause, Outcome};
use shared::quantity::Bytes;
use shared::task::Class;
use shared::time::Moment;

use crate::wire::ledger_line::Brief;

/// So many values are remembered with full weight; then the past counts half.
const REMEMBERED: u64 = 1_000;

/// A mean in which the last thousand values or so count. In whole microseconds, so that the order
/// in which lines are read changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mean {
    /// How many values are in `micros`; at 1,000 both are halved before the next one.
    pub count: u64,
    /// The sum of the values, in microseconds.
    pub micros: u64,
}

impl Mean {
    /// Takes in one more value, in seconds.
    pub fn add(&mut self, seconds: f64) {
        if !seconds.is_finite() || seconds < 0.0 {
            return;
        }
        if self.count >= REMEMBERED {
            *self = Self { count: self.count / 2, micros: self.micros / 2 };
        }
        self.count += 1;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is not negative, and a cast that is too large is held to the end"
        )]
        let micros = (seconds * 1e6).round() as u64;
        self.micros = self.micros.saturating_add(micros);
    }

    /// The mean, in seconds. `None` while there is no value.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a mean need not be exact")]
    pub fn seconds(self) -> Option<f64> {
        (self.count > 0).then(|| self.micros as f64 / 1e6 / self.count as f64)
    }
}

/// Loads of one model by one worker that failed in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// Failures in a row, 1 or more.
    pub count: u32,
    /// Why the last one did.
    pub cause: Cause,
    /// When the last one ended.
    pub at: Moment,
}

/// What was measured about one model, on all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFigures {
    /// From request to answer.
    pub answers: Mean,
    /// From the start of a load to the first proof that it works.
    pub loads: Mean,
    /// The most GPU memory that it was seen to take.
    #[serde(default)]
    pub vram: Option<Bytes>,
    /// By worker: loads that failed since one succeeded.
    #[serde(default)]
    pub failures: BTreeMap<Name, Failures>,
}

/// The last load or unload that ended on a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRequest {
    /// When it ended.
    pub at: Moment,
    /// Whether it was a load or an unload.
    pub verb: ModelVerb,
    /// The model, without the tag `latest`.
    pub model: String,
    /// How it ended.
    pub outcome: Outcome,
}

/// All that was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStats {
    /// By model, without the tag `latest`.
    pub models: BTreeMap<String, ModelFigures>,
    /// How long `script` tasks run.
    pub scripts: Mean,
    /// By worker, the last load or unload there that ended.
    #[serde(default)]
    pub last: BTreeMap<Name, LastRequest>,
}

impl ModelStats {
    /// Takes in an attempt that ended.
    pub fn ended(&mut self, brief: &Brief) {
        let seconds = brief.started_at.map(|started| brief.ended_at.seconds_since(started));
        match (brief.task.class, &brief.task.model, brief.task.verb) {
            (Some(Class::Llm), Some(model), _) => {
                if let Some(took) = &brief.answer {
                    let loading = took.load_seconds.unwrap_or(0.0);
                    self.model(model).answers.add((took.seconds - loading).max(0.0));
                }
            }
            (Some(Class::Resource), Some(model), Some(verb)) => {
                self.request_ended(brief, verb, model, seconds);
            }
            (Some(Class::Script), ..) if brief.outcome == Outcome::Succeeded => {
                seconds.into_iter().for_each(|seconds| self.scripts.add(seconds));
            }
            (Some(Class::Llm | Class::Resource | Class::Script | Class::Cpu) | None, ..) => {}
        }
    }

    fn request_ended(&mut self, brief: &Brief, verb: ModelVerb, model: &str, seconds: Option<f64>) {
        let Some(worker) = &brief.worker else { return };
        let (at, outcome) = (brief.ended_at, brief.outcome);
        let last = LastRequest { at, verb, model: bare_name(model).to_owned(), outcome };
        self.last.insert(worker.clone(), last);
        if verb == ModelVerb::Unload {
            return;
        }
        let model = self.model(model);
        match (outcome, brief.cause) {
            (Outcome::Succeeded, _) => {
                seconds.into_iter().for_each(|seconds| model.loads.add(seconds));
                model.failures.remove(worker);
            }
            (Outcome::Failed, Some(cause)) => {
                let count = model.failures.get(worker).map_or(0, |failures| failures.count) + 1;
                model.failures.insert(worker.clone(), Failures { count, cause, at });
            }
            (Outcome::Failed | Outcome::Cancelled | Outcome::Returned, _) => {}
        }
    }

    /// Takes in what a server says that it holds.
    pub fn held(&mut self, held: &HeldModel) {
        let Some(vram) = held.vram.filter(|vram| vram.0 > 0) else { return };
        let model = self.model(&held.model);
        model.vram = model.vram.max(Some(held.size.unwrap_or(vram).max(vram)));
    }

    fn model(&mut self, name: &str) -> &mut ModelFigures {
        self.models.entry(bare_name(name).to_owned()).or_default()
    }

    /// What is known of one model.
    #[must_use]
    pub fn of(&self, model: &str) -> Option<&ModelFigures> {
        self.models.get(bare_name(model))
    }

    /// How long a task of this model takes; that of the other models where this one never ran.
    #[must_use]
    pub fn answer_seconds(&self, model: &str) -> Option<f64> {
        self.seconds(model, |model| model.answers)
    }

    /// How long this model takes to load; as long as the others where it never was loaded.
    #[must_use]
    pub fn load_seconds(&self, model: &str) -> Option<f64> {
        self.seconds(model, |model| model.loads)
    }

    fn seconds(&self, model: &str, pick: impl Fn(&ModelFigures) -> Mean) -> Option<f64> {
        let own = self.of(model).and_then(|model| pick(model).seconds());
        own.or_else(|| {
            let others = self.models.values().map(pick);
            let all = others.fold(Mean::default(), |all, one| Mean {
                count: all.count + one.count,
                micros: all.micros.saturating_add(one.micros),
            });
            all.seconds()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief(json: &str) -> Brief {
        let fixed = r#""id":"0194c3f2-aaaa-7bbb-8ccc-ddddd5de16d7","attempt":1,"cause":null,
            "next":"end","next_name":"0194c3f2-aaaa-7bbb-8ccc-ddddd5de16d7.a1f0d0",
            "worker":"worker-1","started_at":"2026-11-22T00:00:00.000Z",
            "ended_at":"2026-11-22T00:00:05.000Z""#;
        serde_json::from_str(&format!("{{{fixed},{json}}}")).unwrap()
    }

    #[test]
    fn answers_and_loads_are_measured_from_the_lines() {
        let mut measured = ModelStats::default();
        let task = r#""outcome":"succeeded","task":{"class":"llm","model":"m:latest"}"#;
        measured.ended(&brief(&format!(
            r#"{task},"answer":{{"model":"m","body":{{"a":[1]}},"seconds":1.5,"load_seconds":0.5}}"#
        )));
        assert_eq!(measured.answer_seconds("m"), Some(1.0));
        assert_eq!(measured.answer_seconds("other"), Some(1.0), "the best guess there is");
        assert_eq!(measured.load_seconds("m"), None);
        measured.ended(&brief(
            r#""outcome":"succeeded","task":{"class":"resource","model":"m","verb":"load_llm"}"#,
        ));
        assert_eq!(measured.load_seconds("m:latest"), Some(5.0));
        assert_eq!(measured.last[&"worker-1".parse::<Name>().unwrap()].verb, ModelVerb::Load);
    }

    #[test]
    fn failures_in_a_row_are_counted_until_a_load_succeeds() {
        let mut measured = ModelStats::default();
        let load = |outcome: &str, cause: &str| {
            let mut one = brief(&format!(
                r#""outcome":"{outcome}","task":{{"class":"resource","model":"m","verb":"load_llm"}}"#
            ));
            one.cause = cause.parse().ok();
            one
        };
        measured.ended(&load("failed", "server_error"));
        measured.ended(&load("failed", "oom"));
        measured.ended(&load("cancelled", "cancelled"));
        let failures = measured.of("m").unwrap().failures.values().next().unwrap();
        assert_eq!((failures.count, failures.cause), (2, Cause::Oom));
        measured.ended(&load("succeeded", ""));
        assert!(measured.of("m").unwrap().failures.is_empty());
    }

    #[test]
    fn a_mean_follows_what_changes() {
        let mut mean = Mean::default();
        (0..1_000).for_each(|_| mean.add(1.0));
        (0..3_000).for_each(|_| mean.add(3.0));
        assert!(mean.seconds().is_some_and(|mean| mean > 2.7), "{mean:?}");
        assert_eq!(Mean::default().seconds(), None, "unknown is not zero");
    }
}
