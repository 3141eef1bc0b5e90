//! What is in the pool now. What has not changed is not read again, so that looking at a pool in
//! which nothing happens costs a few system calls per directory and worker.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use queue::dir::claim::limit_slots;
use queue::dir::disk::freshness::Freshness;
use queue::dir::disk::lane_files::read_requirements;
use queue::dir::disk::listing::{self, PassedOver};
use queue::dir::disk::place::{Found, Place};
use queue::dir::find::counts::Counter;
use queue::dir::find::places::pending_places;
use queue::dir::layout::Layout;
use queue::dir::ledger::follow::Follower;
use queue::dir::ledger::lines::Damaged;
use queue::dir::presence::{brain_state, heartbeats, lease};
use queue::dir::signal::control::{self, ControlVerb};
use queue::wire::brain_state::BrainState;
use queue::wire::brake::{BrakeKey, Gate};
use queue::wire::completed_lately::CompletedLately;
use queue::wire::counts::{Counts, LaneCount};
use queue::wire::heartbeat::Heartbeat;
use queue::wire::lane::{LaneName, Requirements};
use queue::wire::lease_record::Record;
use queue::wire::ledger_line::Brief;
use queue::{Error, Pool};
use shared::name::Name;
use shared::outcome::Outcome;
use shared::task::{Class, TaskName};
use shared::time::Moment;

use crate::core::words::snapshot::{About, Held, Lane, Life, Worker};

/// A file's content, as long as the file stays the same.
struct Cache<T> {
    known: HashMap<Name, Known<T>>,
}

struct Known<T> {
    freshness: Freshness,
    content: Option<Arc<T>>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

impl<T> Cache<T> {
    fn get(
        &mut self,
        name: &Name,
        path: &Path,
        read: impl FnOnce() -> Result<Option<T>, Error>,
    ) -> Result<Option<Arc<T>>, Error> {
        let known = self.known.get(name);
        let freshness = known.map_or(Freshness::UNKNOWN, |known| known.freshness).look(path)?;
        let content = match known {
            // What comes just after the look is read at the next one.
            _ if freshness.is_absent() => None,
            Some(known) if freshness.is_current() => known.content.clone(),
            Some(_) | None => read()?.map(Arc::new),
        };
        self.known.insert(name.clone(), Known { freshness, content: content.clone() });
        Ok(content)
    }

    /// What is not there any more is not remembered.
    fn keep(&mut self, names: &[Name]) {
        self.known.retain(|name, _known| names.contains(name));
    }
}

/// What is remembered between two looks.
pub(crate) struct Observer {
    pool: Pool,
    counter: Counter,
    heartbeats: Cache<Heartbeat>,
    records: Cache<Record>,
    requirements: HashMap<LaneName, Arc<Requirements>>,
    tasks: HashMap<TaskName, Option<Arc<About>>>,
    requests: HashMap<TaskName, Option<Arc<About>>>,
    follower: Follower,
    unseen: Unseen,
    /// Tasks that succeeded, and that were cancelled, since the pool was made.
    pub(crate) complete: u64,
    pub(crate) cancelled: u64,
    /// What succeeded lately.
    pub(crate) completions: CompletedLately,
}

/// So many of the work's ends before the first look are looked at, to learn how long it takes: the
/// last ones read, which is file by file of a day, and not in the order of their times.
const PAST: usize = 10_000;

/// What is worth knowing of the ends before the first look.
#[derive(Default)]
struct Past {
    /// Loads and unloads: all of them. They are few, and the last of each worker decides where its
    /// models go.
    requests: Vec<Brief>,
    work: VecDeque<Brief>,
}

impl Past {
    fn add(&mut self, brief: Brief) {
        match brief.task.class {
            Some(Class::Resource) => self.requests.push(brief),
            Some(Class::Llm | Class::Script) => self.work.push_back(brief),
            // A long history of other work is of no use to anybody.
            Some(Class::Cpu) | None => {}
        }
        if self.work.len() > PAST {
            self.work.pop_front();
        }
    }

    fn all(self) -> Vec<Brief> {
        self.requests.into_iter().chain(self.work).collect()
    }
}

/// Attempts that ended and that nobody was told of yet.
enum Unseen {
    /// What ended before the first look, as far as it was read.
    Before(Past),
    /// All of that, and what came since.
    Since(Ended),
}

impl Unseen {
    fn add(&mut self, brief: Brief) {
        match self {
            Self::Before(past) => past.add(brief),
            Self::Since(ended) => ended.news.push(brief),
        }
    }

    /// All that was there is read.
    fn caught_up(&mut self) {
        if let Self::Before(past) = self {
            let past = std::mem::take(past).all();
            *self = Self::Since(Ended { news: Vec::new(), past });
        }
    }
}

impl Observer {
    /// Goes on counting where the last brain stopped.
    pub(crate) fn new(pool: &Pool, before: Option<&BrainState>) -> Self {
        let follower = before.map_or_else(Follower::from_start, |state| {
            Follower::resume(pool.layout(), &state.ledger)
        });
        Self {
            pool: pool.clone(),
            counter: Counter::default(),
            heartbeats: Cache::default(),
            records: Cache::default(),
            requirements: HashMap::new(),
            tasks: HashMap::new(),
            requests: HashMap::new(),
            follower,
            unseen: Unseen::Before(Past::default()),
            complete: before.map_or(0, |state| state.counts.complete),
            cancelled: before.map_or(0, |state| state.counts.cancelled),
            completions: before.map(|state| state.completions.clone()).unwrap_or_default(),
        }
    }

    /// How many tasks are where.
    pub(crate) fn counts(&mut self) -> Result<Counts, Error> {
        self.counter.take(&self.pool)
    }

    /// The lanes, with what they need.
    pub(crate) fn lanes(&mut self, counts: &[LaneCount]) -> Result<Vec<Lane>, Error> {
        let there: HashSet<&LaneName> = counts.iter().map(|count| &count.lane).collect();
        self.requirements.retain(|name, _needs| there.contains(name));
        let mut in_use = HashMap::new();
        counts.iter().map(|count| self.lane(count, &mut in_use)).collect()
    }

    /// `in_use` holds the slots of each limit that are in use, as far as it was looked.
    fn lane(
        &mut self,
        count: &LaneCount,
        in_use: &mut HashMap<String, u32>,
    ) -> Result<Lane, Error> {
        let needs = match self.requirements.get(&count.lane) {
            Some(needs) => Some(needs.clone()),
            // A lane file that cannot be read is the workers' to complain about.
            None => read_requirements(self.pool.layout(), &count.lane).ok().map(Arc::new),
        };
        if let Some(needs) = &needs {
            self.requirements.insert(count.lane.clone(), needs.clone());
        }
        let allowed = self.pool.limits();
        let (mut limited, mut most) = (None, None::<u32>);
        for key in needs.iter().flat_map(|needs| &needs.limits) {
            let Some(allowed) = allowed.get(key).copied().or_else(|| self.braked(key)) else {
                continue;
            };
            most = Some(most.map_or(allowed, |most| most.min(allowed)));
            let used = match in_use.get(key) {
                Some(used) => *used,
                None => limit_slots::in_use(&self.pool, key).unwrap_or(0),
            };
            in_use.insert(key.clone(), used);
            if used >= allowed {
                limited = Some(key.clone());
            }
        }
        Ok(Lane { count: count.clone(), needs, limited, most })
    }

    /// How many tasks a brake of this key lets through now; `None` where it holds none back.
    fn braked(&self, key: &str) -> Option<u32> {
        let key = BrakeKey::of_limit(key)?;
        match self.pool.brakes().gate(&key, Moment::now()).ok()? {
            Gate::Open | Gate::Over => None,
            Gate::Probe => Some(1),
            Gate::Wait(_) => Some(0),
        }
    }

    /// The workers: those with a lease, those with a heartbeat.
    pub(crate) fn workers(
        &mut self,
        lives: &BTreeMap<Name, Life>,
    ) -> Result<BTreeMap<Name, Worker>, Error> {
        let mut names = heartbeats::workers(&self.pool)?;
        names.extend(lives.keys().cloned());
        names.sort();
        names.dedup();
        self.records.keep(&names);
        self.heartbeats.keep(&names);
        let with_worker = |name: Name| {
            let life = lives.get(&name).copied().unwrap_or(Life::NoLease);
            self.worker(&name, life).map(|worker| (name, worker))
        };
        names.into_iter().map(with_worker).collect()
    }

    fn worker(&mut self, name: &Name, life: Life) -> Result<Worker, Error> {
        let (pool, layout) = (&self.pool, self.pool.layout());
        let path = layout.worker_lock(name);
        let record = self.records.get(name, &path, || lease::read(layout, name))?;
        let path = layout.heartbeat(name);
        // One that cannot be read is none; it is written anew within seconds.
        let read = || Ok(heartbeats::read(pool, name).unwrap_or_default());
        let heartbeat = self.heartbeats.get(name, &path, read)?;
        let process = match (life, &record) {
            (Life::Alive, Some(record)) => queue::fence::state_of(record.process.pid),
            (Life::Alive | Life::Unsettled | Life::Over | Life::NoLease, _) => None,
        };
        Ok(Worker { life, record, heartbeat, process })
    }

    /// What is claimed, and by whom. Each task file is read once.
    pub(crate) fn processing(&mut self) -> Result<Vec<Held>, Error> {
        let mut all = Vec::new();
        let mut passed_over = PassedOver::default();
        for worker in listing::holders(self.pool.layout())? {
            let place = Place::Processing { worker: worker.clone() };
            let names = listing::tasks_in(&place.dir(self.pool.layout()));
            for name in passed_over.or_pass_over(names)?.unwrap_or_default().tasks {
                let found = Found { place: place.clone(), name };
                let task = match self.tasks.get(&name) {
                    Some(task) => task.clone(),
                    None => self.about(&found),
                };
                self.tasks.insert(name, task.clone());
                all.push(Held { worker: worker.clone(), name, task });
            }
        }
        self.tasks.retain(|name, _task| all.iter().any(|held| held.name == *name));
        Ok(all)
    }

    /// Loads and unloads that nobody has taken: at most one per worker, so they are read.
    pub(crate) fn requests(&mut self, lanes: &[Lane]) -> Result<Vec<Held>, Error> {
        let mut all = Vec::new();
        let asked = lanes.iter().filter(|lane| lane.count.class == Class::Resource);
        for lane in asked {
            let Some(worker) = lane.needs.as_ref().and_then(|needs| needs.worker.clone()) else {
                continue;
            };
            for found in pending(self.pool.layout(), &lane.count.lane)? {
                let task = match self.requests.get(&found.name) {
                    Some(task) => task.clone(),
                    None => self.about(&found),
                };
                self.requests.insert(found.name, task.clone());
                all.push(Held { worker: worker.clone(), name: found.name, task });
            }
        }
        self.requests.retain(|name, _task| all.iter().any(|held| held.name == *name));
        Ok(all)
    }

    /// A task that moved on or cannot be read is its worker's to deal with.
    fn about(&self, found: &Found) -> Option<Arc<About>> {
        let task = found.read(self.pool.layout()).ok()??;
        let stall_timeout = task.spec.stall_timeout.map(|limit| limit.0);
        Some(Arc::new(About {
            name: task.name(),
            class: task.class(),
            stall_timeout,
            log_cap: task.spec.log_cap,
            model: task.spec.model.clone(),
            verb: task.spec.verb,
            goal: task.spec.labels.get(GOAL).cloned(),
        }))
    }

    /// Reads what the ledger has got. Where that fails, what was read until then counts, and the
    /// next look goes on after it.
    pub(crate) fn follow(&mut self) -> Result<(), Error> {
        let (complete, cancelled) = (&mut self.complete, &mut self.cancelled);
        let completions = &mut self.completions;
        let unseen = &mut self.unseen;
        self.follower.follow(self.pool.layout(), |brief| {
            match brief.end_of_task() {
                Some(Outcome::Succeeded) => {
                    *complete += 1;
                    completions.add(brief.ended_at);
                }
                Some(Outcome::Cancelled) => *cancelled += 1,
                Some(Outcome::Failed | Outcome::Returned) | None => {}
            }
            unseen.add(brief);
        })?;
        self.unseen.caught_up();
        Ok(())
    }

    /// Attempts that ended since the last look. What ended before the first look is counted, but
    /// is no news; it is told when all of it is read.
    pub(crate) fn ended(&mut self) -> Ended {
        match &mut self.unseen {
            Unseen::Before(_) => Ended::default(),
            Unseen::Since(ended) => std::mem::take(ended),
        }
    }

    /// Lines of the ledger that say something that cannot be understood, once each.
    pub(crate) fn damaged(&mut self) -> Vec<Damaged> {
        self.follower.take_damaged()
    }

    /// Lines of the ledger that broke off.
    pub(crate) fn torn(&self) -> u64 {
        self.follower.torn
    }

    /// How far the ledger was read.
    pub(crate) fn ledger_offsets(&self) -> BTreeMap<String, u64> {
        self.follower.offsets(self.pool.layout())
    }

    /// Workers that are asked to drain, and by whom.
    pub(crate) fn drains(&self, names: &[Name]) -> Result<BTreeMap<Name, String>, Error> {
        let mut drains = BTreeMap::new();
        for name in names {
            // A message that cannot be read is no message.
            let asked = control::standing(self.pool.layout(), name, ControlVerb::Drain);
            if let Ok(Some(message)) = asked {
                drains.insert(name.clone(), message.by);
            }
        }
        Ok(drains)
    }
}

/// Attempts that ended, as the ledger says. Each is handed out once.
#[derive(Default)]
pub(crate) struct Ended {
    /// Since the last look.
    pub(crate) news: Vec<Brief>,
    /// Before the first one.
    pub(crate) past: Vec<Brief>,
}

/// The label that says for which work a model is loaded or unloaded.
pub(crate) const GOAL: &str = "for";

/// The pending tasks of one lane.
pub(crate) fn pending(layout: &Layout, lane: &LaneName) -> Result<Vec<Found>, Error> {
    let mut all = Vec::new();
    let mut passed_over = PassedOver::default();
    for place in pending_places(layout, lane, &mut passed_over)? {
        let names = passed_over.or_pass_over(listing::tasks_in(&place.dir(layout)))?;
        let names = names.unwrap_or_default().tasks.into_iter();
        all.extend(names.map(|name| Found { place: place.clone(), name }));
    }
    Ok(all)
}

/// What the last brain wrote. What cannot be read is counted anew.
pub(crate) fn last_state(pool: &Pool) -> Option<BrainState> {
    brain_state::read(pool.layout()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixture::Stage;
    use shared::settings::Settings;

    fn briefs(class: Class, count: u32) -> Vec<Brief> {
        let mut stage = Stage::new(&Settings::default());
        stage.ended("worker-1", class, count);
        stage.seen.ended
    }

    #[test]
    fn of_a_long_past_no_request_is_forgotten_and_of_the_work_the_last() {
        let requests = briefs(Class::Resource, 3);
        let work = briefs(Class::Llm, u32::try_from(PAST).unwrap() + 1);
        let cpu = briefs(Class::Cpu, 1);
        let mut unseen = Unseen::Before(Past::default());
        for brief in requests.iter().chain(&work).chain(&cpu) {
            unseen.add(brief.clone());
        }
        unseen.caught_up();
        unseen.add(cpu[0].clone());
        unseen.caught_up();
        let Unseen::Since(ended) = unseen else { panic!("it is caught up") };
        let ids = |briefs: &[Brief]| briefs.iter().map(|brief| brief.id).collect::<Vec<_>>();
        let kept: Vec<Brief> = requests.iter().chain(&work[1..]).cloned().collect();
        assert_eq!(ids(&ended.past), ids(&kept));
        assert_eq!(ids(&ended.news), ids(&cpu), "what came since, whatever it is");
    }
}
