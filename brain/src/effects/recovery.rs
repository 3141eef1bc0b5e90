//! What is half done is finished, and what waits is released when its time has come. Each of
//! these can be done by anybody, again and again; the brain is who does it when nobody else does.

use std::time::{Duration, Instant};

use queue::dir::batch::roll_forward;
use queue::dir::disk::listing::{self, PassedOver};
use queue::dir::disk::place::Place;
use queue::dir::disk::{reject, reserve};
use queue::dir::find::places;
use queue::dir::ledger::append::Ledger;
use queue::dir::operate;
use queue::dir::recover::promote::{Promoter, Promotion};
use queue::dir::recover::strays::{Stray, Strays};
use queue::{Error, Pool};
use shared::event::Event;
use shared::quantity::Bytes;
use shared::time::Moment;

/// Between two looks for what nobody will ever finish.
const SWEEP: Duration = Duration::from_secs(60);

/// What is remembered between two cycles.
pub(crate) struct Recovery {
    pool: Pool,
    promoter: Option<Promoter>,
    strays: Strays,
    swept: Option<Instant>,
    reserve: Bytes,
    /// Whether the reserve was there at the last look.
    had_reserve: bool,
}

impl Recovery {
    /// Nothing done yet.
    pub(crate) fn new(pool: &Pool, reserve: Bytes) -> Self {
        let (pool, strays) = (pool.clone(), Strays::new(pool.layout()));
        Self { pool, promoter: None, strays, swept: None, reserve, had_reserve: false }
    }

    /// Bulk submits that are committed and not in place.
    pub(crate) fn roll_forward(&self) -> Result<Vec<Event>, Error> {
        roll_forward::forward_all(self.pool.layout())
            .map(|count| cleaned("unfinished bulk submits", count))
    }

    /// Ends that were begun.
    pub(crate) fn finish_ends(&self, ledger: &Ledger) -> Result<Vec<Event>, Error> {
        Ok(cleaned("unfinished cancels", operate::finish_begun(&self.pool, ledger)?))
    }

    /// Delays that are over, dependencies that have ended.
    pub(crate) fn promote(&mut self, ledger: &Ledger) -> Result<Vec<Event>, Error> {
        let mut promoter = match self.promoter.take() {
            Some(promoter) => promoter,
            None => Promoter::new(&self.pool),
        };
        // A promoter whose step failed is made anew: it may have missed lines of the ledger.
        let done = promoter.step(ledger, Moment::now())?;
        self.promoter = Some(promoter);
        // Whoever reads all of history says what of it is damaged.
        let said = done.into_iter().filter(|one| !matches!(one, Promotion::Damaged(_)));
        Ok(said.map(Promotion::event).collect())
    }

    /// What lies where only directories belong.
    pub(crate) fn strays(&mut self) -> Result<Vec<Event>, Error> {
        let aside = self.strays.step()?.into_iter();
        Ok(aside.map(|Stray { path: file, reason }| Event::TaskRejected { file, reason }).collect())
    }

    /// Room for when the disk is full.
    pub(crate) fn keep_reserve(&mut self) -> Result<Vec<Event>, Error> {
        let layout = self.pool.layout();
        let there = reserve::is_there(layout)?;
        let used = std::mem::replace(&mut self.had_reserve, there) && !there;
        reserve::keep(layout, self.reserve)?;
        let (path, freed) = (layout.reserve(), self.reserve);
        Ok(used.then_some(Event::DiskReserveUsed { path, freed }).into_iter().collect())
    }

    /// Seldom: staging whose writer is gone, and names that are no tasks.
    pub(crate) fn sweep(&mut self) -> Result<Vec<Event>, Error> {
        if self.swept.is_some_and(|when| when.elapsed() < SWEEP) {
            return Ok(Vec::new());
        }
        self.swept = Some(Instant::now());
        let swept = queue::dir::submit::staging::sweep_incoming(&self.pool)?;
        let mut events = cleaned("abandoned submits", swept);
        self.reject_foreign(&mut events)?;
        Ok(events)
    }

    fn reject_foreign(&self, events: &mut Vec<Event>) -> Result<(), Error> {
        let layout = self.pool.layout();
        let mut foreign = Vec::new();
        let mut passed_over = PassedOver::default();
        for place in places::all(layout, &mut passed_over)? {
            if let Place::Delayed { .. } | Place::Shelf { .. } = place {
                let names = passed_over.or_pass_over(listing::tasks_in(&place.dir(layout)))?;
                foreign.extend(names.unwrap_or_default().foreign);
            }
        }
        for path in foreign {
            let reason = "its name is not the name of a task file";
            if let Some(file) = reject::reject(layout, &path, reason)? {
                events.push(Event::TaskRejected { file, reason: reason.to_owned() });
            }
        }
        Ok(())
    }
}

fn cleaned(what: &str, count: u32) -> Vec<Event> {
    let some = (count > 0).then(|| Event::Cleaned { what: what.to_owned(), count: count.into() });
    some.into_iter().collect()
}
