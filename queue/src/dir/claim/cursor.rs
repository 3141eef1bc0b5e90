//! A worker's look at the pending tasks, kept between claims so that a claim does not cost
//! O(backlog): a directory's listing is used up before the directory is listed again, and a new
//! directory is noticed by its parent's modification time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use shared::id::TaskId;
use shared::name::Name;
use shared::task::Class;

use super::limit_slots::UsedUp;
use super::note::Note;
use super::one::{Claim, Claimer};
use super::prefetch::Prefetched;
use super::row::{Hands, LaneView, LookDepth, Taken};
use crate::Error;
use crate::dir::Pool;
use crate::dir::disk::freshness::Freshness;
use crate::dir::disk::lane_files::read_requirements;
use crate::dir::disk::listing::{self, PassedOver};
use crate::dir::layout::Layout;
use crate::dir::ledger::append::Ledger;
use crate::wire::counts::Unlisted;
use crate::wire::lane::{LaneName, Requirements};

pub use crate::store::Wish;

/// What one pass came to.
#[derive(Debug)]
pub enum Pass {
    /// A task, whose attempt this worker must now run and end.
    Claimed {
        /// The claim; its file is in `processing/<worker>/` already.
        claim: Box<Claim>,
        /// The lane that it was taken from.
        lane: LaneName,
    },
    /// Nothing: why not, lane by lane.
    Nothing {
        /// Tasks that were tried for and went to others.
        lost: u64,
        /// Lanes that have tasks, and that the worker may not take from now.
        closed: Vec<(LaneName, Arc<Requirements>)>,
        /// Lanes that it may take from but for a limit.
        limited: Vec<(LaneName, UsedUp)>,
    },
}

/// A view of `pending/`.
#[derive(Debug)]
pub struct Cursor {
    pool: Pool,
    worker: Name,
    ledger: Arc<Ledger>,
    freshness: Freshness,
    lanes: Vec<LaneView>,
    /// Lanes of which it was told that they cannot be understood.
    obscure: BTreeSet<LaneName>,
    /// What was told of directories that cannot be listed.
    unlisted: BTreeSet<String>,
    /// Tasks that are left to others.
    passed_over: HashSet<TaskId>,
    /// What is claimed next, as far as it was read ahead.
    prefetched: Option<Prefetched>,
}

impl Cursor {
    /// A view of the pool's pending tasks for one worker, with the ledger of its life.
    #[must_use]
    pub fn new(pool: &Pool, worker: &Name, ledger: Arc<Ledger>) -> Self {
        Self {
            pool: pool.clone(),
            worker: worker.clone(),
            ledger,
            freshness: Freshness::UNKNOWN,
            lanes: Vec::new(),
            obscure: BTreeSet::new(),
            unlisted: BTreeSet::new(),
            passed_over: HashSet::new(),
            prefetched: None,
        }
    }

    /// Leaves these tasks to others, instead of those before.
    pub fn pass_over(&mut self, tasks: HashSet<TaskId>) {
        self.passed_over = tasks;
    }

    /// Tries to claim one task. Looks afresh before it says that there is nothing.
    pub fn pass(&mut self, wish: &Wish<'_>, see: &mut dyn FnMut(Note)) -> Result<Pass, Error> {
        // A pool.toml that cannot be read changes nothing: the brain says it, and each command.
        let _as_before = self.pool.follow_limits();
        let (mut told, mut met) = (std::mem::take(&mut self.unlisted), BTreeSet::new());
        let mut once = |note: Note| {
            if let Note::Unlisted(Unlisted { path, .. }) = &note {
                met.insert(path.clone());
                if !told.insert(path.clone()) {
                    return;
                }
            }
            see(note);
        };
        let pass = self.both_looks(wish, &mut once);
        // All was looked at: what was not met by that can be listed again.
        self.unlisted = if matches!(pass, Ok(Pass::Nothing { .. })) { met } else { told };
        pass
    }

    fn both_looks(&mut self, wish: &Wish<'_>, see: &mut dyn FnMut(Note)) -> Result<Pass, Error> {
        let before = match self.look(wish, LookDepth::Cached, see)? {
            // Which lanes are closed is not kept meanwhile: there may be thousands.
            Pass::Nothing { lost, .. } => lost,
            claimed @ Pass::Claimed { .. } => return Ok(claimed),
        };
        match self.look(wish, LookDepth::Afresh, see)? {
            Pass::Nothing { lost, closed, limited } => {
                Ok(Pass::Nothing { lost: lost + before, closed, limited })
            }
            claimed @ Pass::Claimed { .. } => Ok(claimed),
        }
    }

    fn look(
        &mut self,
        wish: &Wish<'_>,
        look: LookDepth,
        see: &mut dyn FnMut(Note),
    ) -> Result<Pass, Error> {
        let is_fresh = self.prefetched.as_ref().is_some_and(Prefetched::is_fresh);
        if look == LookDepth::Afresh || !is_fresh {
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
            let hands = Hands {
                claimer: Claimer { pool: &self.pool, worker: &self.worker, ledger: &self.ledger },
                passed_over: &self.passed_over,
                prefetched: &mut self.prefetched,
            };
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
    pub fn prefetch(&mut self, wish: &Wish<'_>, see: &mut dyn FnMut(Note)) -> Result<(), Error> {
        let mut see = |note| {
            // Said by the pass that comes.
            if !matches!(note, Note::Unlisted(_)) {
                see(note);
            }
        };
        self.refresh(LookDepth::Cached, &mut see)?;
        let heads = self.order(wish.classes).into_iter().filter_map(|(index, priority)| {
            let lane = self.lanes.get(index).filter(|lane| (wish.open)(&lane.requirements))?;
            let row = lane.rows.get(&priority)?;
            Some((lane, priority, row.segments.front()?, *row.names.front()?))
        });
        let layout = self.pool.layout();
        self.prefetched = heads.into_iter().next().and_then(|(lane, priority, segment, name)| {
            let dir = layout.pending_segment(&lane.name, priority, segment);
            Prefetched::read(layout, dir.join(name.file_name()), name.id)
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

    fn refresh(&mut self, look: LookDepth, see: &mut dyn FnMut(Note)) -> Result<(), Error> {
        let layout = self.pool.layout().clone();
        let now = self.freshness.glance(&layout.pending())?;
        if look == LookDepth::Afresh || !now.is_current() {
            self.relist_lanes(&layout, see)?;
        }
        self.freshness = now;
        let mut passed_over = PassedOver::default();
        for lane in &mut self.lanes {
            lane.refresh(&layout, look, &mut passed_over)?;
        }
        passed_over.unlisted("pending").into_iter().for_each(|dir| see(Note::Unlisted(dir)));
        Ok(())
    }

    fn relist_lanes(&mut self, layout: &Layout, see: &mut dyn FnMut(Note)) -> Result<(), Error> {
        // In order.
        let mut names = listing::lanes(layout)?;
        self.lanes.retain(|lane| names.binary_search(&lane.name).is_ok());
        self.obscure.retain(|lane| names.binary_search(lane).is_ok());
        let known: HashSet<&LaneName> = self.lanes.iter().map(|lane| &lane.name).collect();
        names.retain(|name| !known.contains(name));
        self.lanes.reserve_exact(names.len());
        for name in names {
            match read_requirements(layout, &name) {
                Ok(requirements) => {
                    self.obscure.remove(&name);
                    self.lanes.push(LaneView::new(name, requirements.into()));
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
