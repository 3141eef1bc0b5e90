//! Looking for work, by whichever thread has a slot to fill; one at a time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use queue::dir::brake::BrakeTurn;
use queue::dir::claim::cursor::{Cursor, Pass, Wish};
use queue::dir::claim::limit_slots;
use queue::dir::claim::note::Note;
use queue::dir::claim::one::Claim;
use queue::dir::find::counts::{Counter, Waiting};
use queue::dir::find::load_requests;
use queue::eligible::{self, SlotKind};
use queue::wire::counts::LaneCount;
use queue::wire::counts::Unlisted;
use queue::wire::heartbeat::{ClaimReport, hog};
use queue::wire::lane::{LaneName, Requirements};
use shared::emit;
use shared::event::Event;
use shared::llm::bare_name;
use shared::name::Name;
use shared::reason::Code;
use shared::task::{Class, TaskName};
use shared::time::Moment;

use super::elsewhere::Elsewhere;
use super::report::{self, Found};
use crate::attempt::context::AttemptContext;
use crate::job::Stop;
use crate::worker_state::Facts;

/// A worker that has said nothing for so long may be hung, and is nobody to leave a task to.
const SILENT: Duration = Duration::from_secs(60);

/// A claimed task to run.
pub(super) struct Work {
    pub(super) claim: Box<Claim>,
    /// How its job is told to end.
    pub(super) stop: Stop,
}

/// What is known of the pending tasks.
pub(super) struct Search {
    context: Arc<AttemptContext>,
    cursor: Cursor,
    /// Who else could take what failed here.
    elsewhere: Elsewhere,
    counter: Counter,
    /// Kinds of slot for which a look could find something new.
    look: Look,
    /// The shape of the last report that was said at INFO.
    said: Option<Vec<(Code, Option<String>)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    gpu: bool,
    cpu: bool,
}

impl Look {
    const ALL: Self = Self { gpu: true, cpu: true };
    const NONE: Self = Self { gpu: false, cpu: false };

    fn at(&mut self, kind: SlotKind) -> &mut bool {
        match kind {
            SlotKind::Gpu => &mut self.gpu,
            SlotKind::Cpu => &mut self.cpu,
        }
    }
}

/// One search for all threads of the worker.
#[derive(Clone)]
pub(super) struct SharedSearch(Arc<Mutex<Search>>);

impl SharedSearch {
    /// Nothing known yet.
    pub(super) fn new(context: Arc<AttemptContext>) -> Self {
        Self(Arc::new(Mutex::new(Search::new(context))))
    }

    /// Waits until nobody else searches.
    pub(super) fn lock(&self) -> MutexGuard<'_, Search> {
        // What a panic left there is at worst an old listing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None while somebody else searches.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Search>> {
        self.0.try_lock().ok()
    }
}

/// A task that was claimed, and not told of yet.
pub(super) struct Won {
    work: Work,
    lane: LaneName,
}

impl Search {
    /// Nothing known yet.
    fn new(context: Arc<AttemptContext>) -> Self {
        let pool = &context.surroundings.pool;
        let cursor = Cursor::new(pool, context.worker_state.name(), context.ledger.clone());
        let (elsewhere, counter) = (Elsewhere::default(), Counter::default());
        Self { context, cursor, elsewhere, counter, look: Look::ALL, said: None }
    }

    /// Something may be there that was not before.
    pub(super) fn look_again(&mut self) {
        self.look = Look::ALL;
    }

    /// The same, for slots of one kind.
    pub(super) fn look_for(&mut self, kind: SlotKind) {
        *self.look.at(kind) = true;
    }

    /// What it may take has changed: what is said next is news.
    pub(super) fn begin_anew(&mut self) {
        self.look = Look::ALL;
        self.said = None;
    }

    /// Whether anything new may be begun on this disk; says so where not.
    fn has_room(&mut self) -> Result<bool, queue::Error> {
        let Some(shortage) = self.context.surroundings.pool.shortage()? else { return Ok(true) };
        let mut reason = shortage.reason();
        self.context.worker_state.look(|state| {
            if let Some(hog) = hog(state.running().map(|job| &job.run)) {
                reason.text += &format!("; {hog}");
                reason.fix = Some(hog.end());
            }
        });
        let (result, at) = (reason.text.clone(), Some(Moment::now()));
        self.say(ClaimReport { at, result, reasons: vec![reason] });
        Ok(false)
    }

    /// The lanes there are, with how much waits in each.
    pub(super) fn lanes(&mut self) -> Result<Vec<LaneCount>, queue::Error> {
        Ok(self.counter.take(&self.context.surroundings.pool)?.lanes)
    }

    pub(super) fn may_claim(&self) -> bool {
        let free = self.context.worker_state.look(|state| {
            let free = |kind| state.backlog().keeps_up() && has_free(state, kind);
            state.is_open().then(|| (free(SlotKind::Gpu), free(SlotKind::Cpu)))
        });
        // The signal is known before the main thread has taken note of it: what is given back because of
        // it must not be taken again.
        if self.context.is_told_to_stop() {
            return false;
        }
        match free {
            Some((gpu, cpu)) => gpu && self.look.gpu || cpu && self.look.cpu,
            None => {
                self.report_shut();
                false
            }
        }
    }

    /// Paused or draining, or without a GPU that is fit: said by whoever saw to that; the reasons
    /// stay in the heartbeat.
    fn report_shut(&self) {
        let name = self.context.worker_state.name();
        let lane = Requirements {
            class: self.context.worker_state.look(|state| state.ability.classes[0]),
            model: None,
            gpu_memory: None,
            limits: Vec::new(),
            worker: None,
            max_wait: None,
        };
        self.context.worker_state.note(|state| {
            let reasons = state.candidate(name, |candidate| eligible::reasons(candidate, &lane));
            let result = reasons.first().map_or_else(String::new, |reason| reason.text.clone());
            state.claim = ClaimReport { at: Some(Moment::now()), result, reasons };
        });
    }

    /// Looks once and claims at most one task. Says why where it claims none.
    pub(super) fn claim(&mut self) -> Result<Option<Won>, queue::Error> {
        if !self.has_room()? {
            return Ok(None);
        }
        let state = self.context.worker_state.look(Facts::clone);
        let name = self.context.worker_state.name().clone();
        let mut lost = 0;
        if !state.retries.is_empty() {
            let pool = &self.context.surroundings.pool;
            let tasks = self.elsewhere.pass_over(pool, &name, &state.retries, SILENT);
            // Where it cannot be told, this worker takes them itself.
            self.cursor.pass_over(tasks.unwrap_or_default());
        }
        let pass = with_wish(&state, &name, |wish| {
            self.cursor.pass(wish, &mut |note| see(note, &mut lost))
        })?;
        if lost > 0 {
            self.context.worker_state.note(|state| state.lost_races += lost);
        }
        match pass {
            Pass::Claimed { claim, lane } => Ok(Some(self.take(claim, lane))),
            Pass::Nothing { lost, mut closed, mut limited } => {
                self.look = Look::NONE;
                let waiting = if closed.is_empty() && limited.is_empty() {
                    Waiting::default()
                } else {
                    self.counter.waiting(self.context.surroundings.pool.layout())?
                };
                // A lane keeps its directories for a while after its last task.
                closed.retain(|(lane, _needs)| waiting.lanes.contains(lane));
                limited.retain(|(lane, _used_up)| waiting.lanes.contains(lane));
                if let Some(models) = &self.context.models {
                    models.want(wanted(&closed, &name));
                }
                let asked = match closed.iter().any(|(_lane, needs)| needs.class == Class::Llm) {
                    true => load_requests::pending(self.context.surroundings.pool.layout())?,
                    false => Vec::new(),
                };
                self.report(
                    &state,
                    &Found { lost, closed, limited, queue: waiting.by_class, asked },
                );
                Ok(None)
            }
        }
    }

    /// Reads what there will be to claim when this job is over, for whoever waits for that.
    pub(super) fn prefetch(&mut self, job: TaskName) {
        let mut state = self.context.worker_state.look(Facts::clone);
        state.clear(job);
        let name = self.context.worker_state.name().clone();
        // What goes wrong goes wrong again at the claim, which says so.
        let _seen = with_wish(&state, &name, |wish| {
            self.cursor.prefetch(wish, &mut |note| see(note, &mut 0))
        });
    }

    /// Makes it known: its slot is taken from here on.
    fn take(&mut self, claim: Box<Claim>, lane: LaneName) -> Won {
        self.said = None;
        let stop = Stop::default();
        self.context.worker_state.take(&claim, &stop);
        if self.context.worker_state.look(|state| !state.back_offs.is_empty()) {
            let pool = &self.context.surroundings.pool;
            let needs = pool.requirements_of(claim.task()).without_limits();
            self.context.worker_state.note(|state| state.take_like(&needs));
        }
        Won { work: Work { claim, stop }, lane }
    }

    fn report(&mut self, state: &Facts, found: &Found) {
        let name = self.context.worker_state.name();
        let report = state.candidate(name, |candidate| found.report(candidate));
        self.say(report);
    }

    fn say(&mut self, report: ClaimReport) {
        let idle = self.context.worker_state.look(|state| state.jobs.is_empty());
        let shape = report::shape(&report);
        let (text, reasons) = (report.result.clone(), report.reasons.clone());
        // A worker that is busy may find nothing for its other slot after every task: that is no
        // news. For an idle one each change is.
        if idle && self.said.as_ref() != Some(&shape) {
            self.said = Some(shape);
            self.context.worker_state.change(|state| state.claim = report);
            emit!(Event::ClaimReport { text, reasons });
        } else {
            self.context.worker_state.note(|state| state.claim = report);
            emit!(Event::ClaimReportAgain { text, reasons });
        }
    }
}

impl Won {
    /// Says that it was claimed.
    pub(super) fn told(self, context: &AttemptContext) -> Work {
        let claim = &self.work.claim;
        let (name, class, task_name) = (claim.name(), claim.task().class(), claim.task().name());
        let waited = Moment::now().seconds_since(claim.task().submitted_at);
        let result = format!("Claimed {class} task: {} ({task_name})", name.id.short());
        let _scope = shared::log::scope(shared::log::Context {
            correlation_id: Some(claim.task().correlation_id.clone()),
            ..shared::log::Context::default()
        });
        emit!(Event::ClaimWon {
            task: name.id,
            attempt: name.attempt,
            class,
            task_name,
            lane: self.lane.to_string(),
            waited_seconds: Some(waited),
        });
        if let BrakeTurn::Probe(_) = claim.turn() {
            emit!(Event::BrakeProbe { task: name.id, attempt: name.attempt });
        }
        let report = ClaimReport { at: Some(Moment::now()), result, reasons: Vec::new() };
        context.worker_state.note(|state| state.claim = report);
        self.work
    }
}

/// What a worker in this state would take.
fn with_wish<T>(state: &Facts, name: &Name, look: impl FnOnce(&Wish<'_>) -> T) -> T {
    state.candidate(name, |candidate| {
        let open = |lane: &Requirements| eligible::reasons(candidate, lane).is_empty();
        // The lanes of classes that it does not take are looked at too: the report says so.
        let mut classes = eligible::preferred(candidate.ability);
        let others: Vec<_> = Class::ALL.iter().filter(|c| !classes.contains(c)).collect();
        classes.extend(others);
        look(&Wish { classes: &classes, open: &open })
    })
}

/// The models, by their one spelling, that tasks wait for which this worker may take.
fn wanted(closed: &[(LaneName, Arc<Requirements>)], name: &Name) -> BTreeSet<String> {
    let needs = closed.iter().map(|(_lane, needs)| needs);
    let ours = needs.filter(|needs| needs.worker.as_ref().is_none_or(|own| own == name));
    ours.filter_map(|needs| needs.model.as_deref()).map(|m| bare_name(m).to_owned()).collect()
}

fn has_free(state: &Facts, kind: SlotKind) -> bool {
    let slots = match kind {
        SlotKind::Gpu => state.ability.gpu_slots,
        SlotKind::Cpu => state.ability.cpu_slots,
    };
    let used = state.running().filter(|job| SlotKind::of(job.run.class) == kind).count();
    used < slots as usize
}

fn see(note: Note, lost: &mut u64) {
    match note {
        Note::Attempt(name) => emit!(Event::ClaimAttempt { task: name.id, attempt: name.attempt }),
        Note::LostRace(name) => {
            *lost += 1;
            emit!(Event::ClaimLostRace { task: name.id, attempt: name.attempt });
        }
        Note::Limited(_lane, limit_slots::UsedUp { key, limit }) => {
            let (used, allowed) = (u64::from(limit), u64::from(limit));
            emit!(Event::ClaimLockTimeout { limit: key, used, allowed });
        }
        Note::Rejected(file, reason) => emit!(Event::TaskRejected { file, reason }),
        Note::LeftAlone(name, err) => {
            let doing = format!("claiming {}", name.id.short());
            emit!(Event::ProcessFailed { doing, error: err.to_string() });
        }
        Note::Unlisted(Unlisted { path, problem: error, .. }) => {
            emit!(Event::DirectoryUnlisted { path, error, count: 1 });
        }
        Note::Obscure(lane, err) => {
            let doing = format!("Nobody takes tasks of lane {lane}");
            emit!(Event::ProcessFailed { doing, error: err.to_string() });
        }
    }
}
