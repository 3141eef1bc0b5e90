//! From what a person types to a task or a batch, and from a task to where it stands.
//!
//! A task may be named by its whole id or by any unique beginning or end of it; people see the
//! last eight digits. The members of a batch are listed by [`crate::dir::batch::members`].

use std::collections::{BTreeSet, HashMap, HashSet};

use shared::id::{BatchId, TaskId};
use shared::outcome::{Next, Outcome};
use shared::task::Task;

use super::disk::listing::{self, PassedOver};
use super::disk::place::{Found, Place};
use super::find::{ledger_counts, places, recent_ends};
use super::layout::{Layout, Shelf};
use super::ledger::search::{self, LastLines};
use super::submit::keys;
use crate::Error;
use crate::wire::ledger_line::Line;

pub use crate::dir::batch::members::{members, record_batch};

/// What a text names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// One task.
    Task(TaskId),
    /// A bulk submit and its tasks, in order.
    Batch(BatchId, Vec<TaskId>),
}

impl Named {
    /// The one task, or those of the batch in order.
    #[must_use]
    pub fn tasks(&self) -> &[TaskId] {
        match self {
            Self::Task(id) => std::slice::from_ref(id),
            Self::Batch(_batch, ids) => ids,
        }
    }
}

/// Why a text names nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Miss {
    /// It cannot be part of an id.
    #[error("`{}` is no id: give a task's or batch's id, or at least 4 hex digits of its beginning or end", .0.escape_default())]
    NoId(String),
    /// It could be an id or part of one, but no task or batch has it, in history neither.
    #[error("no task or batch `{}` in this pool (nor in its history)", .0.escape_default())]
    Unknown(String),
    /// Several have it: at most ten of them are listed.
    #[error("`{}` could be any of {}", .0.escape_default(), .1.join(", "))]
    Ambiguous(String, Vec<String>),
}

/// How many candidates are listed.
const CANDIDATES: usize = 10;

/// Finds what `text` names.
pub fn find(layout: &Layout, text: &str) -> Result<Result<Named, Miss>, Error> {
    let mut found = find_all(layout, &[text])?;
    Ok(found.pop().expect("one for each text"))
}

/// What `text` names where the keys of batches count too. One that is a key and also part of
/// another id names neither: what is cancelled must be what was meant.
pub fn find_named(layout: &Layout, text: &str) -> Result<Result<Named, Miss>, Error> {
    let mut found = find_all_named(layout, &[text])?;
    Ok(found.pop().expect("one for each text"))
}

/// The same for any number of texts, in order: they share one look at the places and one reading of
/// history.
pub fn find_all_named(layout: &Layout, texts: &[&str]) -> Result<Vec<Result<Named, Miss>>, Error> {
    let found = find_all(layout, texts)?.into_iter();
    texts.iter().zip(found).map(|(text, found)| or_key(layout, text, found)).collect()
}

fn or_key(
    layout: &Layout,
    text: &str,
    found: Result<Named, Miss>,
) -> Result<Result<Named, Miss>, Error> {
    let Some(batch) = keys::batch_of(layout, text)? else { return Ok(found) };
    let meant = format!("batch {batch} (by its key)");
    let others = match found {
        Err(Miss::NoId(_) | Miss::Unknown(_)) => Vec::new(),
        Ok(Named::Batch(same, _)) if same == batch => Vec::new(),
        Ok(Named::Batch(other, _)) => vec![format!("batch {other}")],
        Ok(Named::Task(id)) => vec![id.to_string()],
        Err(Miss::Ambiguous(_, others)) => others,
    };
    if others.is_empty() {
        return Ok(Ok(Named::Batch(batch, members(layout, batch)?)));
    }
    let all = [meant].into_iter().chain(others).take(CANDIDATES).collect();
    Ok(Err(Miss::Ambiguous(text.to_owned(), all)))
}

fn find_all(layout: &Layout, texts: &[&str]) -> Result<Vec<Result<Named, Miss>>, Error> {
    let whole: HashSet<TaskId> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    let mut passed_over = PassedOver::default();
    let whole = known(layout, whole, &mut passed_over)?;
    let is_whole = |text: &&str| text.parse().is_ok_and(|id| whole.contains(&id));
    let parts = texts.iter().filter(|text| !is_whole(text)).filter_map(|text| digits_of(text));
    let mut parts = Parts::find(layout, parts)?;
    parts.passed_over.extend(passed_over);
    let name = |text: &&str| match (text.parse::<TaskId>(), digits_of(text)) {
        (Ok(id), _) if whole.contains(&id) => Ok(Ok(Named::Task(id))),
        (_, Some(digits)) => parts.hits[&digits].judge(layout, text, &parts.passed_over),
        (_, None) => Ok(Err(Miss::NoId((*text).to_owned()))),
    };
    texts.iter().map(name).collect()
}

/// Those of these tasks that are in the pool or in its history.
fn known(
    layout: &Layout,
    mut ids: HashSet<TaskId>,
    passed_over: &mut PassedOver,
) -> Result<HashSet<TaskId>, Error> {
    let there = places::find_some(layout, &ids, passed_over)?;
    let mut known: HashSet<TaskId> = there.into_keys().collect();
    ids.retain(|id| !known.contains(id));
    let LastLines { last, damaged } = search::last_of(layout, &ids)?;
    // Also a line that cannot be understood is about a task that there was.
    known.extend(last.into_keys().chain(damaged.into_keys()));
    Ok(known)
}

/// The digits of what may be part of an id. Dashes do not count.
fn digits_of(text: &str) -> Option<String> {
    let digits = text.replace('-', "").to_ascii_lowercase();
    let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (hex && (4..=WHOLE).contains(&digits.len())).then_some(digits)
}

/// So many digits has a whole id.
const WHOLE: usize = 32;

/// Beginnings and ends of ids, and what has each.
#[derive(Default)]
struct Parts {
    hits: HashMap<String, Hits>,
    lengths: BTreeSet<usize>,
    passed_over: PassedOver,
}

/// What has one part.
#[derive(Default)]
struct Hits {
    tasks: BTreeSet<TaskId>,
    batches: BTreeSet<BatchId>,
}

impl Parts {
    /// Looks for all of them at once.
    fn find(layout: &Layout, parts: impl Iterator<Item = String>) -> Result<Self, Error> {
        let mut found = Self::default();
        for part in parts {
            found.lengths.insert(part.len());
            found.hits.entry(part).or_default();
        }
        if !found.lengths.is_empty() {
            found.batches(layout)?;
        }
        // A whole id that no task has was looked for already.
        if found.lengths.iter().any(|length| *length < WHOLE) {
            found.passed_over = found.tasks(layout)?;
        }
        Ok(found)
    }

    fn batches(&mut self, layout: &Layout) -> Result<(), Error> {
        let names = listing::entries(&layout.batches())?;
        let ids = names.iter().filter_map(|name| name.to_str()?.parse::<BatchId>().ok());
        for id in ids {
            self.with(&id.to_string(), |hits| {
                hits.batches.insert(id);
            });
        }
        Ok(())
    }

    /// Returns what had to be passed over.
    fn tasks(&mut self, layout: &Layout) -> Result<PassedOver, Error> {
        let mut see = |id: TaskId| {
            self.with(&id.to_string(), |hits| {
                hits.tasks.insert(id);
            });
        };
        let mut passed_over = PassedOver::default();
        for place in places::all(layout, &mut passed_over)? {
            let names = passed_over.or_pass_over(listing::tasks_in(&place.dir(layout)))?;
            names.unwrap_or_default().tasks.into_iter().for_each(|name| see(name.id));
        }
        ledger_counts::each_id(layout, see)?;
        Ok(passed_over)
    }

    /// Shows the hits of each part that this id begins or ends with. Dashes do not count.
    fn with(&mut self, id: &str, mut see: impl FnMut(&mut Hits)) {
        let id: String = id.chars().filter(|letter| *letter != '-').collect();
        for length in &self.lengths {
            let (Some(first), Some(from)) = (id.get(..*length), id.len().checked_sub(*length))
            else {
                continue;
            };
            for part in [first, &id[from..]] {
                self.hits.get_mut(part).into_iter().for_each(&mut see);
            }
        }
    }
}

impl Hits {
    fn judge(
        &self,
        layout: &Layout,
        text: &str,
        passed_over: &PassedOver,
    ) -> Result<Result<Named, Miss>, Error> {
        let text = text.to_owned();
        let (tasks, batches): (Vec<_>, Vec<_>) =
            (self.tasks.iter().collect(), self.batches.iter().collect());
        Ok(match (&tasks[..], &batches[..]) {
            ([id], []) => Ok(Named::Task(**id)),
            ([], [batch]) => Ok(Named::Batch(**batch, members(layout, **batch)?)),
            // Unless it is where nobody may look.
            ([], []) => passed_over.none_was().map(|()| Err(Miss::Unknown(text)))?,
            (_, _) => {
                let ids = tasks.iter().map(ToString::to_string);
                let all = ids.chain(batches.iter().map(|batch| format!("batch {batch}")));
                Err(Miss::Ambiguous(text, all.take(CANDIDATES).collect()))
            }
        })
    }
}

/// Where a task stands.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It is in the pool.
    There(Found),
    /// It has ended and is history: the last line about it.
    Ended(Box<Line>),
}

impl Standing {
    /// The state's name, as in `queue show`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self {
            Self::There(Found { place: Place::Ending { .. }, .. }) => "cancelled",
            Self::There(found) => found.place.state(),
            Self::Ended(line) => ended_state(line.outcome),
        }
    }

    /// How the task ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<Outcome> {
        match self {
            Self::There(Found { place: Place::Shelf { shelf: Shelf::Failed, .. }, .. }) => {
                Some(Outcome::Failed)
            }
            Self::There(_) => None,
            Self::Ended(line) => Some(line.outcome),
        }
    }

    /// The attempt that comes next, is going on, or was the last.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        match self {
            Self::There(found) => found.name.attempt,
            Self::Ended(line) => line.attempt,
        }
    }

    /// The task itself. `None` when it has moved on meanwhile.
    pub fn task(&self, layout: &Layout) -> Result<Option<Task>, Error> {
        match self {
            Self::There(found) => found.read(layout),
            Self::Ended(line) => Ok(Some(line.task.clone())),
        }
    }
}

/// The word for the state of a task that is history.
#[must_use]
pub const fn ended_state(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed | Outcome::Returned => "failed",
        Outcome::Cancelled => "cancelled",
    }
}

/// Looks a task up: in the pool, then in history. `None` where nobody knows it, and an error where
/// what could not be read may be about it.
pub fn standing(layout: &Layout, id: TaskId) -> Result<Option<Standing>, Error> {
    // Between the look at the places and the look at history it may have been put back.
    for _look in 0..3 {
        let found = places::find(layout, id);
        if let Ok(Some(found)) = found {
            return unless_ended(layout, found).map(Some);
        }
        match crate::dir::ledger::search::history_of(layout, id)?.last()? {
            // What has ended for good is in no place, also in none that cannot be looked into.
            Some(last) if last.next.ends_task() && (found.is_ok() || last.next == Next::End) => {
                return Ok(Some(Standing::Ended(Box::new(last))));
            }
            Some(_put_back) => drop(found?),
            None => return found.map(|_nowhere| None),
        }
    }
    Ok(None)
}

/// What lies where it ran may have ended a moment ago, and somebody may know it already.
fn unless_ended(layout: &Layout, found: Found) -> Result<Standing, Error> {
    if let Place::Processing { worker } = &found.place {
        let mut ends = recent_ends::ends_of(layout, worker, &[found.name])?;
        let line = ends.remove(&found.name.id).filter(|line| line.next.ends_task());
        if let Some(line) = line {
            return Ok(Standing::Ended(Box::new(line)));
        }
    }
    Ok(Standing::There(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::submit::one::Submitter;
    use crate::dir::{Pool, Privacy, Rules};
    use crate::store::contract::task;

    const ID: &str = "0194c3f2-aaaa-7bbb-8ccc-ddddeeeeffff";

    #[test]
    fn any_beginning_or_end_fits_and_nothing_else() {
        let fits = |part: &str| {
            let mut parts = Parts::default();
            parts.lengths.insert(part.len());
            parts.hits.insert(part.to_owned(), Hits::default());
            let mut fits = false;
            parts.with(ID, |_hits| fits = true);
            fits
        };
        for good in ["0194", "0194c3f2aaaa", "eeeeffff", "ffff", &ID.replace('-', "")] {
            assert!(fits(good), "{good}");
        }
        for bad in ["aaaa", "c3f2", "0195", "0fff", &format!("{}0", ID.replace('-', ""))] {
            assert!(!fits(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_no_id_and_what_nobody_has_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let miss = |text: &str| find(&layout, text).unwrap().unwrap_err();
        assert!(matches!(miss("task-1"), Miss::NoId(_)));
        assert!(matches!(miss("abc"), Miss::NoId(_)));
        assert!(matches!(miss("abcd"), Miss::Unknown(_)));
        assert!(matches!(miss(ID), Miss::Unknown(_)));
    }

    #[test]
    fn a_batch_is_found_by_its_end_and_knows_its_tasks() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let (batch, other) = (BatchId::new(), BatchId::new());
        let ids = vec![TaskId::new(), TaskId::new()];
        record_batch(&layout, batch, &ids).unwrap();
        record_batch(&layout, other, &[]).unwrap();
        let found = find(&layout, &batch.short()).unwrap();
        assert_eq!(found, Ok(Named::Batch(batch, ids)));
        let common = &batch.to_string()[..8];
        let Err(Miss::Ambiguous(_, candidates)) = find(&layout, common).unwrap() else { panic!() };
        assert_eq!(candidates.len(), 2);
    }

    #[test]
    fn a_key_that_is_also_part_of_an_id_names_neither() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Pool::create(&dir.path().join("p"), Rules::default(), Privacy::Owner).unwrap();
        let layout = pool.layout();
        let task = task(r#"{"shell": "true"}"#);
        let id = task.id;
        Submitter::new(&pool).unwrap().submit(&task).unwrap();
        let (batch, own) = (BatchId::new(), BatchId::new());
        record_batch(layout, batch, &[]).unwrap();
        record_batch(layout, own, &[]).unwrap();
        let (short, nobodys) = (id.short(), "0123abcd");
        let submit = keys::Keys::wait(&pool).unwrap();
        for (key, batch) in [("night", batch), (nobodys, batch), (&short, batch)] {
            submit.submitted_batch(key, batch, TaskId::new()).unwrap();
        }
        // Its own end, by chance.
        submit.submitted_batch(&own.short(), own, TaskId::new()).unwrap();
        for (text, named) in [("night", batch), (nobodys, batch), (&own.short(), own)] {
            assert_eq!(find_named(layout, text).unwrap(), Ok(Named::Batch(named, vec![])));
        }
        let told = find_named(layout, &short).unwrap().unwrap_err().to_string();
        assert!(told.contains(&batch.to_string()) && told.contains(&id.to_string()), "{told}");
        assert_eq!(find_named(layout, &id.to_string()).unwrap(), Ok(Named::Task(id)));
    }
}
