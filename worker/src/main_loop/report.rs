//! Claim reports: what a look for work came to, in words. Said at INFO when it changes, at DEBUG
//! each time, and always in the heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;

use queue::dir::claim::limit_slots::UsedUp;
use queue::dir::find::load_requests::{self, Asked};
use queue::eligible::{self, Candidate};
use queue::wire::brake::BrakeKey;
use queue::wire::heartbeat::ClaimReport;
use queue::wire::lane::{LaneName, Requirements};
use shared::quantity::counted;
use shared::reason::{Code, Reason};
use shared::task::Class;
use shared::time::Moment;

/// What stood in the way, as a pass found it.
#[derive(Debug)]
pub struct Found {
    /// Tasks that went to others.
    pub lost: u64,
    /// Lanes it may not take from.
    pub closed: Vec<(LaneName, Arc<Requirements>)>,
    /// Lanes that a limit keeps shut.
    pub limited: Vec<(LaneName, UsedUp)>,
    /// Pending tasks per class.
    pub queue: BTreeMap<Class, u64>,
    /// Loads that somebody was asked for.
    pub asked: Vec<Asked>,
}

impl Found {
    /// Whether there was nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lost == 0 && self.closed.is_empty() && self.limited.is_empty()
    }

    /// The line for people and the reasons behind it, with the time of now.
    #[must_use]
    pub fn report(&self, candidate: Candidate<'_>) -> ClaimReport {
        let reasons = self.reasons(candidate);
        let preferred =
            list(eligible::preferred(candidate.ability).iter().map(|c| c.as_str().to_owned()));
        let result = if self.lost > 0 {
            let lost = self.lost;
            format!("Claim attempt: {lost} tasks available in {preferred}, all claimed by others")
        } else if reasons.is_empty() || self.queue.is_empty() && self.limited.is_empty() {
            "Queue empty".to_owned()
        } else {
            let queue = list(self.queue.iter().map(|(class, count)| format!("{class}:{count}")));
            let model =
                candidate.ability.server.as_ref().is_some_and(|s| s.loaded().next().is_some());
            let why = reasons.first().map_or("", |reason| reason.text.as_str());
            format!(
                "No suitable tasks - Queue: {queue}, Preferred: {preferred}, Model loaded: {model}; {why}"
            )
        };
        ClaimReport { at: Some(Moment::now()), result, reasons }
    }

    fn reasons(&self, candidate: Candidate<'_>) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if self.lost > 0 {
            let text = format!("{} tasks were there, and others were faster", self.lost);
            reasons.push(Reason::new(Code::RacesLost, text).count(self.lost));
        }
        let limited = self.limited.iter().map(|(lane, used_up)| (lane, vec![limit(used_up)]));
        let closed = self.closed.iter();
        let closed = closed.map(|(lane, needs)| (lane, eligible::reasons(candidate, needs)));
        let mut others: BTreeMap<Code, Others> = BTreeMap::new();
        for (index, (lane, why)) in limited.chain(closed).enumerate() {
            if index < LANES_TOLD {
                reasons.extend(why.into_iter().map(|reason| reason.lane(lane.as_str())));
                continue;
            }
            for Reason { code, text, .. } in why {
                others.entry(code).or_insert(Others { lanes: 0, example: text }).lanes += 1;
            }
        }
        reasons.extend(others.into_iter().map(|(code, others)| others.reason(code)));
        load_requests::tell(&mut reasons, &self.asked, Moment::now());
        if reasons.is_empty() {
            reasons.push(Reason::new(Code::QueueEmpty, "nothing is waiting"));
        }
        // As `queue why` tells them.
        reasons.sort_by_key(|reason| reason.code.weight());
        reasons
    }
}

/// Of so many lanes it is told one by one what keeps them shut: a report is in every heartbeat.
/// `queue why` tells of all.
const LANES_TOLD: usize = 48;

/// Lanes beyond those, which one reason keeps shut.
struct Others {
    lanes: u64,
    /// How it reads for one of them.
    example: String,
}

impl Others {
    fn reason(self, code: Code) -> Reason {
        let lanes = counted(self.lanes, "more lane");
        Reason::new(code, format!("{lanes}, for one of them: {}", self.example)).count(self.lanes)
    }
}

fn limit(used_up: &UsedUp) -> Reason {
    let UsedUp { key, limit } = used_up;
    if BrakeKey::of_limit(key).is_some() {
        let text = format!("{key}: its tasks failed alike, and one at a time is tried");
        return Reason::new(Code::HeldBrake, text).evidence("limit", key.clone());
    }
    let text = format!("limit {key} ({limit} of {limit} in use)");
    let reason = Reason::new(Code::LimitReached, text);
    reason.evidence("limit", key.clone()).evidence("allowed", *limit)
}

/// What makes two reports the same for whoever reads the log: not the figures in them.
#[must_use]
pub fn shape(report: &ClaimReport) -> Vec<(Code, Option<String>)> {
    report.reasons.iter().map(|reason| (reason.code, reason.lane.clone())).collect()
}

fn list(words: impl Iterator<Item = String>) -> String {
    format!("[{}]", words.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use queue::wire::heartbeat::Ability;
    use shared::name::Name;

    fn ability() -> Ability {
        Ability {
            classes: vec![Class::Script, Class::Cpu],
            gpu: Some(1),
            gpu_uuid: None,
            gpu_memory: None,
            gpu_state: queue::wire::heartbeat::gpu_state::GpuState::default(),
            gpu_slots: 1,
            cpu_slots: 1,
            paused: None,
            draining: None,
            starved: None,
            backs_off: Vec::new(),
            server: None,
        }
    }

    fn report(found: &Found) -> ClaimReport {
        report_of(&ability(), found)
    }

    fn report_of(ability: &Ability, found: &Found) -> ClaimReport {
        let name: Name = "worker-1".parse().unwrap();
        found.report(Candidate { name: &name, ability, current: &[] })
    }

    fn nothing() -> Found {
        let queue = BTreeMap::new();
        Found { lost: 0, closed: vec![], limited: vec![], queue, asked: vec![] }
    }

    #[test]
    fn seed_001_b3_b4_the_words_say_what_really_stood_in_the_way() {
        assert_eq!(report(&nothing()).result, "Queue empty");
        let lost = Found { lost: 197, ..nothing() };
        assert_eq!(
            report(&lost).result,
            "Claim attempt: 197 tasks available in [script, cpu], all claimed by others"
        );
        let lane = Requirements {
            class: Class::Llm,
            model: Some("qwen".into()),
            gpu_memory: None,
            limits: vec![],
            worker: None,
            max_wait: None,
        };
        let closed = vec![(lane.lane(), lane.into())];
        let found = Found { closed, queue: BTreeMap::from([(Class::Llm, 125)]), ..nothing() };
        let report = report(&found);
        assert_eq!(
            report.result,
            "No suitable tasks - Queue: [llm:125], Preferred: [script, cpu], Model loaded: false; \
             worker-1 does not take llm tasks (it takes script, cpu)"
        );
        assert_eq!(shape(&report)[0].0, Code::ClassNotTaken);
    }

    #[test]
    fn a_report_names_a_few_lanes_and_counts_the_others() {
        let lane = |number: u32| Requirements {
            class: Class::Llm,
            model: Some(format!("m{number}")),
            gpu_memory: None,
            limits: vec![],
            worker: None,
            max_wait: None,
        };
        let closed =
            |count: u32| (0..count).map(lane).map(|lane| (lane.lane(), lane.into())).collect();
        let found = |count: u32| Found { closed: closed(count), ..nothing() };
        assert_eq!(report(&found(48)).reasons.len(), 48);
        let many = report(&found(3000)).reasons;
        assert_eq!(many.len(), 49);
        assert!(many[..48].iter().all(|reason| reason.lane.is_some()));
        let (others, text) =
            (&many[48], "2952 more lanes, for one of them: worker-1 does not take");
        assert_eq!((others.code, others.count), (Code::ClassNotTaken, Some(2952)));
        assert!(others.text.starts_with(text), "{}", others.text);
    }

    #[test]
    fn a_worker_without_the_model_says_who_was_asked_to_load_it() {
        let server = crate::models::fixture::up("http://127.0.0.1:11437");
        let classes = vec![Class::Resource, Class::Script, Class::Cpu, Class::Llm];
        let ability = Ability { server: Some(server), classes, ..ability() };
        let lane = Requirements {
            max_wait: None,
            class: Class::Llm,
            model: Some("qwen2.5:7b".into()),
            gpu_memory: None,
            limits: vec![],
            worker: None,
        };
        let load = Asked {
            task: shared::id::TaskId::new(),
            verb: shared::llm::ModelVerb::Load,
            model: "qwen2.5:7b".into(),
            worker: Some("worker-1".parse().unwrap()),
            at: Moment::now().plus_millis(-4_000),
        };
        let closed = vec![(lane.lane(), lane.into())];
        let queue = BTreeMap::from([(Class::Llm, 125)]);
        let found = Found { closed, queue, asked: vec![load], ..nothing() };
        assert_eq!(
            report_of(&ability, &found).result,
            "No suitable tasks - Queue: [llm:125], Preferred: [resource, script, cpu, llm], \
             Model loaded: false; llm needs qwen2.5:7b: load requested 4 s ago"
        );
    }
}
