//! What placement decides from, drawn from one look at the pool: the places where models can be,
//! the work that waits, and what was asked for and is not done yet. Nothing in here is remembered
//! from look to look, so a brain that has just started decides what the last one would have.

use std::collections::{BTreeMap, BTreeSet};

use queue::eligible::{self, Candidate};
use queue::heartbeat::Heartbeat;
use queue::lane::Requirements;
use queue::measured::Measured;
use shared::llm::{Health, HeldState, Loads, ModelServer, ModelVerb, bare_name};
use shared::name::Name;
use shared::outcome::{Cause, Outcome};
use shared::reason::Code;
use shared::task::{Class, TaskName};

use super::super::At;
use super::super::snapshot::{Lane, Snapshot};
use super::Rules;

/// How long an answer takes where none was ever measured, in seconds.
const UNKNOWN_ANSWER: f64 = 5.0;
/// How long a load takes where none was ever measured.
const UNKNOWN_LOAD: f64 = 10.0;
/// How long a script runs where none was ever measured.
const UNKNOWN_SCRIPT: f64 = 60.0;
/// What freeing a GPU for scripts costs.
const UNLOAD: f64 = 1.0;

/// One kind of work that a place can be prepared for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Tasks of this model.
    Model(String),
    /// Tasks that need a GPU without a model on it.
    Scripts,
}

impl Kind {
    /// As a request's label says it.
    pub(crate) fn word(&self) -> &str {
        match self {
            Self::Model(model) => model,
            Self::Scripts => "script",
        }
    }

    /// From a request's label.
    pub(crate) fn of_word(word: &str) -> Self {
        if word == "script" { Self::Scripts } else { Self::Model(bare_name(word).to_owned()) }
    }
}

/// Work of one kind that waits.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    pub(crate) kind: Kind,
    pub(crate) tasks: u64,
    /// How long one of them takes.
    pub(crate) seconds: f64,
    /// What preparing a place for it costs.
    pub(crate) load: f64,
    /// How long its oldest task has waited.
    pub(crate) age: f64,
    /// How much longer the most urgent one may wait.
    pub(crate) slack: f64,
    pub(crate) priority: u8,
    /// More tasks than this may not run at once.
    pub(crate) most: Option<u64>,
    /// Only these workers may take it.
    pub(crate) only: Option<BTreeSet<Name>>,
}

impl Demand {
    /// All of it, for one place that does one task at a time.
    #[expect(clippy::cast_precision_loss, reason = "a backlog need not be exact")]
    pub(crate) fn work(&self) -> f64 {
        self.tasks as f64 * self.seconds
    }
}

/// A load or unload that was asked for and has not ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) name: TaskName,
    pub(crate) worker: Name,
    pub(crate) verb: ModelVerb,
    pub(crate) model: String,
    /// The work it is for.
    pub(crate) goal: Kind,
    pub(crate) stage: Stage,
    /// For how long it has been asked for.
    pub(crate) age: f64,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nobody has taken it.
    Waiting,
    /// Its worker is at it.
    Taken,
}

/// How a place stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Standing {
    /// As it says.
    Steady,
    /// It is being prepared for this work (`None`: for what, nobody knows).
    Moving(Option<Kind>),
    /// Something has just ended there, and it has not said yet how it stands since.
    Unclear,
    /// Nothing can be asked of it.
    Out,
}

/// What a place does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Nothing,
    Something,
}

/// A model that a server has in memory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resident {
    pub(crate) model: String,
    pub(crate) state: HeldState,
    /// For how long, by its worker's clock.
    pub(crate) seconds: f64,
}

/// A model server: one place for models, however many workers share it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) host: String,
    /// Those that can be asked, idle ones first.
    pub(crate) workers: Vec<Name>,
    pub(crate) standing: Standing,
    pub(crate) loads: Loads,
    pub(crate) held: Vec<Resident>,
    pub(crate) doing: Doing,
    /// Requests at once.
    pub(crate) slots: u64,
    /// GPU memory for models at most, where known.
    pub(crate) room: Option<u64>,
    /// GPU memory that is certainly free beside what is there.
    pub(crate) spare: Option<u64>,
    pub(crate) takes_scripts: bool,
    known: Option<BTreeSet<String>>,
    /// Models that it cannot have now, and why.
    refused: BTreeMap<String, Cause>,
}

impl Place {
    /// Whether its model answers.
    pub(crate) fn has_loaded(&self, model: &str) -> bool {
        self.held.iter().any(|held| held.model == model && held.state == HeldState::Loaded)
    }

    /// Whether no model is in its memory.
    pub(crate) fn is_cold(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether it works for this kind, or is about to.
    pub(crate) fn serves(&self, kind: &Kind) -> bool {
        match (&self.standing, kind) {
            (Standing::Out | Standing::Unclear, _) => false,
            (Standing::Moving(towards), _) => towards.as_ref() == Some(kind),
            (Standing::Steady, Kind::Model(model)) => self.has_loaded(model),
            (Standing::Steady, Kind::Scripts) => self.is_cold() && self.takes_scripts,
        }
    }
}

/// Everything.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) places: Vec<Place>,
    pub(crate) demands: Vec<Demand>,
    pub(crate) asked: Vec<Asked>,
    /// Models for which anything waits, also what a limit keeps from running now.
    pub(crate) wanted: BTreeSet<String>,
    /// Idle workers and all workers that take scripts and have no model server.
    pub(crate) helpers: (u64, u64),
    pub(crate) sizes: BTreeMap<String, u64>,
}

impl World {
    /// What can be seen in this look.
    pub(crate) fn new(
        at: At,
        (seen, hung): (&Snapshot, &BTreeSet<Name>),
        (rules, measured): (&Rules, &Measured),
    ) -> Self {
        let view = View { at, seen, hung, rules, measured };
        let asked = view.asked();
        let sizes = measured.models.iter();
        let sizes = sizes.filter_map(|(name, model)| Some((name.clone(), model.vram?.0)));
        Self {
            places: view.places(&asked),
            demands: view.demands(),
            wanted: view.wanted(),
            helpers: view.helpers(),
            asked,
            sizes: sizes.collect(),
        }
    }

    /// LLM tasks that wait, of all models.
    pub(crate) fn llm_waiting(&self) -> u64 {
        let models = self.demands.iter().filter(|demand| demand.kind != Kind::Scripts);
        models.map(|demand| demand.tasks).sum()
    }

    /// Models that answer, in the whole pool.
    pub(crate) fn loaded(&self) -> u64 {
        let held = self.places.iter().flat_map(|place| &place.held);
        held.filter(|held| held.state == HeldState::Loaded).count() as u64
    }

    /// Why this place could never, or cannot now, be prepared for this work. `None`: it can.
    pub(crate) fn hindrance(&self, place: &Place, demand: &Demand) -> Option<String> {
        if let Some(only) = &demand.only
            && !place.workers.iter().any(|worker| only.contains(worker))
        {
            return Some("its tasks are addressed to other workers".to_owned());
        }
        let Kind::Model(model) = &demand.kind else {
            return (!place.takes_scripts).then(|| "it takes no scripts".to_owned());
        };
        if let Some(cause) = place.refused.get(model) {
            return Some(format!("the last load failed ({cause})"));
        }
        if place.known.as_ref().is_some_and(|known| !known.contains(model)) {
            return Some("its server does not know the model".to_owned());
        }
        match (self.sizes.get(model), place.room) {
            (Some(size), Some(room)) if *size > room => {
                Some("the model is larger than the GPU memory that others leave".to_owned())
            }
            (Some(_) | None, _) => None,
        }
    }

    /// Whether waiting alone will not change that.
    pub(crate) fn is_hopeless(&self, place: &Place, demand: &Demand) -> bool {
        let Kind::Model(model) = &demand.kind else { return false };
        let cause = place.refused.get(model);
        cause.is_some_and(|cause| matches!(cause, Cause::ModelMissing | Cause::Oom))
    }

    /// Whether a model certainly fits beside what the place holds.
    pub(crate) fn fits_beside(&self, place: &Place, model: &str) -> bool {
        match (self.sizes.get(model), place.spare) {
            (Some(size), Some(spare)) => *size <= spare,
            (Some(_) | None, _) => false,
        }
    }
}

/// What the world is drawn from.
struct View<'a> {
    at: At,
    seen: &'a Snapshot,
    hung: &'a BTreeSet<Name>,
    rules: &'a Rules,
    measured: &'a Measured,
}

impl View<'_> {
    fn asked(&self) -> Vec<Asked> {
        let waiting = self.seen.requests.iter().map(|held| (held, Stage::Waiting));
        let taken = self.seen.processing.iter().map(|held| (held, Stage::Taken));
        let mut all: Vec<Asked> = Vec::new();
        // What was claimed between the two listings is in both: taken is the later truth.
        for (held, stage) in taken.chain(waiting) {
            let Some(task) = &held.task else { continue };
            let (Some(verb), Some(model)) = (task.verb, &task.model) else { continue };
            if all.iter().any(|known| known.name.id == held.name.id) {
                continue;
            }
            let model = bare_name(model).to_owned();
            let goal = task.goal.as_deref().map(Kind::of_word);
            let made = i64::try_from(held.name.id.unix_millis()).unwrap_or(i64::MAX);
            let made = shared::time::Moment::from_unix_millis(made);
            all.push(Asked {
                name: held.name,
                worker: held.worker.clone(),
                verb,
                goal: goal.unwrap_or_else(|| Kind::Model(model.clone())),
                model,
                stage,
                age: self.at.wall.seconds_since(made),
            });
        }
        all
    }

    fn wanted(&self) -> BTreeSet<String> {
        let llm = self.seen.lanes.iter().filter(|lane| lane.count.class == Class::Llm);
        llm.filter_map(|lane| lane.count.model.as_deref().map(bare_name).map(str::to_owned))
            .collect()
    }

    fn heartbeats(&self) -> impl Iterator<Item = &Heartbeat> {
        self.seen.alive().filter_map(|(_name, worker)| worker.own_heartbeat())
    }

    fn is_open(&self, heartbeat: &Heartbeat) -> bool {
        let ability = &heartbeat.ability;
        ability.paused.is_none()
            && ability.draining.is_none()
            && !self.hung.contains(&heartbeat.worker)
    }

    /// The disk says what a worker has: its heartbeat may be a moment old.
    fn uses_gpu(&self, worker: &Name) -> bool {
        self.seen
            .processing
            .iter()
            .filter(|held| held.worker == *worker)
            .any(|held| held.task.as_ref().is_none_or(|task| task.class != Class::Cpu))
    }

    fn helpers(&self) -> (u64, u64) {
        let (mut idle, mut all) = (0, 0);
        for heartbeat in self.heartbeats() {
            let ability = &heartbeat.ability;
            let helps = ability.server.is_none() && ability.gpu.is_some();
            if helps && self.is_open(heartbeat) && ability.classes.contains(&Class::Script) {
                all += 1;
                idle += u64::from(!self.uses_gpu(&heartbeat.worker));
            }
        }
        (idle, all)
    }

    fn demands(&self) -> Vec<Demand> {
        let mut all: BTreeMap<Kind, Demand> = BTreeMap::new();
        for lane in self.seen.lanes.iter().filter(|lane| lane.limited.is_none()) {
            let Some(demand) = self.demand(lane) else { continue };
            match all.entry(demand.kind.clone()) {
                std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(demand)),
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    join(entry.get_mut(), demand);
                }
            }
        }
        all.into_values().collect()
    }

    fn demand(&self, lane: &Lane) -> Option<Demand> {
        let needs = lane.needs.as_deref();
        let kind = match (lane.count.class, &lane.count.model) {
            (Class::Llm, Some(model)) => Kind::Model(bare_name(model).to_owned()),
            (Class::Script, _) if needs.is_some_and(|needs| self.could_run(needs)) => Kind::Scripts,
            (Class::Llm | Class::Script | Class::Cpu | Class::Resource, _) => return None,
        };
        let (seconds, load) = match &kind {
            Kind::Model(model) => (
                self.measured.answer_seconds(model).unwrap_or(UNKNOWN_ANSWER),
                self.measured.load_seconds(model).unwrap_or(UNKNOWN_LOAD),
            ),
            Kind::Scripts => (self.measured.scripts.seconds().unwrap_or(UNKNOWN_SCRIPT), UNLOAD),
        };
        let age = lane.count.oldest.map_or(0.0, |oldest| self.at.wall.seconds_since(oldest));
        let own = needs.and_then(|needs| needs.max_wait);
        let max_wait = own.map_or(self.rules.max_wait, |own| own.0.as_secs_f64());
        let limits = needs.iter().flat_map(|needs| &needs.limits);
        let most = limits.filter_map(|key| self.rules.limits.get(key)).min().copied();
        Some(Demand {
            kind,
            tasks: lane.count.pending,
            seconds,
            load,
            age,
            slack: max_wait - age,
            priority: lane.count.priority_max,
            most: most.map(u64::from),
            only: needs.and_then(|needs| needs.worker.clone()).map(|worker| [worker].into()),
        })
    }

    /// Whether some worker could take it if no model were in its way.
    fn could_run(&self, needs: &Requirements) -> bool {
        let never = |code: Code| {
            code.is_impossible() || matches!(code, Code::ClassNotTaken | Code::WorkerAddressed)
        };
        self.heartbeats().any(|heartbeat| {
            let reasons = eligible::reasons(Candidate::from(heartbeat), needs);
            !reasons.iter().any(|reason| never(reason.code))
        })
    }

    fn places(&self, asked: &[Asked]) -> Vec<Place> {
        let mut members: BTreeMap<(&str, &str), Vec<&Heartbeat>> = BTreeMap::new();
        for heartbeat in self.heartbeats() {
            let Some(server) = &heartbeat.ability.server else { continue };
            let key = (heartbeat.process.host.as_str(), server.address.as_str());
            members.entry(key).or_default().push(heartbeat);
        }
        let mut places: Vec<Place> =
            members.into_values().filter_map(|members| self.place(&members, asked)).collect();
        places.sort_by(|one, other| one.workers.cmp(&other.workers));
        places
    }

    fn place(&self, members: &[&Heartbeat], asked: &[Asked]) -> Option<Place> {
        // The one that looked last knows best what their server holds.
        let newest = members.iter().max_by_key(|heartbeat| heartbeat.at)?;
        let server = newest.ability.server.as_ref()?;
        let takes = |heartbeat: &Heartbeat| {
            let classes = &heartbeat.ability.classes;
            classes.contains(&Class::Resource) || server.loads == Loads::Fixed
        };
        let able = members.iter().filter(|member| self.is_open(member) && takes(member));
        let mut able: Vec<&Heartbeat> = able.copied().collect();
        able.sort_by_key(|member| (self.uses_gpu(&member.worker), member.worker.clone()));
        let busy = members.iter().any(|member| self.uses_gpu(&member.worker));
        let held = self.held(newest, server);
        let (room, spare) = self.memory(newest, &held);
        let scripts = able.iter().any(|member| member.ability.classes.contains(&Class::Script));
        let standing = match (able.is_empty(), server.health) {
            (false, Health::Up) => self.standing(members, server, asked),
            (true, _) | (false, Health::Unknown | Health::Down | Health::Wedged) => Standing::Out,
        };
        Some(Place {
            host: newest.process.host.clone(),
            workers: able.iter().map(|member| member.worker.clone()).collect(),
            standing,
            loads: server.loads,
            held,
            doing: if busy { Doing::Something } else { Doing::Nothing },
            slots: able
                .iter()
                .map(|member| u64::from(member.ability.gpu_slots))
                .sum::<u64>()
                .max(1),
            room,
            spare,
            takes_scripts: scripts,
            known: known(server),
            refused: self.refused(newest, server),
        })
    }

    fn held(&self, heartbeat: &Heartbeat, server: &ModelServer) -> Vec<Resident> {
        let held = server.models.iter().map(|held| Resident {
            model: bare_name(&held.model).to_owned(),
            state: held.state,
            seconds: heartbeat.at.seconds_since(held.since),
        });
        held.collect()
    }

    fn standing(&self, members: &[&Heartbeat], server: &ModelServer, asked: &[Asked]) -> Standing {
        let ours = |worker: &Name| members.iter().any(|member| member.worker == *worker);
        if let Some(asked) = asked.iter().find(|asked| ours(&asked.worker)) {
            return Standing::Moving(Some(asked.goal.clone()));
        }
        // A heartbeat from before the end of the last request does not show yet what came of it.
        for member in members {
            let Some(last) = self.measured.last.get(&member.worker) else { continue };
            if last.at > member.at {
                let loaded = last.verb == ModelVerb::Load && last.outcome == Outcome::Succeeded;
                let towards = || Some(Kind::Model(last.model.clone()));
                return if loaded { Standing::Moving(towards()) } else { Standing::Unclear };
            }
        }
        // A load or unload that a worker began by itself.
        let by_itself = server.models.iter().find_map(|held| match held.state {
            HeldState::Loading => Some(Some(Kind::Model(bare_name(&held.model).to_owned()))),
            HeldState::Unloading => Some(None),
            HeldState::Loaded | HeldState::Unproven => None,
        });
        by_itself.map_or(Standing::Steady, Standing::Moving)
    }

    /// GPU memory for models: without what other processes use and what is kept free; and what of
    /// it is certainly free now. A value that cannot be read is not zero.
    fn memory(&self, heartbeat: &Heartbeat, held: &[Resident]) -> (Option<u64>, Option<u64>) {
        let Some(total) = heartbeat.ability.gpu_memory else { return (None, None) };
        let usable = total.0.saturating_sub(self.rules.vram_reserve);
        let reading = heartbeat.gpu_reading.as_ref();
        let Some(used) = reading.and_then(|gpu| gpu.memory_used.known()) else {
            return (Some(usable), None);
        };
        let size = |held: &Resident| self.measured.of(&held.model).and_then(|model| model.vram);
        let jobs: u64 = heartbeat.current.iter().filter_map(|run| run.peak_vram_bytes).sum();
        let models: Option<u64> = held.iter().map(|held| size(held).map(|size| size.0)).sum();
        // Of what size our models are is not known: then all that is used may be theirs.
        let Some(models) = models else { return (Some(usable), None) };
        let foreign = used.saturating_sub(models + jobs);
        let room = usable.saturating_sub(foreign);
        (Some(room), Some(room.saturating_sub(models + jobs)))
    }

    /// What its server refused lately. A missing model is not asked for again until the server
    /// lists it, one that is too large until it was loaded after all; others after a while.
    fn refused(&self, heartbeat: &Heartbeat, server: &ModelServer) -> BTreeMap<String, Cause> {
        let mut refused = BTreeMap::new();
        for failed in &server.failed_loads {
            if matches!(failed.cause, Cause::ModelMissing | Cause::Oom) {
                refused.insert(bare_name(&failed.model).to_owned(), failed.cause);
            }
        }
        for (model, measured) in &self.measured.models {
            let Some(failures) = measured.failures.get(&heartbeat.worker) else { continue };
            let listed = failures.cause == Cause::ModelMissing && server.knows(model) == Some(true);
            let waited = self.at.wall.seconds_since(failures.at);
            if !listed && waited < super::history::back_off(failures.count) {
                refused.insert(model.clone(), failures.cause);
            }
        }
        refused
    }
}

fn known(server: &ModelServer) -> Option<BTreeSet<String>> {
    let known = server.known.as_ref()?;
    Some(known.iter().map(|model| bare_name(model).to_owned()).collect())
}

/// Adds the work of another lane of the same kind.
fn join(all: &mut Demand, more: Demand) {
    all.tasks += more.tasks;
    all.age = all.age.max(more.age);
    all.slack = all.slack.min(more.slack);
    all.priority = all.priority.max(more.priority);
    all.most = all.most.zip(more.most).map(|(one, other)| one + other);
    all.only = match (all.only.take(), more.only) {
        (Some(mut all), Some(more)) => {
            all.extend(more);
            Some(all)
        }
        (Some(_) | None, _) => None,
    };
}
