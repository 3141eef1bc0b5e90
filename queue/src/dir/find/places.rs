//! Where tasks are: looking one up, and walking over all.

use std::collections::{HashMap, HashSet};

use shared::id::TaskId;

use crate::Error;
use crate::dir::batch::roll_forward;
use crate::dir::disk::listing;
use crate::dir::disk::place::{Found, Place};
use crate::dir::layout::{Layout, Segment, Shelf};

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
/// Those that are nowhere are left out.
pub fn find_all(layout: &Layout, ids: &HashSet<TaskId>) -> Result<HashMap<TaskId, Found>, Error> {
    let (mut found, mut rolled) = (HashMap::with_capacity(ids.len()), Ok(()));
    let times = ids.iter().map(|id| id.segment()).collect();
    for look in 0..4 {
        if look == 1 {
            rolled = roll_forward::forward_all(layout).map(|_count| ());
        }
        for place in places(layout, Scope::Of(&times))? {
            for name in listing::tasks_in(&place.dir(layout))?.tasks {
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

/// All places that have tasks now.
pub fn all(layout: &Layout) -> Result<Vec<Place>, Error> {
    places(layout, Scope::All)
}

/// In the order in which tasks move, so that a task on its way is met at least once.
fn places(layout: &Layout, scope: Scope<'_>) -> Result<Vec<Place>, Error> {
    let mut found = Vec::new();
    for shelf in [Shelf::Waiting, Shelf::Held] {
        found.extend(shelf_places(layout, shelf, scope)?);
    }
    found.extend(listing::due_times(layout)?.into_iter().map(|due| Place::Delayed { due }));
    for lane in listing::lanes(layout)? {
        for priority in listing::priorities(layout, &lane)? {
            let segments = listing::segments(&layout.pending_priority(&lane, priority))?;
            found.extend(
                segments.into_iter().filter(|s| scope.takes(s)).map(|segment| Place::Pending {
                    lane: lane.clone(),
                    priority,
                    segment,
                }),
            );
        }
    }
    let holders = listing::holders(layout)?;
    found.extend(holders.into_iter().map(|worker| Place::Processing { worker }));
    found.extend(shelf_places(layout, Shelf::Failed, scope)?);
    for verb in listing::entries(&layout.ending())? {
        found.extend(verb.into_string().ok().map(|verb| Place::Ending { verb }));
    }
    Ok(found)
}

fn shelf_places(layout: &Layout, shelf: Shelf, scope: Scope<'_>) -> Result<Vec<Place>, Error> {
    let segments = listing::segments(&layout.shelf(shelf))?;
    let taken = segments.into_iter().filter(|segment| scope.takes(segment));
    Ok(taken.map(|segment| Place::Shelf { shelf, segment }).collect())
}
