//! What placement decides from, drawn from one look at the pool: the places where models can be,
//! the work that waits, and what was asked for and is not done yet. Nothing in here is remembered
//! from look to look, so a brain that has just started decides what the last one would have.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use shared::llm::{Health, HeldState, Loads, ModelVerb, bare_name};
use shared::name::Name;
use shared::outcome::Cause;
use shared::task::TaskName;

/// One kind of work that a place can be prepared for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WorkKind {
    /// Tasks of this model.
    Model(String),
    /// Tasks that need a GPU without a model on it.
    Scripts,
}

impl WorkKind {
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
    pub(crate) kind: WorkKind,
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

    /// How long its most urgent task may wait in all.
    pub(crate) fn patience(&self) -> f64 {
        self.age + self.slack
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
    pub(crate) goal: WorkKind,
    pub(crate) stage: Stage,
    /// For how long it has been asked for.
    pub(crate) age: f64,
}

/// Where a request stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stage {
    /// Nobody has taken it.
    Waiting,
    /// Its worker is at it, for so many seconds.
    Taken { seconds: f64 },
    /// Its worker has been at it for longer than it may.
    Stuck(StuckLoad),
}

/// How a place stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Standing {
    /// As `held` says: nothing is being loaded or unloaded.
    Steady,
    /// It is being prepared for this work (`None`: for what, nobody knows).
    Moving(Option<WorkKind>),
    /// Something has just ended there, and it has not said yet how it stands since.
    Unclear,
    /// Nothing can be asked of it.
    Out,
    /// Nothing can be asked of it before the request in which it hangs is through.
    Hung(ModelVerb),
}

/// What a place does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Nothing,
    Something,
}

/// A living worker of a place, also one that cannot be asked for anything now.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: Name,
    pub(crate) access: Access,
    /// What its GPU runs, other than loads and unloads.
    pub(crate) busy: Option<Busy>,
    /// For how long it has had nothing to do, by its own clock.
    pub(crate) idle_seconds: f64,
}

/// Whether a worker can be asked for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Open,
    /// It sends no heartbeats, and would take what was asked when it goes on.
    Silent,
    /// It takes nothing, for this reason.
    Closed(&'static str),
}

/// What a worker's GPU runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Busy {
    /// For how long, where its heartbeat says it.
    pub(crate) seconds: Option<f64>,
}

/// What a server refused to load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) cause: Cause,
    /// In how many seconds it is asked again; `None`: not by itself.
    pub(crate) again: Option<f64>,
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
    pub(crate) address: String,
    pub(crate) health: Health,
    /// For how long it has been so.
    pub(crate) health_seconds: f64,
    /// Its living workers.
    pub(crate) members: Vec<Member>,
    /// Those that can be asked, idle ones first.
    pub(crate) workers: Vec<Name>,
    pub(crate) standing: Standing,
    pub(crate) loads: Loads,
    pub(crate) held: Vec<Resident>,
    pub(crate) doing: Doing,
    /// Tasks at once: the GPU slots of its workers that can be asked, and at least 1.
    pub(crate) slots: u64,
    /// GPU memory for models at most, where known.
    pub(crate) room: Option<u64>,
    /// GPU memory that is certainly free beside what is there.
    pub(crate) spare: Option<u64>,
    pub(crate) takes_scripts: bool,
    pub(super) known: Option<BTreeSet<String>>,
    /// Models that it has no time for now, and what it says.
    pub(super) busy: BTreeMap<String, String>,
    /// Models that it cannot have now, and why.
    pub(super) refused: BTreeMap<String, Refusal>,
}

impl Place {
    /// The living worker of this name that uses its server.
    pub(crate) fn member(&self, worker: &Name) -> Option<&Member> {
        self.members.iter().find(|member| member.name == *worker)
    }

    /// Whether its model answers.
    pub(crate) fn has_loaded(&self, model: &str) -> bool {
        self.held.iter().any(|held| held.model == model && held.state == HeldState::Loaded)
    }

    /// Whether anything can be asked of it.
    pub(crate) fn is_usable(&self) -> bool {
        match self.standing {
            Standing::Steady | Standing::Moving(_) | Standing::Unclear => true,
            Standing::Out | Standing::Hung(_) => false,
        }
    }

    /// Whether no model is in its memory.
    pub(crate) fn is_cold(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether it works for this kind, or is about to.
    pub(crate) fn serves(&self, kind: &WorkKind) -> bool {
        match (&self.standing, kind) {
            (Standing::Out | Standing::Hung(_) | Standing::Unclear, _) => false,
            (Standing::Moving(towards), _) => towards.as_ref() == Some(kind),
            (Standing::Steady, WorkKind::Model(model)) => self.has_loaded(model),
            (Standing::Steady, WorkKind::Scripts) => self.is_cold() && self.takes_scripts,
        }
    }
}

/// All that a plan is made from.
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
    /// How long loads of a model were measured to take.
    pub(crate) load_seconds: BTreeMap<String, f64>,
    /// How long a script was measured to run.
    pub(crate) script_seconds: Option<f64>,
}

impl World {
    /// LLM tasks that wait, of all models.
    pub(crate) fn llm_waiting(&self) -> u64 {
        let models = self.demands.iter().filter(|demand| demand.kind != WorkKind::Scripts);
        models.map(|demand| demand.tasks).sum()
    }

    /// Models that answer, in the whole pool.
    pub(crate) fn loaded(&self) -> u64 {
        let held = self.places.iter().flat_map(|place| &place.held);
        held.filter(|held| held.state == HeldState::Loaded).count() as u64
    }

    /// Whether this place could be prepared for this work now.
    pub(crate) fn can_prepare(&self, place: &Place, demand: &Demand) -> bool {
        let named = |only: &BTreeSet<Name>| place.workers.iter().any(|name| only.contains(name));
        demand.only.as_ref().is_none_or(named)
            && match &demand.kind {
                WorkKind::Scripts => place.takes_scripts,
                WorkKind::Model(model) => self.refusal(place, model).is_none(),
            }
    }

    /// Whether the model is certainly larger than what others leave of its GPU.
    pub(super) fn is_too_large(&self, place: &Place, model: &str) -> bool {
        self.sizes.get(model).zip(place.room).is_some_and(|(size, room)| *size > room)
    }

    /// Whether a model certainly fits beside what the place holds.
    pub(crate) fn fits_beside(&self, place: &Place, model: &str) -> bool {
        match (self.sizes.get(model), place.spare) {
            (Some(size), Some(spare)) => *size <= spare,
            (Some(_) | None, _) => false,
        }
    }
}

/// A request that has run for longer than it may.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StuckLoad {
    pub(crate) seconds: f64,
    pub(crate) limit: f64,
    /// What its worker says of it and of the server.
    pub(crate) evidence: Map<String, Value>,
}
