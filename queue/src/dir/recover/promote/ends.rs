//! How the tasks ended that others wait for: each is looked up once, from then on the ledger is
//! followed.

use std::collections::{HashMap, HashSet};

use shared::id::TaskId;
use shared::outcome::Outcome;
use shared::time::Moment;

use crate::Error;
use crate::dir::Pool;
use crate::dir::find::dependencies::{self, End, States};
use crate::dir::layout::Layout;
use crate::dir::ledger::follow::Follower;
use crate::dir::ledger::lines::Damaged;
use crate::store::dependency::Dependency;

/// Somebody may mend a line: so often, in seconds, it is looked at again.
const LOOK_AGAIN: i64 = 10;

/// What is known of those that are waited for, kept as long as any task waits.
#[derive(Debug, Default)]
pub(super) struct Ends {
    follower: Option<Follower>,
    ended: HashMap<TaskId, End>,
    /// Those that were looked up.
    looked_up: HashSet<TaskId>,
    /// Those of which a line that cannot be understood may say how they ended.
    unknown: HashMap<TaskId, Unknown>,
}

/// A task whose end cannot be read.
#[derive(Debug)]
struct Unknown {
    /// What was told of it.
    damaged: Damaged,
    /// The second at which it is looked up again.
    again: i64,
}

impl Ends {
    /// How one stands, as far as is known.
    pub(super) fn state(&self, id: TaskId) -> Dependency {
        self.ended.get(&id).map_or(Dependency::Open, |end| Dependency::Ended(end.outcome))
    }

    /// Looks one up anew if it has failed: it may have been retried since.
    pub(super) fn forget_failed(&mut self, id: TaskId) {
        if self.ended.get(&id).is_some_and(|end| end.outcome == Outcome::Failed) {
            self.ended.remove(&id);
            self.looked_up.remove(&id);
        }
    }

    /// Learns what has ended of those that are wanted. Returns the lines that were passed over, so
    /// that whether a task has ended is unknown; each is told once.
    pub(super) fn learn(
        &mut self,
        pool: &Pool,
        wanted: HashSet<TaskId>,
        now: Moment,
    ) -> Result<Vec<Damaged>, Error> {
        // Before anything is looked up, so that no end falls between the two.
        let mut damaged = self.follow(pool.layout())?;
        damaged.extend(self.look_up(pool, wanted, now.unix_seconds())?);
        Ok(damaged)
    }

    fn follow(&mut self, layout: &Layout) -> Result<Vec<Damaged>, Error> {
        let follower = match &mut self.follower {
            Some(follower) => follower,
            None => self.follower.insert(Follower::from_now(layout)?),
        };
        for brief in follower.poll(layout)? {
            let known = self.ended.get(&brief.id).is_some_and(|end| end.attempt > brief.attempt);
            if let Some(outcome) = brief.end_of_task()
                && self.looked_up.contains(&brief.id)
                && !known
            {
                self.ended.insert(brief.id, End { attempt: brief.attempt, outcome });
            }
        }
        Ok(follower.take_damaged())
    }

    /// All that are new at once, in the places and then in the ledger, so that one that ended earlier
    /// is seen.
    fn look_up(
        &mut self,
        pool: &Pool,
        wanted: HashSet<TaskId>,
        now: i64,
    ) -> Result<Vec<Damaged>, Error> {
        // What nobody waits for any more is forgotten: it could be retried before somebody does.
        self.looked_up.retain(|id| wanted.contains(id));
        self.ended.retain(|id, _end| wanted.contains(id));
        self.unknown.retain(|id, _unknown| wanted.contains(id));
        let is_new = |id: &TaskId| {
            !self.looked_up.contains(id) && self.unknown.get(id).is_none_or(|it| it.again <= now)
        };
        let new: HashSet<TaskId> = wanted.into_iter().filter(is_new).collect();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let States { known, damaged } = dependencies::states(pool, new.clone())?;
        self.ended.extend(known.into_iter().filter_map(|(id, end)| Some((id, end?))));
        self.looked_up.extend(new.into_iter().filter(|id| !damaged.contains_key(id)));
        self.unknown.retain(|id, _unknown| !self.looked_up.contains(id));
        let mut news = Vec::new();
        for (id, damaged) in damaged {
            if self.unknown.get(&id).is_none_or(|known| known.damaged != damaged) {
                news.push(damaged.clone());
            }
            self.unknown.insert(id, Unknown { damaged, again: now.saturating_add(LOOK_AGAIN) });
        }
        Ok(news)
    }
}
