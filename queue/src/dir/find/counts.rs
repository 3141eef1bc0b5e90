//! Counting: how many tasks are where. A directory is counted again only when it has changed, so
//! that counting a backlog of a million costs one look per directory of 4,096.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use shared::task::{Class, TaskName};
use shared::time::Moment;

use super::places::pending_places;
use crate::Error;
use crate::dir::disk::freshness::Freshness;
use crate::dir::disk::lane_files::read_requirements;
use crate::dir::disk::listing::{self, PassedOver};
use crate::dir::disk::place::Place;
use crate::dir::layout::{Layout, Shelf};
use crate::wire::counts::{Counts, LaneCount, Unlisted};
use crate::wire::lane::LaneName;

/// Counts of directories, remembered by modification time.
#[derive(Clone, Debug, Default)]
pub struct Counter {
    known: HashMap<PathBuf, Known>,
    round: u64,
}

#[derive(Clone, Debug)]
struct Known {
    freshness: Freshness,
    count: u64,
    head: Option<TaskName>,
    round: u64,
}

impl Counter {
    /// Counts all places but `ending/`; lists only the directories that have changed since. Those
    /// that cannot be listed are passed over, and named.
    pub fn take(&mut self, layout: &Layout) -> Result<Counts, Error> {
        self.round += 1;
        let mut counts = Counts::default();
        let mut look = Look { counter: self, layout, passed_over: PassedOver::default() };
        look.pending(&mut counts.lanes)?;
        counts.unlisted.extend(look.unlisted("pending"));
        counts.pending = counts.lanes.iter().map(|lane| lane.pending).sum();
        let holders = look.or_none(listing::holders(layout))?;
        counts.processing = look.sum(holders.iter().map(|worker| layout.processing_of(worker)))?;
        counts.unlisted.extend(look.unlisted("processing"));
        let dues = look.or_none(listing::due_times(layout))?;
        counts.delayed = look.sum(dues.iter().map(|due| layout.delayed().join(due.to_string())))?;
        counts.unlisted.extend(look.unlisted("delayed"));
        for (shelf, count) in [
            (Shelf::Waiting, &mut counts.waiting),
            (Shelf::Held, &mut counts.held),
            (Shelf::Failed, &mut counts.failed),
        ] {
            let dir = layout.shelf(shelf);
            let segments = look.or_none(listing::segments(&dir))?;
            *count = look.sum(segments.iter().map(|segment| dir.join(segment.dir_name())))?;
            counts.unlisted.extend(look.unlisted(shelf.as_str()));
        }
        counts.rejected = look.or_none(rejected(layout).map(|count| vec![count]))?.iter().sum();
        counts.unlisted.extend(look.unlisted("rejected"));
        let round = self.round;
        self.known.retain(|_dir, known| known.round == round);
        Ok(counts)
    }

    fn count(&mut self, dir: &Path) -> Result<(u64, Option<TaskName>), Error> {
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

/// One look at all places.
struct Look<'a> {
    counter: &'a mut Counter,
    layout: &'a Layout,
    passed_over: PassedOver,
}

impl Look<'_> {
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
        let counted = self.counter.count(dir);
        Ok(self.passed_over.or_pass_over(counted)?.unwrap_or_default())
    }

    fn pending(&mut self, lanes: &mut Vec<LaneCount>) -> Result<(), Error> {
        for lane in self.or_none(listing::lanes(self.layout))? {
            lanes.extend(self.lane(lane)?);
        }
        Ok(())
    }

    fn lane(&mut self, lane: LaneName) -> Result<Option<LaneCount>, Error> {
        let (mut pending, mut priority_max, mut head) = (0, 0, None::<TaskName>);
        for place in pending_places(self.layout, &lane, &mut self.passed_over)? {
            let (count, first) = self.count(&place.dir(self.layout))?;
            if let Place::Pending { priority, .. } = place
                && count > 0
            {
                priority_max = priority_max.max(priority);
                head = head.into_iter().chain(first).min();
            }
            pending += count;
        }
        if pending == 0 {
            return Ok(None);
        }
        // A lane file that is gone or garbled hides no task: the class is in the lane's name.
        let requirements = read_requirements(self.layout, &lane).ok();
        let class = requirements.as_ref().map(|r| r.class).or_else(|| class_of(&lane));
        let model = requirements.and_then(|requirements| requirements.model);
        let head = head.map(|name| name.id);
        let oldest = head.map(|id| {
            Moment::from_unix_millis(i64::try_from(id.unix_millis()).unwrap_or(i64::MAX))
        });
        let class = class.unwrap_or(Class::Script);
        Ok(Some(LaneCount { lane, class, model, priority_max, pending, head, oldest }))
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
