//! How the tasks stand that others wait for: what follows from it is a pure function; finding it
//! out takes a look at the places and at all of history, for many tasks at once.

use std::collections::{HashMap, HashSet};

use shared::id::TaskId;
use shared::outcome::{Next, Outcome};
use shared::task::On;

use super::places::{self, Found, Place};
use crate::Error;
use crate::dir::Pool;
use crate::dir::disk::listing;
use crate::dir::layout::Shelf;
use crate::dir::ledger::append::{self, Follower};
use crate::wire::ledger_line::Brief;

/// How a dependency stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// It has not ended, or nobody knows it.
    Open,
    /// It ended, in this way.
    Ended(Outcome),
}

/// What follows for a task that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on waiting.
    Wait,
    /// It may run.
    Ready,
    /// It can never run, because of this one.
    Hopeless(TaskId),
}

/// Decides about a task that waits. Pure.
pub fn verdict(after: &[(TaskId, On)], state: impl Fn(TaskId) -> Dependency) -> Verdict {
    let mut verdict = Verdict::Ready;
    for (id, on) in after {
        match (state(*id), on) {
            (Dependency::Open, _) => verdict = Verdict::Wait,
            (Dependency::Ended(Outcome::Succeeded), On::Success | On::Any)
            | (Dependency::Ended(Outcome::Failed | Outcome::Cancelled), On::Failure | On::Any) => {}
            // An attempt that was given back is not the end of a task.
            (Dependency::Ended(Outcome::Returned), _) => verdict = Verdict::Wait,
            (Dependency::Ended(_), On::Success | On::Failure) => return Verdict::Hopeless(*id),
        }
    }
    verdict
}

/// How a task ended, with which attempt: a retried one ends again, and lines of several writers
/// come in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dir) struct End {
    pub(in crate::dir) attempt: u32,
    pub(in crate::dir) outcome: Outcome,
}

/// How many tasks stand: each is open, ended, or (nobody knows it) left out.
pub fn states_of(
    pool: &Pool,
    wanted: HashSet<TaskId>,
) -> Result<HashMap<TaskId, Dependency>, Error> {
    let dependency = |end: Option<End>| match end {
        Some(end) => Dependency::Ended(end.outcome),
        None => Dependency::Open,
    };
    Ok(states(pool, wanted)?.into_iter().map(|(id, end)| (id, dependency(end))).collect())
}

/// Places, history, places again: whatever moved between the first two looks is found by one of
/// them. What failed for good and was retried during the first look is found by the third.
pub(in crate::dir) fn states(
    pool: &Pool,
    mut wanted: HashSet<TaskId>,
) -> Result<HashMap<TaskId, Option<End>>, Error> {
    let mut states = in_places(pool, &mut wanted)?;
    if wanted.is_empty() {
        return Ok(states);
    }
    let mut last: HashMap<TaskId, Brief> = HashMap::new();
    Follower::from_start().follow(pool.layout(), |brief| {
        let newer = last.get(&brief.id).is_none_or(|other| other.attempt <= brief.attempt);
        if newer && wanted.contains(&brief.id) {
            last.insert(brief.id, brief);
        }
    })?;
    for (id, brief) in last {
        let Some(outcome) = brief.end_of_task() else { continue };
        states.insert(id, Some(End { attempt: brief.attempt, outcome }));
        if brief.next == Next::End {
            wanted.remove(&id);
        }
    }
    if !wanted.is_empty() {
        states.extend(in_places(pool, &mut wanted)?);
    }
    Ok(states)
}

fn in_places(
    pool: &Pool,
    wanted: &mut HashSet<TaskId>,
) -> Result<HashMap<TaskId, Option<End>>, Error> {
    let mut states = HashMap::new();
    for place in places::all(pool.layout())? {
        for name in listing::tasks_in(&place.dir(pool.layout()))?.tasks {
            if wanted.remove(&name.id) {
                let found = Found { place: place.clone(), name };
                states.insert(name.id, end_of(pool, &found)?);
            }
        }
        if wanted.is_empty() {
            break;
        }
    }
    Ok(states)
}

/// How a task has ended that is still somewhere. `None` while it is open.
fn end_of(pool: &Pool, found: &Found) -> Result<Option<End>, Error> {
    let attempt = found.name.attempt;
    if let Place::Shelf { shelf: Shelf::Failed, .. } = found.place {
        return Ok(Some(End { attempt, outcome: Outcome::Failed }));
    }
    // Its line may be there already, and who follows the ledger past it.
    let line = append::recorded_end(pool.layout(), found)?;
    Ok(line.map(|line| End { attempt: line.attempt, outcome: line.outcome }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_how_dependencies_ended() {
        let (a, b) = (TaskId::new(), TaskId::new());
        let ended = |outcome| move |_id| Dependency::Ended(outcome);
        let mixed =
            |id| if id == a { Dependency::Ended(Outcome::Succeeded) } else { Dependency::Open };
        let on = |on| [(a, on), (b, on)];
        assert_eq!(verdict(&on(On::Success), ended(Outcome::Succeeded)), Verdict::Ready);
        assert_eq!(verdict(&on(On::Success), mixed), Verdict::Wait);
        assert_eq!(verdict(&on(On::Success), ended(Outcome::Failed)), Verdict::Hopeless(a));
        assert_eq!(verdict(&on(On::Success), ended(Outcome::Cancelled)), Verdict::Hopeless(a));
        assert_eq!(verdict(&on(On::Failure), ended(Outcome::Cancelled)), Verdict::Ready);
        assert_eq!(verdict(&on(On::Failure), ended(Outcome::Succeeded)), Verdict::Hopeless(a));
        assert_eq!(verdict(&on(On::Any), ended(Outcome::Failed)), Verdict::Ready);
        assert_eq!(verdict(&[], mixed), Verdict::Ready);
    }
}
