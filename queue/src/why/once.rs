//! What is looked at once for an answer, however many lanes it is about.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;

use super::Look;
use crate::Error;
use crate::dir::claim::limit_slots;
use crate::dir::find::load_requests::{self, Asked};

/// What was looked at so far.
#[derive(Debug, Default)]
pub(super) struct Once {
    loads: OnceCell<Vec<Asked>>,
    limits: RefCell<HashMap<String, u32>>,
}

impl Look<'_> {
    /// The loads that somebody was asked for, and those that are going on.
    pub(super) fn loads(&self) -> Result<&[Asked], Error> {
        if let Some(known) = self.once.loads.get() {
            return Ok(known);
        }
        let mut asked = load_requests::pending(self.pool.layout())?;
        for beat in self.view.alive().filter_map(|worker| worker.heartbeat.as_ref()) {
            asked.extend(load_requests::running(self.pool.layout(), beat));
        }
        Ok(self.once.loads.get_or_init(|| asked))
    }

    /// How many slots of a limit are in use.
    pub(super) fn slots_in_use(&self, key: &str) -> Result<u32, Error> {
        if let Some(known) = self.once.limits.borrow().get(key) {
            return Ok(*known);
        }
        let used = limit_slots::in_use(self.pool, key)?;
        self.once.limits.borrow_mut().insert(key.to_owned(), used);
        Ok(used)
    }
}
