//! How the tasks stand that others wait for: what follows from it is a pure function; finding it
//! out takes a look at the places and at all of history, for many tasks at once.

use std::collections::{HashMap, HashSet};

use shared::id::TaskId;
use shared::outcome::{Next, Outcome};

use super::places;
use crate::Error;
use crate::dir::Pool;
use crate::dir::disk::listing::{self, PassedOver};
use crate::dir::disk::place::{Found, Place};
use crate::dir::layout::Shelf;
use crate::dir::ledger::lines::Damaged;
use crate::dir::ledger::search::{self, LastLines};
use crate::store::dependency::Dependency;

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
    Ok(states(pool, wanted)?.known.into_iter().map(|(id, end)| (id, dependency(end))).collect())
}

/// How some tasks stand.
#[derive(Debug, Default)]
pub(in crate::dir) struct States {
    /// The end of each, or none while it is open. Of those that nobody knows there is nothing.
    pub(in crate::dir) known: HashMap<TaskId, Option<End>>,
    /// Of those that may have ended, the line that would say so if it could be understood.
    pub(in crate::dir) damaged: HashMap<TaskId, Damaged>,
}

/// Places, history, places again: whatever moved between the first two looks is found by one of
/// them. What failed for good and was retried during the first look is found by the third.
pub(in crate::dir) fn states(pool: &Pool, mut wanted: HashSet<TaskId>) -> Result<States, Error> {
    let mut states = in_places(pool, &mut wanted, &mut PassedOver::default())?;
    if wanted.is_empty() {
        return Ok(States { known: states, ..States::default() });
    }
    let LastLines { last, mut damaged } = search::last_of(pool.layout(), &wanted)?;
    // How it ended with its last attempt is unknown where the line about that is damaged.
    for (id, brief) in last.into_iter().filter(|(id, _brief)| !damaged.contains_key(id)) {
        let Some(outcome) = brief.end_of_task() else { continue };
        states.insert(id, Some(End { attempt: brief.attempt, outcome }));
        if brief.next == Next::End {
            wanted.remove(&id);
        }
    }
    if !wanted.is_empty() {
        let mut passed_over = PassedOver::default();
        states.extend(in_places(pool, &mut wanted, &mut passed_over)?);
        // What failed may have been retried, and be where nobody may look: then it is open.
        let unknown = wanted.into_iter().filter(|_id| !passed_over.is_empty());
        states.extend(unknown.map(|id| (id, None)));
    }
    damaged.retain(|id, _damaged| !states.contains_key(id));
    Ok(States { known: states, damaged })
}

fn in_places(
    pool: &Pool,
    wanted: &mut HashSet<TaskId>,
    passed_over: &mut PassedOver,
) -> Result<HashMap<TaskId, Option<End>>, Error> {
    let mut states = HashMap::new();
    for place in places::all(pool.layout(), passed_over)? {
        let names = passed_over.or_pass_over(listing::tasks_in(&place.dir(pool.layout())))?;
        for name in names.unwrap_or_default().tasks {
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
    let line = search::recorded_end(pool.layout(), found)?;
    Ok(line.map(|line| End { attempt: line.attempt, outcome: line.outcome }))
}
