//! Why a worker does not have a model that tasks wait for. One rule for all that is said of it:
//! goals that are not met, models that nobody can load, loads that have to wait for scripts.

use std::fmt;

use shared::llm::{Health, Loads, ModelVerb};
use shared::quantity::Span;

use super::world::{
    Access, Asked, Demand, Member, Place, Refusal, Stage, Standing, StuckLoad, WorkKind, World,
};

/// What stands between a worker and the model. Lengths are in seconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Lack {
    /// Only other workers can take the tasks.
    OthersOnly,
    /// Its server loads nothing on request, and has other models.
    Fixed,
    /// It takes nothing, for this reason.
    Closed(&'static str),
    /// It has been loading it for so long; how long that usually takes.
    Loading { seconds: f64, usual: Option<f64> },
    /// It was asked to so long ago, and has not begun; whether it is heard of.
    Asked { seconds: f64, silent: bool },
    /// It was asked to so long ago, and its server says that it is busy.
    ServerBusy { seconds: f64, message: String },
    /// It sends no heartbeats.
    Silent,
    /// Its server has not answered for so long.
    Down { health: Health, address: String, seconds: f64 },
    /// How its server fares is not known yet.
    NotYet,
    /// Its server hangs in loading or unloading another model.
    Hangs { verb: ModelVerb, model: String },
    /// Its server does not know the model.
    NotKnown,
    /// The model is larger than the GPU memory that others leave.
    TooLarge,
    /// The last load failed.
    Refused(Refusal),
    /// Its server is kept for other work.
    Kept(WorkKind),
    /// Its GPU runs something else.
    Busy,
    /// It could be asked, and is not: others are before it, or nothing would be done sooner.
    Turn,
}

/// What a lack means for the tasks that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The worker could help: this should be over soon, and is spoken of where it is not.
    Open,
    /// It is over when other work is.
    Later,
    /// The worker cannot help as things are.
    Never,
}

impl Lack {
    /// What it means for the tasks that wait.
    pub(crate) const fn meaning(&self) -> Meaning {
        match self {
            Self::Loading { .. }
            | Self::Asked { .. }
            | Self::ServerBusy { .. }
            | Self::Silent
            | Self::Down { .. }
            | Self::NotYet
            | Self::Hangs { .. }
            | Self::Refused(Refusal { again: Some(_), .. })
            | Self::Turn => Meaning::Open,
            Self::Kept(_) | Self::Busy => Meaning::Later,
            Self::OthersOnly
            | Self::Fixed
            | Self::Closed(_)
            | Self::NotKnown
            | Self::TooLarge
            | Self::Refused(Refusal { again: None, .. }) => Meaning::Never,
        }
    }

    /// Whether nothing can be loaded there at this moment, though that may pass.
    pub(crate) const fn is_shut(&self) -> bool {
        matches!(self, Self::Silent | Self::Down { .. } | Self::Refused(_))
            || matches!(self.meaning(), Meaning::Never)
    }

    /// Whether a request for the load stands.
    pub(crate) const fn is_requested(&self) -> bool {
        matches!(self, Self::Loading { .. } | Self::Asked { .. } | Self::ServerBusy { .. })
    }
}

impl World {
    /// Why this worker of this place does not have the model, the most decisive reason alone.
    /// `None`: it has it, or scripts are what waits.
    pub(crate) fn lack(&self, place: &Place, member: &Member, demand: &Demand) -> Option<Lack> {
        let WorkKind::Model(model) = &demand.kind else { return None };
        if place.has_loaded(model) {
            return None;
        }
        let lack = Self::closed(place, member, demand)
            .or_else(|| self.of_request(place, member, model))
            .or_else(|| Self::unheard(place, member))
            .or_else(|| self.refusal(place, model))
            .or_else(|| self.other_work(place, member, model));
        Some(lack.unwrap_or(Lack::Turn))
    }

    /// Why no load is asked for now: for each model that is wanted, what each worker lacks.
    pub(crate) fn no_load(&self) -> String {
        let models = self.demands.iter().filter_map(|demand| match &demand.kind {
            WorkKind::Model(model) => Some((model, demand)),
            WorkKind::Scripts => None,
        });
        let each = models.map(|(model, demand)| {
            let members = self
                .places
                .iter()
                .flat_map(|place| place.members.iter().map(move |member| (place, member)));
            let lacks = members.map(|(place, member)| match self.lack(place, member, demand) {
                None => format!("{} has it", member.name),
                Some(lack) => format!("{}: {lack}", member.name),
            });
            let lacks: Vec<String> = lacks.collect();
            let lacks = if lacks.is_empty() {
                "no worker has a server".to_owned()
            } else {
                lacks.join("; ")
            };
            format!("{model} ({} waiting): {lacks}", demand.tasks)
        });
        let each: Vec<String> = each.collect();
        if each.is_empty() {
            "no task that could run waits for a model".to_owned()
        } else {
            each.join(". ")
        }
    }

    /// It never does, or was told not to.
    fn closed(place: &Place, member: &Member, demand: &Demand) -> Option<Lack> {
        if demand.only.as_ref().is_some_and(|only| !only.contains(&member.name)) {
            return Some(Lack::OthersOnly);
        }
        if place.loads == Loads::Fixed && place.health == Health::Up {
            return Some(Lack::Fixed);
        }
        match member.access {
            Access::Closed(why) => Some(Lack::Closed(why)),
            Access::Open | Access::Silent => None,
        }
    }

    /// What was asked of the place and is not done.
    fn of_request(&self, place: &Place, member: &Member, model: &str) -> Option<Lack> {
        let own = || self.asked.iter().filter(|asked| place.member(&asked.worker).is_some());
        let is_load = |asked: &&Asked| asked.verb == ModelVerb::Load && asked.model == model;
        if let Some(asked) = own().find(is_load) {
            let busy = place.member(&asked.worker).is_some_and(|member| member.busy.is_some());
            return Some(match &asked.stage {
                Stage::Waiting if busy => Lack::Busy,
                Stage::Waiting => match place.busy.get(model) {
                    Some(message) => {
                        Lack::ServerBusy { seconds: asked.age, message: message.clone() }
                    }
                    None => {
                        let silent = member.access == Access::Silent;
                        Lack::Asked { seconds: asked.age, silent }
                    }
                },
                Stage::Taken { seconds } | Stage::Stuck(StuckLoad { seconds, .. }) => {
                    let usual = self.load_seconds.get(model).copied();
                    Lack::Loading { seconds: *seconds, usual }
                }
            });
        }
        let stuck = own().find(|asked| matches!(asked.stage, Stage::Stuck(_)))?;
        Some(Lack::Hangs { verb: stuck.verb, model: stuck.model.clone() })
    }

    /// The worker or its server says nothing.
    fn unheard(place: &Place, member: &Member) -> Option<Lack> {
        if member.access == Access::Silent {
            return Some(Lack::Silent);
        }
        match place.health {
            Health::Up => None,
            Health::Unknown => Some(Lack::NotYet),
            health @ (Health::Down | Health::Wedged) => {
                let (address, seconds) = (place.address.clone(), place.health_seconds);
                Some(Lack::Down { health, address, seconds })
            }
        }
    }

    /// Its server would not, or cannot.
    pub(super) fn refusal(&self, place: &Place, model: &str) -> Option<Lack> {
        if let Some(refusal) = place.refused.get(model) {
            return Some(Lack::Refused(*refusal));
        }
        if place.known.as_ref().is_some_and(|known| !known.contains(model)) {
            return Some(Lack::NotKnown);
        }
        self.is_too_large(place, model).then_some(Lack::TooLarge)
    }

    fn other_work(&self, place: &Place, member: &Member, model: &str) -> Option<Lack> {
        let ours = WorkKind::Model(model.to_owned());
        if let Standing::Moving(Some(kind)) = &place.standing {
            return (*kind != ours).then(|| Lack::Kept(kind.clone()));
        }
        let kept =
            place.held.iter().find(|held| held.model != model && self.wanted.contains(&held.model));
        if let Some(held) = kept {
            return Some(Lack::Kept(WorkKind::Model(held.model.clone())));
        }
        member.busy.is_some().then_some(Lack::Busy)
    }
}

impl fmt::Display for Lack {
    /// What follows the worker's name and a colon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OthersOnly => f.write_str("only other workers can take its tasks"),
            Self::Fixed => f.write_str("its server loads nothing on request"),
            Self::Closed(why) => f.write_str(why),
            Self::Loading { seconds, usual: Some(usual) } => {
                write!(
                    f,
                    "loading for {}, usually {}",
                    Span::rounded(*seconds),
                    Span::rounded(*usual)
                )
            }
            Self::Loading { seconds, usual: None } => {
                write!(
                    f,
                    "loading for {}; how long that takes was never measured",
                    Span::rounded(*seconds)
                )
            }
            Self::Asked { seconds, silent: false } => {
                write!(f, "asked {} ago, and has not begun", Span::rounded(*seconds))
            }
            Self::Asked { seconds, silent: true } => {
                write!(f, "asked {} ago, and sends no heartbeats", Span::rounded(*seconds))
            }
            Self::ServerBusy { seconds, message } => {
                write!(f, "asked {} ago, its server is busy: {message}", Span::rounded(*seconds))
            }
            Self::Silent => f.write_str("not asked: it sends no heartbeats"),
            Self::Down { health: Health::Wedged, address, seconds } => {
                write!(f, "not asked: {address} has been wedged for {}", Span::rounded(*seconds))
            }
            Self::Down { address, seconds, .. } => {
                write!(f, "not asked: {address} has been down for {}", Span::rounded(*seconds))
            }
            Self::NotYet => f.write_str("not asked: its server has not been heard of yet"),
            Self::Hangs { verb, model } => {
                write!(f, "not asked: its server hangs in {} {model}", verb.doing())
            }
            Self::NotKnown => f.write_str("its server does not know the model"),
            Self::TooLarge => {
                f.write_str("the model is larger than the GPU memory that others leave")
            }
            Self::Refused(Refusal { cause, again: Some(seconds) }) => {
                write!(
                    f,
                    "the last load failed ({cause}), asked again in {}",
                    Span::rounded(*seconds)
                )
            }
            Self::Refused(Refusal { cause, again: None }) => {
                write!(f, "the last load failed ({cause})")
            }
            Self::Kept(WorkKind::Model(model)) => write!(f, "its server is kept for {model}"),
            Self::Kept(WorkKind::Scripts) => f.write_str("its GPU is kept for scripts"),
            Self::Busy => f.write_str("its GPU runs something else"),
            Self::Turn => f.write_str("not asked: it waits its turn"),
        }
    }
}
