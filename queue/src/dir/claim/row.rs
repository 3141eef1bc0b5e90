//! One lane as a worker sees it, and the priorities in it: used up name by name.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

use shared::id::TaskId;
use shared::task::TaskName;

use super::limit_slots::UsedUp;
use super::note::Note;
use super::one::{self, Claim, ClaimTarget, Claimer, Try};
use super::prefetch::Prefetched;
use crate::Error;
use crate::dir::disk::freshness::Freshness;
use crate::dir::disk::listing::{self, PassedOver};
use crate::dir::disk::publish::remove_empty_dir;
use crate::dir::disk::reject;
use crate::dir::layout::{Layout, Segment};
use crate::wire::lane::{LaneName, Requirements};

#[derive(Debug)]
pub(crate) struct LaneView {
    pub(super) name: LaneName,
    pub(super) requirements: Arc<Requirements>,
    freshness: Freshness,
    /// A row for each priority that has a directory, also for an empty one. In boxes: a map has room
    /// for eleven from the first one on, and there may be thousands of lanes.
    pub(super) rows: BTreeMap<u8, Box<Row>>,
}

/// One priority of one lane.
#[derive(Debug, Default)]
pub(super) struct Row {
    freshness: Freshness,
    /// Oldest first. The first one is the one whose names are in `names`.
    pub(super) segments: VecDeque<Segment>,
    pub(super) names: VecDeque<TaskName>,
    /// The segment that `names` came from.
    listed: Option<Segment>,
    /// For newer programs: not even tried again.
    left_alone: HashSet<TaskName>,
    /// Tried in vain in this look. A stale listing (NFS) goes on naming what others have taken.
    tried: BTreeSet<TaskName>,
}

/// So many files that may not be moved are passed over in one look.
const MAX_STUCK: u32 = 32;

/// A worker that loses races looks so many names further on at most: far enough to get out of the
/// way of others, and near enough to keep the order.
const REACH: usize = 4;

/// How thoroughly to look.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookDepth {
    /// What is known already, where nothing seems to have changed.
    Cached,
    /// All of it again.
    Afresh,
}

/// What a claim is made with.
pub(crate) struct Hands<'a> {
    pub(super) claimer: Claimer<'a>,
    pub(super) passed_over: &'a HashSet<TaskId>,
    pub(super) prefetched: &'a mut Option<Prefetched>,
}

/// What came of trying one row.
pub(crate) enum Taken {
    Claim(Box<Claim>),
    Limited(UsedUp),
    Nothing { lost: u64 },
}

impl LaneView {
    /// Of which nothing is known yet but what it requires.
    pub(super) fn new(name: LaneName, requirements: Arc<Requirements>) -> Self {
        Self { name, requirements, freshness: Freshness::UNKNOWN, rows: BTreeMap::new() }
    }

    /// What cannot be listed counts as empty, and is looked at again the next time.
    pub(super) fn refresh(
        &mut self,
        layout: &Layout,
        look: LookDepth,
        passed_over: &mut PassedOver,
    ) -> Result<(), Error> {
        let dir = layout.pending().join(self.name.as_str());
        let mut now = self.freshness.glance(&dir)?;
        if look == LookDepth::Afresh || !now.is_current() {
            let priorities = passed_over.or_pass_over(listing::priorities(layout, &self.name))?;
            if priorities.is_none() {
                now = now.unread();
            }
            let priorities = priorities.unwrap_or_default();
            self.rows.retain(|priority, _row| priorities.contains(priority));
            for priority in priorities {
                self.rows.entry(priority).or_default();
            }
        }
        self.freshness = now;
        for (priority, row) in &mut self.rows {
            row.refresh(&layout.pending_priority(&self.name, *priority), look, passed_over)?;
        }
        Ok(())
    }

    /// Tries the tasks of one priority, oldest first, until one is ours or none is left.
    ///
    /// Whoever loses a race looks a little further on next time, further with each loss, so that
    /// workers that started together do not go on fighting for the same names. What was passed
    /// over stays at the front and is tried again before the row counts as empty.
    pub(super) fn take(
        &mut self,
        hands: Hands<'_>,
        priority: u8,
        see: &mut dyn FnMut(Note),
    ) -> Result<Taken, Error> {
        let Hands { claimer, passed_over, prefetched } = hands;
        let pool = claimer.pool;
        let (mut lost, mut stuck, mut reach) = (0, 0, 1);
        let dir = pool.layout().pending_priority(&self.name, priority);
        let Some(row) = self.rows.get_mut(&priority) else {
            return Ok(Taken::Nothing { lost });
        };
        row.tried.clear();
        while let Some((segment, name)) = row.pick(pool.layout(), &dir, reach, see)? {
            if passed_over.contains(&name.id) {
                row.tried.insert(name);
                continue;
            }
            let (lane, requirements) = (&self.name, &self.requirements);
            let target = ClaimTarget { lane, requirements, priority, segment: &segment, name };
            see(Note::Attempt(name));
            match one::try_claim(claimer, target, prefetched.take()) {
                Ok(Try::Won(claim)) => return Ok(Taken::Claim(claim)),
                Ok(Try::LostRace) => {
                    lost += 1;
                    reach = (reach * 2).min(REACH);
                    row.tried.insert(name);
                    see(Note::LostRace(name));
                }
                Ok(Try::Limited(used_up)) => {
                    row.names.push_front(name);
                    see(Note::Limited(lane.clone(), used_up.clone()));
                    return Ok(Taken::Limited(used_up));
                }
                // Met in its lane in this pass: before it says that there is nothing it looks afresh.
                Ok(Try::CountedAnew) => {}
                Ok(Try::Rejected { problem }) => {
                    see(Note::Rejected(name.file_name().into(), problem));
                }
                Err(err @ Error::NewerTask { .. }) => {
                    row.left_alone.insert(name);
                    see(Note::LeftAlone(name, err));
                }
                // Something that may not be moved (another user's directory of this name): the
                // tasks behind it can still be had. Where nothing may be moved, that is said.
                Err(err)
                    if err.io_kind() == Some(io::ErrorKind::PermissionDenied)
                        && stuck < MAX_STUCK =>
                {
                    stuck += 1;
                    row.tried.insert(name);
                    let path = dir.join(segment.dir_name()).join(name.file_name());
                    see(Note::Rejected(path, err.to_string()));
                }
                Err(err) => return Err(err),
            }
        }
        Ok(Taken::Nothing { lost })
    }
}

impl Row {
    fn refresh(
        &mut self,
        dir: &Path,
        look: LookDepth,
        passed_over: &mut PassedOver,
    ) -> Result<(), Error> {
        let Some(now) = passed_over.or_pass_over(self.freshness.glance(dir))? else {
            *self = Self::default();
            return Ok(());
        };
        if look == LookDepth::Cached && now.is_current() {
            return Ok(());
        }
        let segments = passed_over.or_pass_over(listing::segments(dir))?;
        self.freshness = if segments.is_some() { now } else { now.unread() };
        self.segments = segments.unwrap_or_default().into();
        // Mostly there is one.
        self.segments.shrink_to_fit();
        // Names of a directory that is not the oldest any more come after those that are older.
        if look == LookDepth::Afresh || self.listed.as_ref() != self.segments.front() {
            self.names.clear();
            self.listed = None;
        }
        Ok(())
    }

    /// Makes the oldest name known. Directories that are used up are removed on the way.
    pub(super) fn list_head(
        &mut self,
        layout: &Layout,
        dir: &Path,
        see: &mut dyn FnMut(Note),
    ) -> Result<(), Error> {
        while self.names.is_empty()
            && let Some(segment) = self.segments.front().cloned()
        {
            let path = dir.join(segment.dir_name());
            let mut passed_over = PassedOver::default();
            let listed = self.list(layout, &path, see);
            if passed_over.or_pass_over(listed)?.is_none() {
                // Whoever lists it afresh meets it again; those behind it can be had.
                let dirs = passed_over.unlisted("pending");
                dirs.into_iter().for_each(|dir| see(Note::Unlisted(dir)));
                self.freshness = Freshness::UNKNOWN;
                self.segments.pop_front();
                continue;
            }
            self.listed = Some(segment);
            if self.names.is_empty() {
                // Used up, and listed just now: nothing there. What came meanwhile keeps the
                // directory, and is met when the directories are listed again.
                if !remove_empty_dir(&path) {
                    self.freshness = Freshness::UNKNOWN;
                }
                self.segments.pop_front();
                self.listed = None;
            }
        }
        Ok(())
    }

    /// A task near the front: among the first `reach`. `None` when the row is used up.
    fn pick(
        &mut self,
        layout: &Layout,
        dir: &Path,
        reach: usize,
        see: &mut dyn FnMut(Note),
    ) -> Result<Option<(Segment, TaskName)>, Error> {
        self.list_head(layout, dir, see)?;
        let Some(segment) = self.segments.front().cloned() else { return Ok(None) };
        let reach = reach.min(self.names.len());
        let index = if reach == 1 { 0 } else { fastrand::usize(..reach) };
        Ok(self.names.remove(index).map(|name| (segment, name)))
    }

    fn list(
        &mut self,
        layout: &Layout,
        dir: &Path,
        see: &mut dyn FnMut(Note),
    ) -> Result<(), Error> {
        let names = listing::tasks_in(dir)?;
        for path in names.foreign {
            let problem = "its name is not that of a task file (`<id>.a1f0d0.json`)";
            match reject::reject(layout, &path, problem) {
                Ok(Some(_target)) => see(Note::Rejected(path, problem.to_owned())),
                Ok(None) => {}
                Err(Error::Garbled { path, problem }) => see(Note::Rejected(path, problem)),
                // It stays where it is, and stops nobody.
                Err(err) => see(Note::Rejected(path, format!("{problem}; {err}"))),
            }
        }
        self.names = names.tasks.into();
        self.names.retain(|name| !self.tried.contains(name) && !self.left_alone.contains(name));
        Ok(())
    }
}
