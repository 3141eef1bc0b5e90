//! Tasks whose files somebody has removed: history says that they have not ended, and they are nowhere.

use std::collections::HashSet;

use shared::id::TaskId;

use super::places;
use crate::Error;
use crate::dir::layout::Layout;
use crate::dir::ledger::search;
use crate::wire::ledger_line::Brief;

/// So often they are looked for, in the places and in history: what is on its way is met by one look.
const LOOKS: usize = 3;

/// Of tasks that were in no place, those that are gone: by history they have not ended, and no place
/// has them however often one looks. Somebody has removed their files.
pub fn gone(layout: &Layout, missed: HashSet<TaskId>) -> Result<HashSet<TaskId>, Error> {
    let mut gone = missed;
    for _look in 0..LOOKS {
        if gone.is_empty() {
            break;
        }
        let there = places::find_all(layout, &gone)?;
        gone.retain(|id| !there.contains_key(id));
        let lines = search::last_of(layout, &gone)?;
        let is_open = |brief: &Brief| brief.end_of_task().is_none();
        gone.retain(|id| lines.last.get(id).is_some_and(is_open));
        gone.retain(|id| !lines.damaged.contains_key(id));
    }
    Ok(gone)
}
