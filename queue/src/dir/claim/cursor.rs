//! A worker's look at the pending tasks, kept between claims so that a claim does not cost
//! O(backlog): a directory's listing is used up before the directory is listed again, and a new
//! directory is noticed by its parent's modification time.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::io;
use std::path::Path;

use shared::name::Name;
use shared::task::{Class, TaskName};

use super::limit_slots::UsedUp;
use super::one::{self, Claim, Target, Try};
use super::prefetch::Ahead;
use crate::Error;
use crate::dir::Pool;
use crate::dir::disk::freshness::Stamp;
use crate::dir::disk::publish::remove_empty_dir;
use crate::dir::disk::{listing, plain_file, reject};
use crate::dir::layout::{Layout, Segment};
use crate::wire::lane::{LaneName, Requirements};

pub use crate::store::Wish;

/// What is seen on the way to a claim, one by one.
#[derive(Debug)]
pub enum Note {
    /// A task is tried for.
    Attempt(TaskName),
    /// Somebody else was first.
    LostRace(TaskName),
    /// A limit is used up.
    Limited(LaneName, UsedUp),
    /// A file that is no task was put aside.
    Rejected(std::path::PathBuf, String),
    /// What a lane requires cannot be read, so nobody takes from it. Told once, until it can.
    Obscure(LaneName, Error),
}

/// What one pass came to.
#[derive(Debug)]
pub enum Pass {
    /// A task.
    Claimed {
        /// It.
        claim: Box<Claim>,
        /// Its lane.
        lane: LaneName,
    },
    /// Nothing: why not, lane by lane.
    Nothing {
        /// Tasks that were tried for and went to others.
        lost: u64,
        /// Lanes that have tasks, and that the worker may not take from now.
        closed: Vec<(LaneName, Requirements)>,
        /// Lanes that it may take from but for a limit.
        limited: Vec<(LaneName, UsedUp)>,
    },
}

/// A view of `pending/`.
#[derive(Debug)]
pub struct Cursor {
    pool: Pool,
    worker: Name,
    stamp: Stamp,
    lanes: Vec<LaneView>,
    /// Lanes of which it was told that they cannot be understood.
    obscure: BTreeSet<LaneName>,
    /// What is claimed next, as far as it was read ahead.
    ahead: Option<Ahead>,
}

#[derive(Debug)]
struct LaneView {
    name: LaneName,
    requirements: Requirements,
    stamp: Stamp,
    /// By priority.
    rows: BTreeMap<u8, Row>,
}

/// One priority of one lane.
#[derive(Debug, Default)]
struct Row {
    stamp: Stamp,
    /// Oldest first. The first one is the one whose names are in `names`.
    segments: VecDeque<Segment>,
    names: VecDeque<TaskName>,
    /// The segment that `names` came from.
    listed: Option<Segment>,
    /// Tried in vain in this look. A stale listing (NFS) goes on naming what others have taken.
    tried: HashSet<TaskName>,
}

/// So many files that may not be moved are passed over in one look.
const MAX_STUCK: u32 = 32;

/// A worker that loses races looks so many names further on at most: far enough to get out of the
/// way of others, and near enough to keep the order.
const REACH: usize = 4;

/// How thoroughly to look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// What is known already, where nothing seems to have changed.
    Cached,
    /// All of it again.
    Afresh,
}

impl Cursor {
    /// A view of the pool's pending tasks for one worker.
    #[must_use]
    pub fn new(pool: &Pool, worker: &Name) -> Self {
        let (stamp, lanes, obscure) = (Stamp::UNKNOWN, Vec::new(), BTreeSet::new());
        Self { pool: pool.clone(), worker: worker.clone(), stamp, lanes, obscure, ahead: None }
    }

    /// Tries to claim one task. Looks afresh before it says that there is nothing.
    pub fn pass(&mut self, wish: &Wish<'_>, see: &mut dyn FnMut(Note)) -> Result<Pass, Error> {
        // A pool.toml that cannot be read changes nothing: the brain says it, and each command.
        let _as_before = self.pool.follow_limits();
        match self.look(wish, Look::Cached, see)? {
            Pass::Nothing { lost: before, .. } => match self.look(wish, Look::Afresh, see)? {
                Pass::Nothing { lost, closed, limited } => {
                    Ok(Pass::Nothing { lost: lost + before, closed, limited })
                }
                claimed @ Pass::Claimed { .. } => Ok(claimed),
            },
            claimed @ Pass::Claimed { .. } => Ok(claimed),
        }
    }

    fn look(
        &mut self,
        wish: &Wish<'_>,
        look: Look,
        see: &mut dyn FnMut(Note),
    ) -> Result<Pass, Error> {
        let is_fresh = self.ahead.as_ref().is_some_and(Ahead::is_fresh);
        if look == Look::Afresh || !is_fresh {
            self.refresh(look, see)?;
        }
        self.list_rivals(wish, see)?;
        let (mut lost, mut closed, mut limited) = (0, Vec::new(), Vec::new());
        for (index, priority) in self.order(wish.classes) {
            let lane = &mut self.lanes[index];
            if !(wish.open)(&lane.requirements) {
                closed.push((lane.name.clone(), lane.requirements.clone()));
                continue;
            }
            let hands = Hands { pool: &self.pool, worker: &self.worker, ahead: &mut self.ahead };
            match lane.take(hands, priority, see)? {
                Taken::Claim(claim) => {
                    return Ok(Pass::Claimed { claim, lane: lane.name.clone() });
                }
                Taken::Limited(used_up) => limited.push((lane.name.clone(), used_up)),
                Taken::Nothing { lost: races } => lost += races,
            }
        }
        closed.dedup_by(|a, b| a.0 == b.0);
        Ok(Pass::Nothing { lost, closed, limited })
    }

    /// Reads the task that is claimed next, unless others are faster, as far as that can be told
    /// without listing anything. For whoever waits for something else.
    pub fn look_ahead(&mut self, wish: &Wish<'_>, see: &mut dyn FnMut(Note)) -> Result<(), Error> {
        self.refresh(Look::Cached, see)?;
        let heads = self.order(wish.classes).into_iter().filter_map(|(index, priority)| {
            let lane = self.lanes.get(index).filter(|lane| (wish.open)(&lane.requirements))?;
            let row = lane.rows.get(&priority)?;
            Some((lane, priority, row.segments.front()?, *row.names.front()?))
        });
        let layout = self.pool.layout();
        self.ahead = heads.into_iter().next().and_then(|(lane, priority, segment, name)| {
            let dir = layout.pending_segment(&lane.name, priority, segment);
            Ahead::read(layout, dir.join(name.file_name()), name.id)
        });
        Ok(())
    }

    /// Which head is the oldest can only be told of lanes whose heads are known: where several
    /// open lanes of one class and priority have tasks, each is listed.
    fn list_rivals(&mut self, wish: &Wish<'_>, see: &mut dyn FnMut(Note)) -> Result<(), Error> {
        let mut rivals: BTreeMap<(Class, u8), Vec<usize>> = BTreeMap::new();
        for (index, lane) in self.lanes.iter().enumerate() {
            let class = lane.requirements.class;
            if !wish.classes.contains(&class) || !(wish.open)(&lane.requirements) {
                continue;
            }
            for (priority, row) in &lane.rows {
                if !row.segments.is_empty() {
                    rivals.entry((class, *priority)).or_default().push(index);
                }
            }
        }
        for ((_class, priority), lanes) in rivals.into_iter().filter(|(_key, l)| l.len() > 1) {
            for index in lanes {
                let lane = &mut self.lanes[index];
                let dir = self.pool.layout().pending_priority(&lane.name, priority);
                if let Some(row) = lane.rows.get_mut(&priority) {
                    row.list_head(self.pool.layout(), &dir, see)?;
                }
            }
        }
        Ok(())
    }

    /// Highest priority first; inside it the most wanted class; inside it the oldest head.
    fn order(&self, classes: &[Class]) -> Vec<(usize, u8)> {
        let mut rows = Vec::new();
        for (index, lane) in self.lanes.iter().enumerate() {
            let class = lane.requirements.class;
            let Some(rank) = classes.iter().position(|wanted| *wanted == class) else { continue };
            for (priority, row) in &lane.rows {
                if !row.segments.is_empty() {
                    let key = (std::cmp::Reverse(*priority), rank, row.names.front());
                    rows.push((key, (index, *priority)));
                }
            }
        }
        rows.sort();
        rows.into_iter().map(|(_key, row)| row).collect()
    }

    fn refresh(&mut self, look: Look, see: &mut dyn FnMut(Note)) -> Result<(), Error> {
        let layout = self.pool.layout().clone();
        let now = Stamp::of(&layout.pending())?;
        if look == Look::Afresh || !self.stamp.is_current(now) {
            self.relist_lanes(&layout, see)?;
            self.stamp = now;
        }
        for lane in &mut self.lanes {
            lane.refresh(&layout, look)?;
        }
        Ok(())
    }

    fn relist_lanes(&mut self, layout: &Layout, see: &mut dyn FnMut(Note)) -> Result<(), Error> {
        let names = listing::lanes(layout)?;
        self.lanes.retain(|lane| names.contains(&lane.name));
        self.obscure.retain(|lane| names.contains(lane));
        for name in names {
            if self.lanes.iter().any(|lane| lane.name == name) {
                continue;
            }
            match read_requirements(layout, &name) {
                Ok(requirements) => {
                    self.obscure.remove(&name);
                    let (stamp, rows) = (Stamp::UNKNOWN, BTreeMap::new());
                    self.lanes.push(LaneView { name, requirements, stamp, rows });
                }
                // One lane that cannot be understood does not stop the others.
                Err(err) => {
                    if self.obscure.insert(name.clone()) {
                        see(Note::Obscure(name, err));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Reads what a lane requires, and checks that it is the lane it says.
pub fn read_requirements(layout: &Layout, lane: &LaneName) -> Result<Requirements, Error> {
    let path = layout.lane_file(lane);
    let text = plain_file::read(&path)?.ok_or_else(|| Error::Io {
        what: "read",
        path: path.clone(),
        err: io::ErrorKind::NotFound.into(),
    })?;
    let garbled = |problem| Error::Garbled { path: path.clone(), problem };
    let requirements: Requirements =
        serde_json::from_slice(&text).map_err(|err| garbled(err.to_string()))?;
    if requirements.lane() == *lane {
        Ok(requirements)
    } else {
        Err(garbled("its content belongs to another lane".into()))
    }
}

/// What a claim is made with.
struct Hands<'a> {
    pool: &'a Pool,
    worker: &'a Name,
    ahead: &'a mut Option<Ahead>,
}

/// What came of trying one row.
enum Taken {
    Claim(Box<Claim>),
    Limited(UsedUp),
    Nothing { lost: u64 },
}

impl LaneView {
    fn refresh(&mut self, layout: &Layout, look: Look) -> Result<(), Error> {
        let dir = layout.pending().join(self.name.as_str());
        let now = Stamp::of(&dir)?;
        if look == Look::Afresh || !self.stamp.is_current(now) {
            let priorities = listing::priorities(layout, &self.name)?;
            self.rows.retain(|priority, _row| priorities.contains(priority));
            for priority in priorities {
                self.rows.entry(priority).or_default();
            }
            self.stamp = now;
        }
        for (priority, row) in &mut self.rows {
            row.refresh(&layout.pending_priority(&self.name, *priority), look)?;
        }
        Ok(())
    }

    /// Tries the tasks of one priority, oldest first, until one is ours or none is left.
    ///
    /// Whoever loses a race looks a little further on next time, further with each loss, so that
    /// workers that started together do not go on fighting for the same names. What was passed
    /// over stays at the front and is tried again before the row counts as empty.
    fn take(
        &mut self,
        hands: Hands<'_>,
        priority: u8,
        see: &mut dyn FnMut(Note),
    ) -> Result<Taken, Error> {
        let Hands { pool, worker, ahead } = hands;
        let (mut lost, mut stuck, mut reach) = (0, 0, 1);
        let dir = pool.layout().pending_priority(&self.name, priority);
        let Some(row) = self.rows.get_mut(&priority) else {
            return Ok(Taken::Nothing { lost });
        };
        row.tried.clear();
        while let Some((segment, name)) = row.pick(pool.layout(), &dir, reach, see)? {
            let (lane, requirements) = (&self.name, &self.requirements);
            let target = Target { lane, requirements, priority, segment: &segment, name };
            see(Note::Attempt(name));
            match one::try_claim(pool, worker, target, ahead.take()) {
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
    fn refresh(&mut self, dir: &Path, look: Look) -> Result<(), Error> {
        let now = Stamp::of(dir)?;
        if look == Look::Cached && self.stamp.is_current(now) {
            return Ok(());
        }
        self.segments = listing::segments(dir)?.into();
        self.stamp = now;
        // Names of a directory that is not the oldest any more come after those that are older.
        if look == Look::Afresh || self.listed.as_ref() != self.segments.front() {
            self.names.clear();
            self.listed = None;
        }
        Ok(())
    }

    /// Makes the oldest name known. Directories that are used up are removed on the way.
    fn list_head(
        &mut self,
        layout: &Layout,
        dir: &Path,
        see: &mut dyn FnMut(Note),
    ) -> Result<(), Error> {
        while self.names.is_empty()
            && let Some(segment) = self.segments.front().cloned()
        {
            let path = dir.join(segment.dir_name());
            self.list(layout, &path, see)?;
            self.listed = Some(segment);
            if self.names.is_empty() {
                // Used up, and listed just now: nothing there. What came meanwhile keeps the
                // directory, and is met when the directories are listed again.
                if !remove_empty_dir(&path) {
                    self.stamp = Stamp::UNKNOWN;
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
        self.names.retain(|name| !self.tried.contains(name));
        Ok(())
    }
}
