//! The brain as it is seen from outside: its lock says whether it lives, `brain/state.json` what
//! it last saw.

use serde_json::{Value, json};
use shared::reason::{Code, Reason};
use shared::time::Moment;

use crate::dir::Pool;
use crate::dir::disk::lock::{self, Holder, Lock};
use crate::dir::disk::plain_file;
use crate::wire::brain_state::BrainRecord;
use crate::wire::uptime::Uptime;
use crate::{Error, uptime};

/// The brain's word is taken up to this age.
const FRESH_SECONDS: f64 = 15.0;
/// A brain that has written nothing for so long is called hung.
const HUNG_SECONDS: f64 = 60.0;

/// The brain, as far as it can be seen.
#[derive(Clone, Debug, Default)]
pub struct Brain {
    /// Whether its lock is held.
    pub alive: bool,
    /// What it last wrote about itself and the pool.
    pub state: Option<Value>,
    /// What its lock file says.
    record: Option<Value>,
    /// The process that takes over when it dies.
    pub standby: Option<u32>,
}

impl Brain {
    /// Looks at the brain's locks and state file. That there is no brain is no error.
    pub fn see(pool: &Pool) -> Result<Self, Error> {
        let layout = pool.layout();
        let alive = Lock::probe(&layout.brain_lock())? == Holder::Somebody;
        let path = layout.brain_state();
        // The state of a brain of another version, or what is no state, is none: then we look for
        // ourselves.
        let text = plain_file::read(&path).ok().flatten();
        let state = text.and_then(|text| serde_json::from_slice(&text).ok());
        let record = lock::read_record(&layout.brain_lock())?;
        let standby = match Lock::probe(&layout.standby_lock())? {
            Holder::Somebody => lock::read_record(&layout.standby_lock())?,
            Holder::Nobody | Holder::NoFile => None,
        };
        let standby = standby.map(|standby: BrainRecord| standby.process.pid);
        Ok(Self { alive, state, record, standby })
    }

    /// What it wrote, if it lives and wrote it lately.
    #[must_use]
    pub fn fresh(&self, now: Moment) -> Option<&Value> {
        let fresh = self.alive && self.age(now)? < FRESH_SECONDS;
        self.state.as_ref().filter(|_| fresh)
    }

    fn as_of(&self) -> Option<Moment> {
        self.state.as_ref()?.get("as_of")?.as_str()?.parse().ok()
    }

    /// How many seconds ago it wrote that.
    fn age(&self, now: Moment) -> Option<f64> {
        let uptime = self.state.as_ref()?.get("uptime").cloned();
        let uptime = uptime.and_then(|uptime| serde_json::from_value::<Uptime>(uptime).ok());
        Some(uptime::age(uptime.as_ref(), self.as_of()?, now))
    }

    /// That it lives and does nothing, if so. A brain that began a moment ago has written nothing
    /// yet.
    #[must_use]
    pub fn hung(&self, now: Moment) -> Option<Reason> {
        let since: Option<Moment> = self.says("since").as_str().and_then(|text| text.parse().ok());
        let written = self.as_of().zip(self.age(now));
        // What another brain wrote before says nothing about this one.
        let ours = self.state.as_ref().is_some_and(|state| state["since"] == self.says("since"));
        let began = since.map(|since| (since, now.seconds_since(since)));
        let (last, seconds) = if ours { written } else { began.or(written) }?;
        let text = format!("the brain lives, but has written nothing for {seconds:.0}s");
        let reason =
            || Reason::new(Code::BrainHung, text).since(last).evidence("pid", self.says("pid"));
        (self.alive && seconds > HUNG_SECONDS).then(reason)
    }

    fn says(&self, field: &str) -> Value {
        if !self.alive {
            return Value::Null;
        }
        let record = self.record.as_ref();
        let process = record.and_then(|record| record.pointer(&format!("/process/{field}")));
        let own = record.and_then(|record| record.get(field));
        let state = self.state.as_ref().and_then(|state| state.get(field));
        process.or(own).or(state).cloned().unwrap_or(Value::Null)
    }

    /// As `queue status --json` shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "alive": self.alive,
            "pid": self.says("pid"),
            "since": self.says("since"),
            "standby": self.standby,
        })
    }
}
