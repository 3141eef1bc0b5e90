//! Releasing what waits: delays that are over, dependencies that have ended. Done by the brain;
//! without a brain by the deputy. Several may do it at once: each step is one rename. A directory
//! that cannot be listed is passed over and looked at again at the next step; whoever counts the
//! tasks says so.

mod ends;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use shared::event::Event;
use shared::id::TaskId;
use shared::task::{On, TaskName};
use shared::time::Moment;

use crate::Error;
use crate::dir::Pool;
use crate::dir::disk::freshness::Freshness;
use crate::dir::disk::listing::{self, PassedOver};
use crate::dir::disk::place::{Found, Place};
use crate::dir::disk::publish::remove_empty_dir;
use crate::dir::disk::reject;
use crate::dir::layout::{Segment, Shelf};
use crate::dir::ledger::append::Ledger;
use crate::dir::ledger::lines::Damaged;
use crate::dir::operate::{self, Change, Ender, Mover, ToEnd};
use crate::store::dependency::{Readiness, verdict};

use ends::Ends;

/// One thing that was done.
#[derive(Debug)]
pub enum Promotion {
    /// A delay was over.
    Due(TaskName),
    /// All that a task waited for has ended as needed.
    Ready {
        /// Its file's name, which does not change by this.
        name: TaskName,
        /// What it waited for.
        after: Vec<TaskId>,
    },
    /// Something that a task waited for did not end as needed: the task is cancelled.
    Hopeless {
        /// Its file's name; the attempt in it was never begun.
        name: TaskName,
        /// What did not end as needed.
        needed: TaskId,
    },
    /// A file that is no task was put aside.
    Rejected(PathBuf, String),
    /// A line of history was passed over, so whether what a task waits for has ended is unknown.
    Damaged(Damaged),
    /// This one did not work; the others went on.
    Failed(TaskName, Error),
}

impl Promotion {
    /// How it is said.
    #[must_use]
    pub fn event(self) -> Event {
        match self {
            Self::Due(name) => Event::TaskDue { task: name.id, attempt: name.attempt },
            Self::Ready { name, after } => Event::TaskPromoted { task: name.id, after },
            Self::Hopeless { name, needed } => {
                Event::TaskDependencyFailed { task: name.id, needed }
            }
            Self::Rejected(file, reason) => Event::TaskRejected { file, reason },
            Self::Damaged(Damaged { path, offset, problem, .. }) => {
                Event::LedgerDamaged { path, offset, problem }
            }
            Self::Failed(name, err) => {
                let doing = format!("Releasing task {}", name.id.short());
                Event::ProcessFailed { doing, error: err.to_string() }
            }
        }
    }
}

/// What is known about the tasks that wait, kept between steps.
#[derive(Debug)]
pub struct Promoter {
    pool: Pool,
    waiting: HashMap<TaskId, Waiting>,
    /// What is known of those that are waited for.
    ends: Ends,
    /// Of the directories in `waiting/`.
    known: BTreeMap<Segment, Freshness>,
    /// Met in this step, and what is wrong with each: to be ended when the rest is done.
    unreadable: Vec<(Found, String)>,
    /// What went wrong with tasks at the last step: the same is not told again.
    failing: HashMap<TaskId, String>,
    /// The second of the last step: what was due by then and is still there could not be released.
    stepped: Option<i64>,
}

#[derive(Clone, Debug)]
struct Waiting {
    segment: Segment,
    name: TaskName,
    after: Vec<(TaskId, On)>,
}

impl Promoter {
    /// Knows nothing yet: whatever ended before is looked up when it is needed.
    #[must_use]
    pub fn new(pool: &Pool) -> Self {
        Self {
            pool: pool.clone(),
            waiting: HashMap::new(),
            ends: Ends::default(),
            known: BTreeMap::new(),
            unreadable: Vec::new(),
            failing: HashMap::new(),
            stepped: None,
        }
    }

    /// Tasks that wait, and what for.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The second at which the next delay is over. Not one that was over at the last step: who
    /// waited until then would not wait at all, as long as something there cannot be released.
    pub fn next_due(&self) -> Result<Option<i64>, Error> {
        let mut dues = listing::due_times(self.pool.layout())?.into_iter();
        Ok(dues.find(|due| self.stepped.is_none_or(|stepped| *due > stepped)))
    }

    /// Does what is due now.
    pub fn step(&mut self, ledger: &Ledger, now: Moment) -> Result<Vec<Promotion>, Error> {
        self.stepped = Some(now.unix_seconds());
        let mut done = self.delays(now)?;
        self.discover(&mut done)?;
        if self.waiting.is_empty() {
            // What comes to wait later is looked up then.
            self.ends = Ends::default();
        } else {
            let after = self.waiting.values().flat_map(|task| &task.after);
            let wanted = after.map(|(id, _on)| *id).collect();
            let damaged = self.ends.learn(&self.pool, wanted, now)?;
            done.extend(damaged.into_iter().map(Promotion::Damaged));
            self.decide(ledger, &mut done)?;
        }
        self.reject(ledger, &mut done)?;
        self.tell_once(&mut done);
        Ok(done)
    }

    /// Leaves out what was told at the last step, and has not changed: it is tried once a second.
    fn tell_once(&mut self, done: &mut Vec<Promotion>) {
        let before = std::mem::take(&mut self.failing);
        done.retain(|promotion| {
            let Promotion::Failed(name, err) = promotion else { return true };
            let text = err.to_string();
            let is_news = before.get(&name.id) != Some(&text);
            self.failing.insert(name.id, text);
            is_news
        });
    }

    fn delays(&mut self, now: Moment) -> Result<Vec<Promotion>, Error> {
        let pool = self.pool.clone();
        let (mut done, mut mover) = (Vec::new(), Mover::new(&pool));
        let layout = pool.layout();
        let mut passed_over = PassedOver::default();
        for due in passed_over.or_pass_over(listing::due_times(layout))?.unwrap_or_default() {
            let over = due <= now.unix_seconds();
            if !over && due <= self.latest_retry(now) {
                continue;
            }
            let place = Place::Delayed { due };
            let names = passed_over.or_pass_over(listing::tasks_in(&place.dir(layout)))?;
            let names = names.unwrap_or_default();
            self.put_aside(names.foreign, &mut done);
            // No pause before a retry is as long as that: the clock was set back since.
            let is_due = |name: &TaskName| over || name.attempt > 1;
            for name in names.tasks.into_iter().filter(is_due) {
                let found = Found { place: place.clone(), name };
                match make_ready(&mut mover, &pool, &found) {
                    Ok(Change::Done) => done.push(Promotion::Due(name)),
                    Ok(_moved) => {}
                    Err(err) => done.extend(self.trouble(found, err)),
                }
            }
            let _gone = remove_empty_dir(&place.dir(layout));
        }
        Ok(done)
    }

    /// The second at which the pause before a retry that begins now is over at the latest.
    fn latest_retry(&self, now: Moment) -> i64 {
        let longest = self.pool.rules().retry.longest_pause().as_secs();
        now.unix_seconds()
            .saturating_add(i64::try_from(longest).unwrap_or(i64::MAX))
            .saturating_add(2)
    }

    /// What cannot be understood is ended; anything else is tried again at the next step.
    fn trouble(&mut self, found: Found, err: Error) -> Option<Promotion> {
        let Error::Garbled { problem, .. } = err else {
            return Some(Promotion::Failed(found.name, err));
        };
        self.unreadable.push((found, problem));
        None
    }

    /// Ends the tasks that could not be understood, so that nobody waits for them.
    fn reject(&mut self, ledger: &Ledger, done: &mut Vec<Promotion>) -> Result<(), Error> {
        let unreadable = std::mem::take(&mut self.unreadable);
        if unreadable.is_empty() {
            return Ok(());
        }
        // Busy: somebody else ends tasks just now. They are met again at the next step.
        let Some(ender) = Ender::try_new(&self.pool, ledger)? else { return Ok(()) };
        for (found, problem) in unreadable {
            match ender.end(&found, operate::Reason::Unreadable) {
                Ok(Change::Done) => {
                    let path = found.path(self.pool.layout());
                    done.push(Promotion::Rejected(path, problem));
                }
                Ok(_moved) => {}
                Err(err) => done.push(Promotion::Failed(found.name, err)),
            }
        }
        Ok(())
    }

    fn put_aside(&self, foreign: Vec<PathBuf>, done: &mut Vec<Promotion>) {
        for path in foreign {
            let problem = "its name is not that of a task file (`<id>.a1f0d0.json`)".to_owned();
            match reject::reject(self.pool.layout(), &path, &problem) {
                Ok(Some(_target)) => done.push(Promotion::Rejected(path, problem)),
                Ok(None) => {}
                Err(Error::Garbled { path, problem }) => {
                    done.push(Promotion::Rejected(path, problem));
                }
                // One that cannot be moved stays where it is, and stops nobody.
                Err(_stays) => {}
            }
        }
    }

    /// Learns of tasks that came to wait, and forgets those that went.
    fn discover(&mut self, done: &mut Vec<Promotion>) -> Result<(), Error> {
        let dir = self.pool.layout().shelf(Shelf::Waiting);
        let mut passed_over = PassedOver::default();
        let Some(segments) = passed_over.or_pass_over(listing::segments(&dir))? else {
            return Ok(());
        };
        let segments: BTreeSet<Segment> = segments.into_iter().collect();
        self.waiting.retain(|_id, waiting| segments.contains(&waiting.segment));
        self.known.retain(|segment, _freshness| segments.contains(segment));
        for segment in segments {
            let path = dir.join(segment.dir_name());
            let known = self.known.get(&segment).copied().unwrap_or_default();
            let now = known.look(&path)?;
            if now.is_current() || now.is_absent() {
                continue;
            }
            // Read in full, or one would be forgotten until something moves.
            let now = match self.list(&segment, &path, done)? {
                Learnt::All => now,
                Learnt::Some => now.unread(),
            };
            self.known.insert(segment, now);
        }
        Ok(())
    }

    fn list(
        &mut self,
        segment: &Segment,
        path: &Path,
        done: &mut Vec<Promotion>,
    ) -> Result<Learnt, Error> {
        let mut passed_over = PassedOver::default();
        let Some(names) = passed_over.or_pass_over(listing::tasks_in(path))? else {
            return Ok(Learnt::Some);
        };
        self.put_aside(names.foreign, done);
        let there: HashSet<_> = names.tasks.iter().map(|name| name.id).collect();
        self.waiting.retain(|id, task| task.segment != *segment || there.contains(id));
        let mut learnt = Learnt::All;
        for name in names.tasks {
            if self.waiting.get(&name.id).is_some_and(|task| task.name == name) {
                continue;
            }
            if let Err(err) = self.learn(segment, name) {
                learnt = Learnt::Some;
                let place = Place::Shelf { shelf: Shelf::Waiting, segment: segment.clone() };
                done.extend(self.trouble(Found { place, name }, err));
            }
        }
        Ok(learnt)
    }

    fn learn(&mut self, segment: &Segment, name: TaskName) -> Result<(), Error> {
        let place = Place::Shelf { shelf: Shelf::Waiting, segment: segment.clone() };
        let Some(task) = (Found { place, name }).read(self.pool.layout())? else { return Ok(()) };
        let known = |id: &str| id.parse::<TaskId>().ok();
        let after = task.spec.after.iter();
        let after: Vec<_> = after.filter_map(|a| known(a.id()).map(|id| (id, a.on()))).collect();
        // What failed may have been retried since: whoever comes new looks for himself.
        after.iter().for_each(|(id, _on)| self.ends.forget_failed(*id));
        self.waiting.insert(name.id, Waiting { segment: segment.clone(), name, after });
        Ok(())
    }

    fn decide(&mut self, ledger: &Ledger, done: &mut Vec<Promotion>) -> Result<(), Error> {
        let state = |id| self.ends.state(id);
        let mut decided: Vec<(Waiting, Readiness)> = Vec::new();
        for task in self.waiting.values() {
            let verdict = verdict(&task.after, state);
            if verdict != Readiness::Wait {
                decided.push((task.clone(), verdict));
            }
        }
        decided.sort_by_key(|(task, _verdict)| task.name);
        if decided.is_empty() {
            return Ok(());
        }
        let hopeless = self.release(decided, done);
        for group in hopeless.chunks(operate::GROUP) {
            self.end(group, ledger, done)?;
        }
        Ok(())
    }

    /// Lets go what is ready; returns the others.
    fn release(
        &mut self,
        decided: Vec<(Waiting, Readiness)>,
        done: &mut Vec<Promotion>,
    ) -> Vec<Hopeless> {
        let (pool, mut hopeless) = (self.pool.clone(), Vec::new());
        let mut mover = Mover::new(&pool);
        for (task, readiness) in decided {
            let place = Place::Shelf { shelf: Shelf::Waiting, segment: task.segment };
            let found = Found { place, name: task.name };
            match readiness {
                Readiness::Ready => {
                    let after = task.after.iter().map(|(id, _on)| *id).collect();
                    let ready = make_ready(&mut mover, &pool, &found);
                    let promotion = Promotion::Ready { name: found.name, after };
                    self.note(&found, ready, promotion, done);
                }
                Readiness::Hopeless(needed) => hopeless.push(Hopeless { found, needed }),
                Readiness::Wait => {}
            }
        }
        hopeless
    }

    /// Ends what can never run.
    fn end(
        &mut self,
        group: &[Hopeless],
        ledger: &Ledger,
        done: &mut Vec<Promotion>,
    ) -> Result<(), Error> {
        let pool = self.pool.clone();
        // Busy: somebody else ends tasks just now. These wait for the next step.
        let Some(ender) = Ender::try_new(&pool, ledger)? else { return Ok(()) };
        let reason = |needed| operate::Reason::Dependency { needed: Some(needed) };
        let to_end =
            group.iter().map(|one| ToEnd { found: &one.found, reason: reason(one.needed) });
        let to_end: Vec<_> = to_end.collect();
        let changes = ender.end_group(&to_end, &mut |_ended| {})?;
        for (Hopeless { found, needed }, change) in group.iter().zip(changes) {
            let promotion = Promotion::Hopeless { name: found.name, needed: *needed };
            self.note(found, change, promotion, done);
        }
        Ok(())
    }

    /// Takes note of what came of one. It goes on waiting where that is an error, and is tried again
    /// at the next step.
    fn note(
        &mut self,
        found: &Found,
        came: Result<Change, Error>,
        promotion: Promotion,
        done: &mut Vec<Promotion>,
    ) {
        match came {
            Ok(Change::Done) => done.push(promotion),
            Ok(Change::Moved | Change::NotThere { .. } | Change::Running { .. }) => return,
            Err(err) => return done.extend(self.trouble(found.clone(), err)),
        }
        self.waiting.remove(&found.name.id);
        let _gone = remove_empty_dir(&found.place.dir(self.pool.layout()));
    }
}

/// A task that waits for what did not end as needed.
struct Hopeless {
    found: Found,
    needed: TaskId,
}

fn make_ready(mover: &mut Mover<'_>, pool: &Pool, found: &Found) -> Result<Change, Error> {
    match found.read(pool.layout())? {
        Some(task) => mover.make_ready(found, &task, found.name),
        None => Ok(Change::Moved),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Learnt {
    All,
    Some,
}
