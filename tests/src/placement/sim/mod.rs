//! The loop of virtual time.

pub(super) mod view;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use brain::core::Core;
use brain::core::fleet::Fleet;
use brain::core::words::at::At;
use brain::core::words::command::Command;
use brain::core::words::event::Event as Seen;
use brain::core::words::placement::ModelRequest;
use brain::core::words::snapshot::Lane;
use queue::wire::ledger_line::{About, Brief};
use shared::id::TaskId;
use shared::llm::ModelVerb;
use shared::outcome::{Cause, Outcome};
use shared::quantity::{Bytes, Span};
use shared::settings::Settings;
use shared::task::{Class, TaskName};
use shared::time::Moment;

use super::{Fault, SetUp, SimResult, UNLOAD};

/// The beginning, on the wall.
pub(super) const START: i64 = 1_700_000_000_000;
/// A look at least this often, and at most this often when the bell rings.
pub(super) const TICK: u64 = 1_000;
const BREATH: u64 = 100;
/// A pool in which nothing ends for so long will never end.
const FOR_EVER: u64 = 3_600_000;

/// What may happen next. Of two at the same time the first in this order comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Next {
    Ended { worker: usize, turn: u64 },
    Arrives,
    Fault(usize),
    Back(usize),
    Look,
}

/// What a worker does.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Doing {
    Nothing,
    Prompt { prompt: usize, began: u64 },
    Request { request: Open, began: u64 },
    Dead,
}

/// A request that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Open {
    pub(super) name: TaskName,
    pub(super) what: ModelRequest,
}

/// One worker and its server.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) doing: Doing,
    /// Models and since when.
    pub(super) held: Vec<(usize, u64)>,
    pub(super) changed: u64,
    /// Counts what it began, so that an end that was overtaken by its death is known.
    pub(super) turn: u64,
    pub(super) life: u32,
}

/// The pool.
#[derive(Debug)]
pub struct Sim<'a> {
    pub(super) set_up: &'a SetUp,
    faults: Vec<Fault>,
    settings: Settings,
    core: Core,
    pub(super) now: u64,
    next: BTreeSet<(u64, Next)>,
    arrived: usize,
    pub(super) lanes: Vec<Lane>,
    pub(super) waiting: Vec<VecDeque<usize>>,
    pub(super) workers: Vec<Worker>,
    pub(super) open: Vec<Open>,
    pub(super) ended: Vec<Brief>,
    last_look: u64,
    /// Nobody looks before this.
    no_brain_until: u64,
    ids: u64,
    done: usize,
    last_end: u64,
    cycle: u64,
    went: SimResult,
}

impl<'a> Sim<'a> {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(set_up: &'a SetUp, faults: &[Fault]) -> Self {
        let mut settings = Settings::default();
        settings.max_wait = Span(Duration::from_millis(set_up.max_wait));
        settings.vram_reserve = Bytes(0);
        let worker =
            Worker { doing: Doing::Nothing, held: Vec::new(), changed: 0, turn: 0, life: 1 };
        Self {
            core: Core::new(&settings, Fleet::none()),
            settings,
            faults: faults.to_vec(),
            now: 0,
            next: BTreeSet::from([(0, Next::Arrives), (0, Next::Look)]),
            arrived: 0,
            lanes: set_up.models.iter().map(|model| super::sim::view::lane(&model.name)).collect(),
            waiting: vec![VecDeque::new(); set_up.models.len()],
            workers: vec![worker; set_up.workers],
            open: Vec::new(),
            ended: Vec::new(),
            last_look: 0,
            no_brain_until: 0,
            ids: 0,
            done: 0,
            last_end: 0,
            cycle: 0,
            went: SimResult { tasks: vec![0; set_up.workers], ..SimResult::default() },
            set_up,
        }
    }

    /// Until every prompt is answered.
    ///
    /// # Panics
    /// When nothing ends for an hour.
    #[must_use]
    pub fn run(mut self) -> SimResult {
        for (index, fault) in self.faults.clone().into_iter().enumerate() {
            if let Fault::Kill { at, .. } | Fault::Brain { at, .. } = fault {
                self.next.insert((at, Next::Fault(index)));
            }
        }
        while self.done < self.set_up.prompts.len() {
            let (time, next) = self.next.pop_first().expect("there is always a next look");
            self.now = time;
            assert!(time < self.last_end + FOR_EVER, "nothing ends any more: {:?}", self.went);
            match next {
                Next::Arrives => self.arrive(),
                Next::Ended { worker, turn } => self.end(worker, turn),
                Next::Fault(index) => self.fail(self.faults[index]),
                Next::Back(worker) => self.come_back(worker),
                Next::Look => self.look(),
            }
            (0..self.workers.len()).for_each(|worker| self.claim(worker));
        }
        self.went
    }

    fn arrive(&mut self) {
        while let Some(prompt) = self.set_up.prompts.get(self.arrived) {
            if prompt.arrives > self.now {
                self.next.insert((prompt.arrives, Next::Arrives));
                return;
            }
            self.waiting[prompt.model].push_back(self.arrived);
            self.last_end = self.now;
            self.arrived += 1;
        }
    }

    /// Its own request first, then the oldest task of a model that it holds.
    fn claim(&mut self, index: usize) {
        if self.workers[index].doing != Doing::Nothing {
            return;
        }
        let name = super::sim::view::worker_name(index);
        if let Some(at) = self.open.iter().position(|open| open.what.worker == name) {
            let request = self.open.remove(at);
            self.begin_request(index, request);
            return;
        }
        let held = self.workers[index].held.iter();
        let heads = held.filter_map(|(model, _since)| self.waiting[*model].front().copied());
        if let Some(prompt) = heads.min() {
            let what = self.set_up.prompts[prompt];
            self.waiting[what.model].pop_front();
            self.went.longest_wait = self.went.longest_wait.max(self.now - what.arrives);
            self.begin(index, Doing::Prompt { prompt, began: self.now }, what.runs);
        }
    }

    fn begin_request(&mut self, index: usize, request: Open) {
        let model = self.model(&request.what.model);
        let takes = match request.what.verb {
            ModelVerb::Load => {
                self.went.loads += 1;
                self.went.load_times.push(self.now);
                self.set_up.models[model].load
            }
            ModelVerb::Unload => UNLOAD,
        };
        self.begin(index, Doing::Request { request, began: self.now }, takes);
    }

    pub(super) fn begin(&mut self, index: usize, doing: Doing, takes: u64) {
        let worker = &mut self.workers[index];
        worker.turn += 1;
        (worker.doing, worker.changed) = (doing, self.now);
        self.next.insert((self.now + takes, Next::Ended { worker: index, turn: worker.turn }));
    }

    fn end(&mut self, index: usize, turn: u64) {
        if self.workers[index].turn != turn {
            return;
        }
        self.workers[index].changed = self.now;
        match std::mem::replace(&mut self.workers[index].doing, Doing::Nothing) {
            Doing::Prompt { prompt, began } => {
                self.done += 1;
                self.last_end = self.now;
                self.went.tasks[index] += 1;
                self.went.ended = self.now;
                self.answered(index, prompt, began);
            }
            Doing::Request { request, began } => self.request_ended(index, &request, began),
            Doing::Nothing | Doing::Dead => {}
        }
        self.ring();
    }

    fn answered(&mut self, index: usize, prompt: usize, began: u64) {
        let what = self.set_up.prompts[prompt];
        let task = self.id(what.arrives);
        let model = self.set_up.models[what.model].name.clone();
        let about = About { class: Some(Class::Llm), model: Some(model), verb: None };
        let mut brief = view::brief(index, TaskName::first(task), about, began, self.now);
        #[expect(clippy::cast_precision_loss, reason = "answers are short")]
        let seconds = what.runs as f64 / 1e3;
        brief.answer =
            Some(queue::wire::ledger_line::Took { seconds, load_seconds: None, flaw: None });
        self.ended.push(brief);
    }

    fn request_ended(&mut self, index: usize, request: &Open, began: u64) {
        let model = self.model(&request.what.model);
        let refused = self.faults.iter().any(|fault| {
            matches!(fault, Fault::Refuse { worker, until } if *worker == index && began < *until)
        });
        let about = About {
            class: Some(Class::Resource),
            model: Some(request.what.model.clone()),
            verb: Some(request.what.verb),
        };
        let mut brief = view::brief(index, request.name, about, began, self.now);
        let now = self.now;
        let held = &mut self.workers[index].held;
        match request.what.verb {
            ModelVerb::Load if refused => {
                (brief.outcome, brief.cause) = (Outcome::Failed, Some(Cause::ServerError));
            }
            ModelVerb::Load if held.iter().all(|(known, _since)| *known != model) => {
                held.push((model, now));
            }
            ModelVerb::Load => {}
            ModelVerb::Unload => held.retain(|(known, _since)| *known != model),
        }
        self.ended.push(brief);
    }

    fn model(&self, name: &str) -> usize {
        let found = self.set_up.models.iter().position(|model| model.name == name);
        found.expect("only models that are asked for are loaded")
    }

    /// The end of each task rings the brain's bell.
    pub(super) fn ring(&mut self) {
        let at = (self.last_look + BREATH).max(self.now).max(self.no_brain_until);
        if let Some(later) = self.next.iter().find(|(_time, next)| *next == Next::Look).copied()
            && later.0 > at
        {
            self.next.remove(&later);
            self.next.insert((at, Next::Look));
        }
    }

    fn look(&mut self) {
        if self.now < self.no_brain_until {
            self.next.insert((self.no_brain_until, Next::Look));
            return;
        }
        self.last_look = self.now;
        self.next.insert((self.now + TICK, Next::Look));
        self.cycle += 1;
        let snapshot = super::sim::view::snapshot(self, self.cycle);
        self.ended.clear();
        let commands = self.tell(Seen::Observed(Box::new(snapshot)));
        for command in commands {
            self.obey(command);
        }
    }

    fn tell(&mut self, event: Seen) -> Vec<Command> {
        let now = Duration::from_millis(self.now);
        let wall = Moment::from_unix_millis(START).plus_millis(millis(self.now));
        self.core.on(At { now, wall }, event)
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Request(what) => {
                let line = format!(
                    "{} {} {} {} for {}",
                    self.now, what.worker, what.verb, what.model, what.goal
                );
                self.went.decisions.push(line);
                let name = TaskName::first(self.id(self.now));
                self.open.push(Open { name, what });
            }
            Command::Withdraw(name) => self.open.retain(|open| open.name.id != name.id),
            Command::Say(event) => {
                if !matches!(event.name(), "brain.monitor" | "scaling.decision") {
                    self.went.said.push(format!("{} {}", event.name(), event.message()));
                }
            }
            // There is nobody to start, to end or to drain here, and nothing is written down.
            Command::Spawn(_)
            | Command::Stall { .. }
            | Command::Drain(_)
            | Command::Undrain(_)
            | Command::Record(_)
            | Command::RecordPlacement(_)
            | Command::Terminate(_)
            | Command::Kill(_)
            | Command::Finish => {}
        }
    }

    /// Another brain: it knows what the one before wrote down, and sees what is there.
    pub(super) fn restart(&mut self, gap: u64) {
        let measured = self.core.view().measured.clone();
        self.core = Core::new(&self.settings, Fleet::none());
        self.tell(Seen::Remembered(Box::new(measured)));
        self.no_brain_until = self.now + gap;
    }

    pub(super) fn later(&mut self, millis: u64, next: Next) {
        self.next.insert((self.now + millis, next));
    }

    /// An id made at this time.
    fn id(&mut self, time: u64) -> TaskId {
        self.ids += 1;
        let wall = u64::try_from(START).unwrap_or(0) + time;
        let text = format!("{:08x}-{:04x}-7000-8000-{:012x}", wall >> 16, wall & 0xffff, self.ids);
        text.parse().expect("it is written as an id is")
    }
}

/// As the wall counts.
pub(super) fn millis(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}
