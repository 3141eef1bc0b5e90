//! Where tasks are: looking one up, and walking over all.

use std::collections::{HashMap, HashSet};

use shared::id::TaskId;
use shared::task::TaskName;

use crate::Error;
use crate::dir::batch::roll_forward;
use crate::dir::disk::listing::{self, PassedOver};
use crate::dir::disk::place::{Found, Place};
use crate::dir::layout::{Layout, Segment, Shelf};
use crate::wire::lane::LaneName;

/// Which directories to look into.
#[derive(Clone, Copy, Debug)]
enum Scope<'a> {
    All,
    /// Only those where tasks with ids of these times can be.
    Of(&'a HashSet<String>),
}

impl Scope<'_> {
    fn takes(self, segment: &Segment) -> bool {
        match self {
            Self::All => true,
            Self::Of(times) => times.contains(&segment.time),
        }
    }
}

/// Looks a task up. A task that is being moved meanwhile may be missed: what finds nothing looks
/// again, several times, before it says so; and what is committed but not yet in place is put there.
pub fn find(layout: &Layout, id: TaskId) -> Result<Option<Found>, Error> {
    Ok(find_all(layout, &HashSet::from([id]))?.remove(&id))
}

/// Looks tasks up, any number of them, with one look at the places, or a few where some are missed.
/// Those that are nowhere are left out; an error where one may be where nobody may look.
pub fn find_all(layout: &Layout, ids: &HashSet<TaskId>) -> Result<HashMap<TaskId, Found>, Error> {
    let mut passed_over = PassedOver::default();
    let found = find_some(layout, ids, &mut passed_over)?;
    if found.len() < ids.len() { passed_over.none_was().map(|()| found) } else { Ok(found) }
}

/// The same for who knows what to make of those that are missing where something was passed over.
pub fn find_some(
    layout: &Layout,
    ids: &HashSet<TaskId>,
    passed_over: &mut PassedOver,
) -> Result<HashMap<TaskId, Found>, Error> {
    let (mut found, mut rolled) = (HashMap::with_capacity(ids.len()), Ok(()));
    let times = ids.iter().map(|id| id.segment()).collect();
    for look in 0..4 {
        if look == 1 {
            rolled = roll_forward::forward_all(layout).map(|_count| ());
        }
        // What could be listed by the last look counts.
        *passed_over = PassedOver::default();
        for place in places(layout, Scope::Of(&times), passed_over)? {
            let names = passed_over.or_pass_over(listing::tasks_in(&place.dir(layout)))?;
            for name in names.unwrap_or_default().tasks {
                if ids.contains(&name.id) && !found.contains_key(&name.id) {
                    found.insert(name.id, Found { place: place.clone(), name });
                }
            }
            if found.len() == ids.len() {
                return Ok(found);
            }
        }
    }
    // The others may be in a batch that could not be put in place.
    rolled.map(|()| found)
}

/// All places that have tasks now, as far as that can be told.
pub fn all(layout: &Layout, passed_over: &mut PassedOver) -> Result<Vec<Place>, Error> {
    places(layout, Scope::All, passed_over)
}

/// The tasks that a person holds.
pub fn held(layout: &Layout, passed_over: &mut PassedOver) -> Result<Vec<TaskName>, Error> {
    let mut held = Vec::new();
    for place in shelf_places(layout, Shelf::Held, Scope::All, passed_over)? {
        let names = passed_over.or_pass_over(listing::tasks_in(&place.dir(layout)))?;
        held.extend(names.unwrap_or_default().tasks);
    }
    Ok(held)
}

/// In the order in which tasks move, so that a task on its way is met at least once.
fn places(
    layout: &Layout,
    scope: Scope<'_>,
    passed_over: &mut PassedOver,
) -> Result<Vec<Place>, Error> {
    let mut found = Vec::new();
    for shelf in [Shelf::Waiting, Shelf::Held] {
        found.extend(shelf_places(layout, shelf, scope, passed_over)?);
    }
    let dues = passed_over.or_pass_over(listing::due_times(layout))?.unwrap_or_default();
    found.extend(dues.into_iter().map(|due| Place::Delayed { due }));
    for lane in passed_over.or_pass_over(listing::lanes(layout))?.unwrap_or_default() {
        let of_lane = pending_places(layout, &lane, passed_over)?.into_iter();
        found.extend(of_lane.filter(|place| match place {
            Place::Pending { segment, .. } => scope.takes(segment),
            Place::Processing { .. }
            | Place::Delayed { .. }
            | Place::Shelf { .. }
            | Place::Ending { .. } => true,
        }));
    }
    let holders = passed_over.or_pass_over(listing::holders(layout))?.unwrap_or_default();
    found.extend(holders.into_iter().map(|worker| Place::Processing { worker }));
    found.extend(shelf_places(layout, Shelf::Failed, scope, passed_over)?);
    let verbs = passed_over.or_pass_over(listing::entries(&layout.ending()))?.unwrap_or_default();
    found.extend(
        verbs
            .into_iter()
            .filter_map(|verb| verb.into_string().ok())
            .map(|verb| Place::Ending { verb }),
    );
    Ok(found)
}

/// The places of one lane, the highest priority first and inside it the oldest.
pub fn pending_places(
    layout: &Layout,
    lane: &LaneName,
    passed_over: &mut PassedOver,
) -> Result<Vec<Place>, Error> {
    let mut found = Vec::new();
    let priorities = passed_over.or_pass_over(listing::priorities(layout, lane))?;
    for priority in priorities.unwrap_or_default() {
        let segments = listing::segments(&layout.pending_priority(lane, priority));
        let segments = passed_over.or_pass_over(segments)?.unwrap_or_default();
        let place = |segment| Place::Pending { lane: lane.clone(), priority, segment };
        found.extend(segments.into_iter().map(place));
    }
    Ok(found)
}

fn shelf_places(
    layout: &Layout,
    shelf: Shelf,
    scope: Scope<'_>,
    passed_over: &mut PassedOver,
) -> Result<Vec<Place>, Error> {
    let segments = passed_over.or_pass_over(listing::segments(&layout.shelf(shelf)))?;
    let taken = segments.unwrap_or_default().into_iter().filter(|segment| scope.takes(segment));
    Ok(taken.map(|segment| Place::Shelf { shelf, segment }).collect())
}
