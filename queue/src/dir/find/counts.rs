//! Counting: how many tasks are where. A directory is counted again only when it has changed, so
//! that counting a backlog of a million costs one look per directory of 4,096.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use shared::task::{Class, TaskName};
use shared::time::Moment;

use crate::Error;
use crate::dir::Pool;
use crate::dir::disk::freshness::Freshness;
use crate::dir::disk::lane_files::read_requirements;
use crate::dir::disk::listing::{self, PassedOver};
use crate::dir::layout::{Layout, Shelf};
use crate::wire::brake::BrakeKey;
use crate::wire::counts::{Counts, LaneCount, Unlisted};
use crate::wire::lane::{LaneName, Requirements};

/// Counts of directories, remembered by modification time, and what lanes are.
#[derive(Clone, Debug, Default)]
pub struct Counter {
    known: HashMap<PathBuf, Known>,
    lanes: HashMap<LaneName, Needs>,
    /// What the look that is going on could not list.
    passed_over: PassedOver,
    round: u64,
}

/// What is counted by. A lane's file never changes.
#[derive(Clone, Debug)]
struct Needs {
    class: Class,
    model: Option<Box<str>>,
    /// What may hold its tasks.
    brake: Option<BrakeKey>,
    round: u64,
}

#[derive(Clone, Debug)]
struct Known {
    freshness: Freshness,
    count: u64,
    head: Option<TaskName>,
    round: u64,
}

/// What is pending in one lane.
#[derive(Default)]
struct Pending {
    pending: u64,
    priority_max: u8,
    head: Option<TaskName>,
}

/// What is pending.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Tasks per class.
    pub by_class: BTreeMap<Class, u64>,
    /// The lanes that have tasks.
    pub lanes: HashSet<LaneName>,
}

impl Counter {
    /// Counts all places but `ending/`, at which it only looks; lists only the directories that have changed since. Those
    /// that cannot be listed are passed over, and named.
    pub fn take(&mut self, pool: &Pool) -> Result<Counts, Error> {
        let layout = pool.layout();
        self.round += 1;
        let mut counts = Counts::default();
        let lanes = self.or_none(listing::lanes(layout))?;
        for lane in lanes {
            let Some(mut lane) = self.lane(layout, lane)? else { continue };
            let held = self.held_back(pool, &lane)?;
            counts.held += held;
            lane.pending -= held;
            counts.lanes.push(lane);
        }
        counts.unlisted.extend(self.unlisted("pending"));
        counts.pending = counts.lanes.iter().map(|lane| lane.pending).sum();
        let holders = self.or_none(listing::holders(layout))?;
        counts.processing = self.sum(holders.iter().map(|worker| layout.processing_of(worker)))?;
        counts.unlisted.extend(self.unlisted("processing"));
        let dues = self.or_none(listing::due_times(layout))?;
        counts.delayed = self.sum(dues.iter().map(|due| layout.delayed().join(due.to_string())))?;
        counts.unlisted.extend(self.unlisted("delayed"));
        for (shelf, count) in [
            (Shelf::Waiting, &mut counts.waiting),
            (Shelf::Held, &mut counts.held),
            (Shelf::Failed, &mut counts.failed),
        ] {
            let dir = layout.shelf(shelf);
            let segments = self.or_none(listing::segments(&dir))?;
            *count += self.sum(segments.iter().map(|segment| dir.join(segment.dir_name())))?;
            counts.unlisted.extend(self.unlisted(shelf.as_str()));
        }
        for verb in self.or_none(listing::entries(&layout.ending()))? {
            // Of those that are just being ended nothing is counted; where they cannot be listed
            // they are not ended either.
            let _ending = self
                .or_none(listing::tasks_in(&layout.ending().join(verb)).map(|_tasks| vec![()]))?;
        }
        counts.unlisted.extend(self.unlisted("ending"));
        counts.rejected = self.or_none(rejected(layout).map(|count| vec![count]))?.iter().sum();
        counts.unlisted.extend(self.unlisted("rejected"));
        let round = self.round;
        self.known.retain(|_dir, known| known.round == round);
        self.lanes.retain(|_lane, needs| needs.round == round);
        Ok(counts)
    }

    /// What is pending, by the lanes' names alone.
    pub fn waiting(&mut self, layout: &Layout) -> Result<Waiting, Error> {
        self.round += 1;
        let mut waiting = Waiting::default();
        let lanes = self.or_none(listing::lanes(layout))?;
        for lane in lanes {
            let pending = self.pending(layout, &lane)?.pending;
            if let Some(class) = class_of(&lane).filter(|_class| pending > 0) {
                *waiting.by_class.entry(class).or_default() += pending;
                waiting.lanes.insert(lane);
            }
        }
        // Whoever counts the tasks says what was passed over.
        self.passed_over = PassedOver::default();
        let round = self.round;
        self.known.retain(|_dir, known| known.round == round);
        Ok(waiting)
    }

    fn pending(&mut self, layout: &Layout, lane: &LaneName) -> Result<Pending, Error> {
        let mut found = Pending::default();
        let priorities = self.or_none(listing::priorities(layout, lane))?;
        for priority in priorities {
            let dir = layout.pending_priority(lane, priority);
            let segments = self.or_none(listing::segments(&dir))?;
            for segment in segments {
                let (count, first) = self.count(&dir.join(segment.dir_name()))?;
                if count > 0 {
                    found.priority_max = found.priority_max.max(priority);
                    found.head = found.head.into_iter().chain(first).min();
                }
                found.pending += count;
            }
        }
        Ok(found)
    }

    fn lane(&mut self, layout: &Layout, lane: LaneName) -> Result<Option<LaneCount>, Error> {
        let Pending { pending, priority_max, head } = self.pending(layout, &lane)?;
        if pending == 0 {
            return Ok(None);
        }
        let (class, model) = match self.needs(layout, &lane) {
            Some(needs) => (Some(needs.class), needs.model.as_deref().map(str::to_owned)),
            // A lane file that is gone or garbled hides no task: the class is in the lane's name.
            None => (class_of(&lane), None),
        };
        let head = head.map(|name| name.id);
        let oldest = head.map(|id| {
            Moment::from_unix_millis(i64::try_from(id.unix_millis()).unwrap_or(i64::MAX))
        });
        let class = class.unwrap_or(Class::Script);
        Ok(Some(LaneCount { lane, class, model, priority_max, pending, head, oldest }))
    }

    /// How many tasks of a lane its brake holds: all but the one that may be tried.
    fn held_back(&mut self, pool: &Pool, lane: &LaneCount) -> Result<u64, Error> {
        let Some(Needs { brake: Some(key), .. }) = self.needs(pool.layout(), &lane.lane) else {
            return Ok(0);
        };
        Ok(if pool.brakes().holds(key)? { lane.pending - 1 } else { 0 })
    }

    fn needs(&mut self, layout: &Layout, lane: &LaneName) -> Option<&Needs> {
        let round = self.round;
        if !self.lanes.contains_key(lane) {
            let Requirements { class, model, limits, .. } = read_requirements(layout, lane).ok()?;
            let model = model.map(String::into_boxed_str);
            let brake = limits.iter().find_map(|key| BrakeKey::of_limit(key));
            self.lanes.insert(lane.clone(), Needs { class, model, brake, round });
        }
        let needs = self.lanes.get_mut(lane)?;
        needs.round = round;
        Some(needs)
    }

    fn or_none<T>(&mut self, read: Result<Vec<T>, Error>) -> Result<Vec<T>, Error> {
        Ok(self.passed_over.or_pass_over(read)?.unwrap_or_default())
    }

    /// What was passed over since this was asked last.
    fn unlisted(&mut self, state: &str) -> Vec<Unlisted> {
        std::mem::take(&mut self.passed_over).unlisted(state)
    }

    fn sum(&mut self, dirs: impl Iterator<Item = PathBuf>) -> Result<u64, Error> {
        let mut total = 0;
        for dir in dirs {
            total += self.count(&dir)?.0;
        }
        Ok(total)
    }

    fn count(&mut self, dir: &Path) -> Result<(u64, Option<TaskName>), Error> {
        let counted = self.count_dir(dir);
        Ok(self.passed_over.or_pass_over(counted)?.unwrap_or_default())
    }

    fn count_dir(&mut self, dir: &Path) -> Result<(u64, Option<TaskName>), Error> {
        let known = self.known.get(dir);
        let freshness = known.map_or(Freshness::UNKNOWN, |known| known.freshness).look(dir)?;
        let round = self.round;
        if let Some(known) = self.known.get_mut(dir).filter(|_known| freshness.is_current()) {
            (known.freshness, known.round) = (freshness, round);
            return Ok((known.count, known.head));
        }
        if freshness.is_absent() {
            return Ok((0, None));
        }
        let names = listing::tasks_in(dir)?.tasks;
        let (count, head) = (names.len() as u64, names.first().copied());
        self.known.insert(dir.to_owned(), Known { freshness, count, head, round });
        Ok((count, head))
    }
}

fn class_of(lane: &LaneName) -> Option<Class> {
    lane.as_str().split_once('-').and_then(|(class, _hash)| class.parse().ok())
}

fn rejected(layout: &Layout) -> Result<u64, Error> {
    let names = listing::entries(&layout.rejected())?;
    let reasons = names.iter().filter(|name| name.as_encoded_bytes().ends_with(b".reason"));
    Ok((names.len() - reasons.count()) as u64)
}
