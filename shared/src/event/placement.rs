//! A decision about where a model goes, with the sums that it was made from.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::parts::{span, tenths};
use crate::llm::ModelVerb;
use crate::name::Name;

crate::outcome::words! {
    /// Why a model is loaded or unloaded.
    Purpose {
        /// Nobody serves work that waits.
        Serve = "serve",
        /// One more worker shortens the end of the work.
        Help = "help",
        /// Its oldest task has waited as long as it may.
        Due = "due",
        /// Its tasks have a higher priority than those served there.
        Priority = "priority",
        /// Scripts and models share the GPUs by the work that waits.
        Share = "share",
    }
}

/// A load or an unload that is asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Placement {
    /// The worker that the `resource` task is addressed to.
    pub worker: Name,
    /// What to do.
    pub verb: ModelVerb,
    /// The model to load; for an unload the one that makes room for `work`.
    pub model: String,
    /// For which work: a model, or `script`.
    pub work: String,
    /// Which rule of placement asks for it.
    pub purpose: Purpose,
    /// Tasks of that work that wait.
    pub waiting: u64,
    /// LLM tasks that wait, of all models.
    pub llm_waiting: u64,
    /// Models that are loaded in the whole pool.
    pub loaded: u64,
    /// Places that serve that work already.
    pub serving: u64,
    /// How long one task of it takes, as far as is known.
    pub task_seconds: f64,
    /// How long all that waits takes one place.
    pub work_seconds: f64,
    /// What the load costs.
    pub load_seconds: f64,
    /// How long the oldest task has waited.
    pub oldest_seconds: f64,
    /// When the work ends as it is; `None`: never.
    pub end_before: Option<f64>,
    /// When it ends with this.
    pub end_after: f64,
}

impl Placement {
    /// What waits, in the words of old where no model is loaded at all.
    fn why(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { work, waiting, loaded, llm_waiting, serving, .. } = self;
        if self.work == "script" {
            return write!(f, "Script tasks waiting ({waiting}) and a model holds the GPU");
        }
        match (loaded, serving) {
            (0, _) => write!(f, "LLM tasks waiting ({llm_waiting}) but no models loaded"),
            (_, 0) => write!(f, "LLM tasks waiting ({waiting}) but {work} is not loaded"),
            _ => write!(f, "LLM tasks waiting ({waiting}) for {work}, loaded by {serving}"),
        }
    }
}

impl fmt::Display for Placement {
    /// `LLM tasks waiting (125) but no models loaded - inserting load_llm task for worker-1: …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why(f)?;
        let Self { worker, verb, model, purpose, .. } = self;
        write!(f, " - inserting {verb} task for {worker}: {model} ({purpose}; ")?;
        write!(f, "{} x {} = ", self.waiting, tenths(self.task_seconds))?;
        write!(f, "{} of work, load {}, ", tenths(self.work_seconds), tenths(self.load_seconds))?;
        write!(f, "oldest waits {}, ", tenths(self.oldest_seconds))?;
        match self.end_before {
            Some(before) => {
                write!(f, "ends in {} instead of {})", tenths(self.end_after), tenths(before))
            }
            None => write!(f, "ends in {})", tenths(self.end_after)),
        }
    }
}

/// When a model can be loaded that all who could load it have no time for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadOutlook {
    /// The workers that could, and are at other work.
    pub busy: Vec<Name>,
    /// In how many seconds the first of their scripts usually ends; `None` where that was never
    /// measured.
    pub seconds: Option<f64>,
    /// In how many seconds its oldest task has waited as long as it may; not above 0 where it has.
    pub due_seconds: f64,
}

/// `LLM tasks waiting (125) but no models loaded - worker-1, worker-2 are at other work: …`
pub(super) fn deferred(
    model: &str,
    waiting: u64,
    llm_waiting: u64,
    loaded: u64,
    outlook: &LoadOutlook,
) -> String {
    let what = match loaded {
        0 => format!("LLM tasks waiting ({llm_waiting}) but no models loaded"),
        _ => format!("LLM tasks waiting ({waiting}) but {model} is not loaded"),
    };
    let LoadOutlook { busy, seconds, due_seconds } = outlook;
    let usual = seconds.map_or_else(String::new, |s| format!(", usually in {}", span(s)));
    let due = match *due_seconds {
        due if due > 0.0 => format!("and before all other work from {} on", span(due)),
        _ => "and before all other work, as it has waited as long as it may".to_owned(),
    };
    let names: Vec<&str> = busy.iter().map(Name::as_str).collect();
    let (names, are) = (names.join(", "), if busy.len() == 1 { "is" } else { "are" });
    format!("{what} - {names} {are} at other work: a load can come when that ends{usual}, {due}")
}

/// `worker-1: asked 62s ago, and has not begun; worker-2: …`
pub(super) fn each(states: &BTreeMap<Name, String>) -> String {
    let each: Vec<String> =
        states.iter().map(|(worker, state)| format!("{worker}: {state}")).collect();
    each.join("; ")
}

/// When a load that failed is asked for again.
pub(super) fn again(seconds: Option<f64>) -> String {
    match seconds {
        Some(seconds) => format!("not asked for again there for {}", span(seconds)),
        None => "not asked for again there until its server's list of models changes".to_owned(),
    }
}
