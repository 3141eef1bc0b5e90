//! Loads that were asked for and are not met yet: who was asked, and when. They are `resource`
//! tasks like others; eligibility does not depend on them, but explanations do.

use shared::id::TaskId;
use shared::llm::{ModelVerb, is_same_model};
use shared::name::Name;
use shared::quantity::Span;
use shared::reason::{Code, Reason};
use shared::task::{Class, Payload, Task};
use shared::time::Moment;

use super::places::pending_places;
use crate::Error;
use crate::dir::disk::listing::{self, PassedOver};
use crate::dir::disk::place::Found;
use crate::dir::disk::reject;
use crate::dir::layout::Layout;
use crate::wire::heartbeat::Heartbeat;

/// A load or an unload that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The task that asks for it.
    pub task: TaskId,
    /// What is to be done.
    pub verb: ModelVerb,
    /// The model's name, as the task spells it.
    pub model: String,
    /// The worker that is asked. `None` where the task names none.
    pub worker: Option<Name>,
    /// When the task was submitted.
    pub at: Moment,
}

impl Asked {
    fn of(task: &Task) -> Option<Self> {
        match task.spec.payload() {
            Ok(Payload::Model { verb, model }) => Some(Self {
                task: task.id,
                verb,
                model: model.to_owned(),
                worker: task.spec.worker.clone(),
                at: task.submitted_at,
            }),
            Ok(Payload::Command(_) | Payload::Shell(_) | Payload::Llm { .. }) | Err(_) => None,
        }
    }
}

/// Those that nobody has taken yet. There are few: at most one per worker.
pub fn pending(layout: &Layout) -> Result<Vec<Asked>, Error> {
    let mut asked = Vec::new();
    let start = format!("{}-", Class::Resource);
    // Whoever counts the tasks says what is passed over.
    let mut passed_over = PassedOver::default();
    let lanes = passed_over.or_pass_over(listing::lanes(layout))?.unwrap_or_default();
    for lane in lanes.into_iter().filter(|lane| lane.as_str().starts_with(&start)) {
        for place in pending_places(layout, &lane, &mut passed_over)? {
            let names = passed_over.or_pass_over(listing::tasks_in(&place.dir(layout)))?;
            for name in names.unwrap_or_default().tasks {
                let found = Found { place: place.clone(), name };
                // What cannot be read is put aside by whoever claims it.
                let task = found.read(layout).ok().flatten();
                asked.extend(task.as_ref().and_then(Asked::of));
            }
        }
    }
    Ok(asked)
}

/// Those that a worker is at.
#[must_use]
pub fn running(layout: &Layout, beat: &Heartbeat) -> Vec<Asked> {
    let mut asked = Vec::new();
    for run in beat.current.iter().filter(|run| run.class == Class::Resource) {
        let names = listing::tasks_in(&layout.processing_of(&beat.worker)).unwrap_or_default();
        for name in names.tasks.into_iter().filter(|name| name.id == run.task_id) {
            let path = layout.processing_of(&beat.worker).join(name.file_name());
            let task = reject::read_task(layout, &path, name.id).ok().flatten();
            asked.extend(task.as_ref().and_then(Asked::of));
        }
    }
    asked
}

/// Adds to what is said of models that are not loaded who was asked to load them, and when.
pub fn tell(reasons: &mut [Reason], asked: &[Asked], now: Moment) {
    for reason in reasons.iter_mut().filter(|reason| reason.code == Code::ModelNotLoaded) {
        let Some(model) = reason.evidence.get("model").and_then(|model| model.as_str()) else {
            continue;
        };
        let meets =
            |asked: &&Asked| asked.verb == ModelVerb::Load && is_same_model(&asked.model, model);
        let own = asked.iter().filter(meets).find(|asked| asked.worker == reason.worker);
        let Some(load) = own.or_else(|| asked.iter().find(meets)) else { continue };
        let other = load.worker.as_ref().filter(|name| Some(*name) != reason.worker.as_ref());
        let of = other.map(|name| format!(" of {name}")).unwrap_or_default();
        reason.text = format!("llm needs {model}: load requested {}{of}", ago(load.at, now));
        reason.since = Some(load.at);
        let who = load.worker.as_ref().map(|name| name.as_str());
        reason.evidence.insert("asked_of".into(), who.into());
        reason.evidence.insert("asked_at".into(), load.at.to_string().into());
        reason.evidence.insert("asked_by_task".into(), load.task.to_string().into());
    }
}

/// `4 s ago`, `2m 5s ago`.
fn ago(at: Moment, now: Moment) -> String {
    let seconds = now.seconds_since(at).max(0.0);
    if seconds < 60.0 {
        return format!("{seconds:.0} s ago");
    }
    format!("{} ago", Span::rounded(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::submit::one::Submitter;
    use crate::dir::{Pool, Privacy, Rules};
    use shared::quantity::Bytes;
    use shared::task::parse_spec;

    fn reason(worker: &str, model: &str) -> Reason {
        let text = format!("llm needs {model}: not loaded on {worker}");
        let reason = Reason::new(Code::ModelNotLoaded, text).evidence("model", model);
        reason.worker(&worker.parse().unwrap())
    }

    #[test]
    fn who_was_asked_to_load_a_model_is_told_with_the_time() {
        let now = Moment::from_unix_millis(1_700_000_100_000);
        let asked = |worker: &str, seconds: i64| Asked {
            task: TaskId::new(),
            verb: ModelVerb::Load,
            model: "qwen2.5:7b".into(),
            worker: Some(worker.parse().unwrap()),
            at: now.plus_millis(-1000 * seconds),
        };
        let asked = [asked("worker-2", 90), asked("worker-1", 4)];
        let mut reasons = ["worker-1", "worker-3"].map(|worker| reason(worker, "qwen2.5:7b"));
        tell(&mut reasons, &asked, now);
        assert_eq!(reasons[0].text, "llm needs qwen2.5:7b: load requested 4 s ago");
        let other = "llm needs qwen2.5:7b: load requested 1m 30s ago of worker-2";
        assert_eq!(reasons[1].text, other);
        assert_eq!(reasons[1].evidence["asked_of"], "worker-2");
        let mut others = [reason("worker-1", "tiny")];
        tell(&mut others, &asked, now);
        assert_eq!(others[0], reason("worker-1", "tiny"), "another model is no answer");
    }

    #[test]
    fn a_load_that_waits_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let rules = Rules { disk_low: Bytes(0), ..Rules::default() };
        let pool = Pool::create(&dir.path().join("pool"), rules, Privacy::Owner).unwrap();
        let spec = r#"{"class": "resource", "verb": "load_llm", "model": "tiny",
                       "worker": "worker-1", "priority": 10}"#;
        let task = Task {
            id: TaskId::new(),
            batch_id: None,
            submitted_at: Moment::now(),
            submitted_by: "brain".into(),
            correlation_id: "c".into(),
            spec: parse_spec(spec.as_bytes()).unwrap(),
        };
        Submitter::new(&pool).unwrap().submit(&task).unwrap();
        let found = pending(pool.layout()).unwrap();
        let worker = Some("worker-1".parse().unwrap());
        let (task, model, at) = (task.id, "tiny".to_owned(), found[0].at);
        assert_eq!(found, [Asked { task, verb: ModelVerb::Load, model, worker, at }]);
    }
}
