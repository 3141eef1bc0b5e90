//! Looking for work, and starting what was found.

use std::collections::BTreeMap;

use queue::dir::claim::Claim;
use queue::dir::cursor::{Note, Pass, Wish};
use queue::dir::limit;
use queue::eligible::{self, SlotKind};
use queue::heartbeat::ClaimReport;
use queue::lane::{LaneName, Requirements};
use queue::loads;
use shared::emit;
use shared::event::Event;
use shared::task::Class;
use shared::time::Moment;

use super::{Ended, Floor, Look};
use crate::desk::State;
use crate::job::Stop;
use crate::report::{self, Found};
use crate::run;

impl Floor {
    pub(super) fn may_claim(&self) -> bool {
        let free = self.bench.desk.look(|state| {
            let open = !state.stopping
                && !state.lease_lost
                && state.ability.draining.is_none()
                && state.ability.paused.is_none();
            open.then(|| (has_free(state, SlotKind::Gpu), has_free(state, SlotKind::Cpu)))
        });
        match free {
            Some((gpu, cpu)) => gpu && self.look.gpu || cpu && self.look.cpu,
            None => {
                self.report_shut();
                false
            }
        }
    }

    /// Paused or draining: said by `follow_standing`; the reasons stay in the heartbeat.
    pub(super) fn report_shut(&self) {
        let name = self.bench.desk.name();
        let lane = Requirements {
            class: self.bench.desk.look(|state| state.ability.classes[0]),
            model: None,
            gpu_memory: None,
            limits: Vec::new(),
            worker: None,
        };
        self.bench.desk.note(|state| {
            let reasons = state.candidate(name, |candidate| eligible::reasons(candidate, &lane));
            let result = reasons.first().map_or_else(String::new, |reason| reason.text.clone());
            state.claim = ClaimReport { at: Some(Moment::now()), result, reasons };
        });
    }

    /// One look. `true` when something was claimed.
    pub(super) fn claim(&mut self) -> Result<bool, queue::Error> {
        let state = self.bench.desk.look(State::clone);
        let name = self.bench.desk.name().clone();
        let mut lost = 0;
        let pass = state.candidate(&name, |candidate| {
            let open = |lane: &Requirements| eligible::reasons(candidate, lane).is_empty();
            // The lanes of classes that it does not take are looked at too: the report says so.
            let mut classes = eligible::preferred(candidate.ability);
            let others: Vec<_> = Class::ALL.iter().filter(|c| !classes.contains(c)).collect();
            classes.extend(others);
            let wish = Wish { classes: &classes, open: &open };
            self.cursor.pass(&wish, &mut |note| see(note, &mut lost))
        })?;
        self.bench.desk.note(|state| state.lost_races += lost);
        match pass {
            Pass::Claimed { claim, lane } => {
                self.start(claim, &lane);
                Ok(true)
            }
            Pass::Nothing { lost, closed, limited } => {
                self.look = Look::NONE;
                let queue = if closed.is_empty() && limited.is_empty() {
                    BTreeMap::new()
                } else {
                    self.census.take(self.pool.layout())?.by_class()
                };
                let asked = match closed.iter().any(|(_lane, needs)| needs.class == Class::Llm) {
                    true => loads::pending(self.pool.layout())?,
                    false => Vec::new(),
                };
                self.report(&state, &Found { lost, closed, limited, queue, asked });
                Ok(false)
            }
        }
    }

    pub(super) fn report(&mut self, state: &State, found: &Found) {
        let name = self.bench.desk.name();
        let report = state.candidate(name, |candidate| found.report(candidate));
        let shape = report::shape(&report);
        let (text, reasons) = (report.result.clone(), report.reasons.clone());
        // A worker that is busy may find nothing for its other slot after every task: that is no
        // news. For an idle one each change is.
        if state.jobs.is_empty() && self.said.as_ref() != Some(&shape) {
            self.said = Some(shape);
            self.bench.desk.change(|state| state.claim = report);
            emit!(Event::ClaimReport { text, reasons });
        } else {
            self.bench.desk.note(|state| state.claim = report);
            emit!(Event::ClaimReportAgain { text, reasons });
        }
    }

    pub(super) fn start(&mut self, claim: Box<Claim>, lane: &LaneName) {
        let (name, class) = (claim.name(), claim.task().class());
        let waited = Moment::now().seconds_since(claim.task().submitted_at);
        let task_name = claim.task().name();
        let result = format!("Claimed {class} task: {} ({task_name})", name.id.short());
        let (task, attempt) = (name.id, name.attempt);
        let _scope = shared::log::scope(shared::log::Context {
            correlation_id: Some(claim.task().correlation_id.clone()),
            ..shared::log::Context::default()
        });
        emit!(Event::ClaimWon {
            task,
            attempt,
            class,
            task_name,
            lane: lane.to_string(),
            waited_seconds: Some(waited),
        });
        self.said = None;
        let report = ClaimReport { at: Some(Moment::now()), result, reasons: Vec::new() };
        self.bench.desk.note(|state| state.claim = report);
        self.spawn(claim, class);
    }

    pub(super) fn spawn(&self, claim: Box<Claim>, class: Class) {
        let name = claim.name();
        let stop = match Stop::new() {
            Ok(stop) => stop,
            Err(err) => {
                // No descriptors: the claim is dropped and stays ours; nothing is lost, and the
                // next life settles it.
                let doing = format!("starting {}", name.id.short());
                emit!(Event::ProcessFailed { doing, error: err.to_string() });
                return;
            }
        };
        self.bench.desk.take(&claim, &stop);
        let bench = self.bench.clone();
        let run = move || {
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                run::attempt(&bench, claim, &stop);
            }));
            Ended { name, class, panic: ran.err().map(|panic| panic_text(panic.as_ref())) }
        };
        if let Err(err) = self.crew.run(Box::new(run)) {
            self.bench.desk.clear(name);
            let doing = format!("starting {}", name.id.short());
            emit!(Event::ProcessFailed { doing, error: err.to_string() });
        }
    }
}

fn has_free(state: &State, kind: SlotKind) -> bool {
    let slots = match kind {
        SlotKind::Gpu => state.ability.gpu_slots,
        SlotKind::Cpu => state.ability.cpu_slots,
    };
    let used = state.jobs.iter().filter(|job| SlotKind::of(job.run.class) == kind).count();
    used < slots as usize
}

fn see(note: Note, lost: &mut u64) {
    match note {
        Note::Attempt(name) => emit!(Event::ClaimAttempt { task: name.id, attempt: name.attempt }),
        Note::LostRace(name) => {
            *lost += 1;
            emit!(Event::ClaimLostRace { task: name.id, attempt: name.attempt });
        }
        Note::Limited(_lane, limit::UsedUp { key, limit }) => {
            let (used, allowed) = (u64::from(limit), u64::from(limit));
            emit!(Event::ClaimLockTimeout { limit: key, used, allowed });
        }
        Note::Rejected(file, reason) => emit!(Event::TaskRejected { file, reason }),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}
