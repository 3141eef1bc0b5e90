//! Which brakes hold given tasks, and letting go of them.

use std::collections::HashSet;

use shared::id::TaskId;
use shared::task::Class;

use crate::Error;
use crate::dir::Pool;
use crate::dir::batch::members;
use crate::dir::disk::listing::PassedOver;
use crate::dir::find::places;
use crate::dir::signal::doorbell;
use crate::wire::brake::{Brake, BrakeKey};

/// A brake, and which of the tasks that were asked about it counts.
#[derive(Clone, Debug)]
pub struct HeldTasks {
    /// What holds them.
    pub brake: Brake,
    /// Those of the tasks that it counts, also those that have ended.
    pub tasks: HashSet<TaskId>,
    /// How many it counts in all, where that is known: of a batch.
    of: Option<usize>,
}

impl HeldTasks {
    /// Whether these are all that it counts: a whole batch.
    #[must_use]
    pub fn is_about_all(&self) -> bool {
        self.of == Some(self.tasks.len())
    }
}

/// The brakes that hold some of these tasks, or would if they had not ended. Reads nothing where no
/// brake holds.
pub fn brakes_of(pool: &Pool, ids: &HashSet<TaskId>) -> Result<Vec<HeldTasks>, Error> {
    let mut found = Vec::new();
    for brake in pool.brakes().all()?.values().filter(|brake| brake.held.is_some()) {
        let (tasks, of) = match brake.batch {
            Some(batch) => {
                let all = members::members(pool.layout(), batch)?;
                let of = all.len();
                (all.into_iter().filter(|id| ids.contains(id)).collect(), Some(of))
            }
            None => (counted(pool, brake, ids)?, None),
        };
        if !tasks.is_empty() {
            found.push(HeldTasks { brake: brake.clone(), tasks, of });
        }
    }
    Ok(found)
}

/// Those of these tasks that a brake without a batch counts: each has to be read for that.
fn counted(pool: &Pool, brake: &Brake, ids: &HashSet<TaskId>) -> Result<HashSet<TaskId>, Error> {
    let mut tasks: HashSet<TaskId> =
        brake.tasks.iter().copied().filter(|id| ids.contains(id)).collect();
    for (id, found) in places::find_some(pool.layout(), ids, &mut PassedOver::default())? {
        let task = found.read(pool.layout())?;
        if task.and_then(|task| BrakeKey::of(&task)).as_ref() == Some(&brake.key) {
            tasks.insert(id);
        }
    }
    Ok(tasks)
}

/// Lets the tasks of a brake go on. `None` where it did not hold any more.
pub fn let_go(pool: &Pool, key: &BrakeKey) -> Result<Option<Brake>, Error> {
    let brake = pool.brakes().end(key)?;
    if brake.is_some() {
        Class::ALL.iter().for_each(|class| doorbell::ring_class(pool.layout(), *class));
    }
    Ok(brake)
}
