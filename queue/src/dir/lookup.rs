//! From what a person types to a task or a batch, and from a task to where it stands.
//!
//! A task may be named by its whole id or by any unique beginning or end of it; people see the
//! last eight digits. The members of a batch are listed by [`crate::dir::batch::members`].

use std::collections::BTreeSet;

use shared::id::{BatchId, TaskId};
use shared::outcome::{Next, Outcome};
use shared::task::Task;

use super::disk::listing::{self, PassedOver};
use super::disk::place::{Found, Place};
use super::find::{ledger_counts, places};
use super::layout::{Layout, Shelf};
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
    if let Ok(id) = text.parse::<TaskId>()
        && standing(layout, id)?.is_some()
    {
        return Ok(Ok(Named::Task(id)));
    }
    let digits = text.replace('-', "").to_ascii_lowercase();
    let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex || !(4..=32).contains(&digits.len()) {
        return Ok(Err(Miss::NoId(text.to_owned())));
    }
    let mut hits = Hits::default();
    hits.batches(layout, &digits)?;
    if digits.len() < 32 {
        hits.tasks(layout, &digits)?;
    }
    hits.judge(layout, text)
}

/// What `text` names where the keys of batches count too. One that is a key and also part of
/// another id names neither: what is cancelled must be what was meant.
pub fn find_named(layout: &Layout, text: &str) -> Result<Result<Named, Miss>, Error> {
    let found = find(layout, text)?;
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

#[derive(Default)]
struct Hits {
    tasks: BTreeSet<TaskId>,
    batches: BTreeSet<BatchId>,
    passed_over: PassedOver,
}

impl Hits {
    fn batches(&mut self, layout: &Layout, digits: &str) -> Result<(), Error> {
        let names = listing::entries(&layout.batches())?;
        let ids = names.iter().filter_map(|name| name.to_str()).filter(|id| fits(id, digits));
        self.batches.extend(ids.filter_map(|id| id.parse::<BatchId>().ok()));
        Ok(())
    }

    fn tasks(&mut self, layout: &Layout, digits: &str) -> Result<(), Error> {
        for place in places::all(layout, &mut self.passed_over)? {
            let names = self.passed_over.or_pass_over(listing::tasks_in(&place.dir(layout)))?;
            let names = names.unwrap_or_default().tasks.into_iter();
            self.tasks.extend(names.map(|n| n.id).filter(|id| fits(&id.to_string(), digits)));
        }
        self.tasks.extend(ledger_counts::ids(layout, |id| fits(id, digits))?);
        Ok(())
    }

    fn judge(self, layout: &Layout, text: &str) -> Result<Result<Named, Miss>, Error> {
        let text = text.to_owned();
        let tasks: Vec<_> = self.tasks.into_iter().collect();
        let batches: Vec<_> = self.batches.into_iter().collect();
        Ok(match (&tasks[..], &batches[..]) {
            ([id], []) => Ok(Named::Task(*id)),
            ([], [batch]) => Ok(Named::Batch(*batch, members(layout, *batch)?)),
            // Unless it is where nobody may look.
            ([], []) => self.passed_over.none_was().map(|()| Err(Miss::Unknown(text)))?,
            (_, _) => {
                let ids = tasks.iter().map(ToString::to_string);
                let all = ids.chain(batches.iter().map(|batch| format!("batch {batch}")));
                Err(Miss::Ambiguous(text, all.take(CANDIDATES).collect()))
            }
        })
    }
}

/// Whether an id begins or ends with these digits. Dashes do not count.
fn fits(id: &str, digits: &str) -> bool {
    let plain: String = id.chars().filter(|c| *c != '-').collect();
    plain.starts_with(digits) || plain.ends_with(digits)
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
            return Ok(Some(Standing::There(found)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::submit::one::Submitter;
    use crate::dir::{Pool, Privacy, Rules};
    use crate::store::contract::task;

    const ID: &str = "0194c3f2-aaaa-7bbb-8ccc-ddddeeeeffff";

    #[test]
    fn any_beginning_or_end_fits_and_nothing_else() {
        for good in ["0194", "0194c3f2aaaa", "eeeeffff", "ffff", &ID.replace('-', "")] {
            assert!(fits(ID, good), "{good}");
        }
        for bad in ["aaaa", "c3f2", "0195", "0fff", &format!("{}0", ID.replace('-', ""))] {
            assert!(!fits(ID, bad), "{bad}");
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
