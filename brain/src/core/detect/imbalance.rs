//! One worker takes nearly everything while others could help and stand idle: the failure that
//! this project was born from.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use queue::wire::brain_state::Warning;
use queue::wire::lane::LaneName;
use shared::event::Event;
use shared::name::Name;
use shared::settings::Settings;
use shared::task::Class;

use super::activity::Idlers;
use super::condition::Conditions;
use crate::core::words::at::At;
use crate::core::words::command::{Command, say};
use crate::core::words::snapshot::{Lane, Snapshot};

/// So many tasks must have ended while the sibling was idle.
const FEWEST: usize = 20;
/// One worker took at least this share of them, in percent.
const SHARE: usize = 80;
/// So many are remembered per class.
const REMEMBERED: usize = 200;

/// Watches who takes what.
#[derive(Clone, Debug)]
pub struct Imbalances {
    least_idle: Duration,
    taken: BTreeMap<Class, VecDeque<(Duration, Name)>>,
    lanes: Conditions<LaneName>,
}

/// What was found about one lane.
struct Finding {
    worker: Name,
    taken: usize,
    total: usize,
    idle: Vec<Name>,
}

impl Imbalances {
    /// Siblings count as idle after the same time after which tasks count as unclaimed.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let least_idle = settings.unclaimed_after.0;
        Self { least_idle, taken: BTreeMap::new(), lanes: Conditions::default() }
    }

    /// Takes in a look.
    pub fn look(&mut self, at: At, seen: &Snapshot, idle: Idlers<'_>, out: &mut Vec<Command>) {
        for brief in &seen.ended {
            let (Some(class), Some(worker)) = (brief.task.class, &brief.worker) else { continue };
            let taken = self.taken.entry(class).or_default();
            taken.push_back((at.now, worker.clone()));
            while taken.len() > REMEMBERED {
                taken.pop_front();
            }
        }
        let mut holding = Vec::new();
        for lane in seen.lanes.iter().filter(|lane| lane.limited.is_none()) {
            if let Some(finding) = self.find(at, seen, idle, lane) {
                holding.push(lane.count.lane.clone());
                self.tell(at, &lane.count.lane, finding, out);
            }
        }
        self.lanes.keep(at, |lane| holding.contains(lane));
    }

    /// Only what ended since the siblings became idle counts: what a worker took before it had
    /// siblings is no imbalance.
    fn find(&self, at: At, seen: &Snapshot, idle: Idlers<'_>, lane: &Lane) -> Option<Finding> {
        let needs = lane.needs.as_ref()?;
        let siblings = idle.for_lane(at, seen, needs, self.least_idle);
        let spans = siblings.iter().filter_map(|name| idle.activity.unchanged_for(at, name));
        let since = at.now.saturating_sub(spans.min()?);
        let taken = self.taken.get(&lane.count.class)?;
        let mut by_worker: BTreeMap<&Name, usize> = BTreeMap::new();
        for (_when, worker) in taken.iter().filter(|(when, _worker)| *when >= since) {
            *by_worker.entry(worker).or_default() += 1;
        }
        let total: usize = by_worker.values().sum();
        let (worker, taken) = by_worker.into_iter().max_by_key(|(_worker, count)| *count)?;
        let most = total >= FEWEST && taken * 100 >= total * SHARE;
        (most && !siblings.contains(worker)).then(|| Finding {
            worker: worker.clone(),
            taken,
            total,
            idle: siblings,
        })
    }

    fn tell(&mut self, at: At, lane: &LaneName, finding: Finding, out: &mut Vec<Command>) {
        let Some(count) = self.lanes.holds(at, lane) else { return };
        let Finding { worker, taken, total, idle } = finding;
        let (taken, total, lane) = (taken as u64, total as u64, lane.to_string());
        say(out, Event::Imbalance { lane, worker, taken, total, idle, count });
    }

    /// What somebody should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let each = self.lanes.all().map(|(lane, since)| Warning {
            code: "detect.imbalance".into(),
            text: format!("one worker takes nearly all of lane {lane} while others are idle"),
            since,
        });
        each.collect()
    }
}
