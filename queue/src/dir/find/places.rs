//! Where tasks are: looking one up, and walking over all.

use shared::id::TaskId;

use crate::Error;
use crate::dir::batch::roll_forward;
use crate::dir::disk::listing;
use crate::dir::disk::place::{Found, Place};
use crate::dir::layout::{Layout, Segment, Shelf};

/// Which directories to look into.
#[derive(Clone, Copy, Debug)]
enum Scope {
    All,
    /// Only those where this task can be.
    Of(TaskId),
}

impl Scope {
    fn takes(self, segment: &Segment) -> bool {
        match self {
            Self::All => true,
            Self::Of(id) => segment.time == id.segment(),
        }
    }
}

/// Looks a task up. A task that is being moved meanwhile may be missed: what finds nothing looks
/// again, several times, before it says so; and what is committed but not yet in place is put there.
pub fn find(layout: &Layout, id: TaskId) -> Result<Option<Found>, Error> {
    let mut rolled = Ok(());
    for look in 0..4 {
        if look == 1 {
            rolled = roll_forward::forward_all(layout).map(|_count| ());
        }
        for place in places(layout, Scope::Of(id))? {
            let names = listing::tasks_in(&place.dir(layout))?;
            if let Some(name) = names.tasks.into_iter().find(|name| name.id == id) {
                return Ok(Some(Found { place, name }));
            }
        }
    }
    // It may be in a batch that could not be put in place.
    rolled.map(|()| None)
}

/// All places that have tasks now.
pub fn all(layout: &Layout) -> Result<Vec<Place>, Error> {
    places(layout, Scope::All)
}

/// In the order in which tasks move, so that a task on its way is met at least once.
fn places(layout: &Layout, scope: Scope) -> Result<Vec<Place>, Error> {
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

fn shelf_places(layout: &Layout, shelf: Shelf, scope: Scope) -> Result<Vec<Place>, Error> {
    let segments = listing::segments(&layout.shelf(shelf))?;
    let taken = segments.into_iter().filter(|segment| scope.takes(segment));
    Ok(taken.map(|segment| Place::Shelf { shelf, segment }).collect())
}
