//! `queue cancel`: ends tasks for good. What nobody runs is ended here; what runs is ended by its
//! worker, which is asked. All are looked for at once; finding and acting are repeated until all have
//! ended. Whoever is stopped in the middle has ended some; the same command goes on with the others.

use std::collections::{BTreeMap, HashMap, HashSet, btree_map};

use clap::Args;
use queue::Pool;
use queue::dir::disk::place::{Found, Place};
use queue::dir::find::{gone, places};
use queue::dir::ledger::append::Ledger;
use queue::dir::ledger::search;
use queue::dir::lookup;
use queue::dir::operate::{self, Change, EndedTask, Ender, Reason, ToEnd};
use queue::dir::signal::control::{self, ControlVerb, Message};
use queue::view::{self, Brain};
use queue::wire::ledger_line::Writer;
use serde_json::json;
use shared::event::{Ending, Event};
use shared::exit;
use shared::id::TaskId;
use shared::name::Name;
use shared::outcome::Outcome;
use shared::settings::Settings;
use shared::task::TaskName;
use shared::time::Moment;

use crate::cmd::watch::{Deadline, Watch};
use crate::cmd::{App, GONE, Stop, end_on_interrupt, me, note};

/// End tasks for good; waits until those that run have ended
#[derive(Args, Debug)]
pub(crate) struct Cancel {
    /// Tasks or batches; - reads them from stdin
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Only ask the workers, and do not wait
    #[arg(long)]
    no_wait: bool,
}

/// What came of cancelling one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// It is cancelled.
    Cancelled,
    /// It had ended before, like this.
    Ended(Outcome),
    /// Its worker was asked.
    Asked,
    /// Its worker was asked, but is dead, and nobody is there to settle its affairs.
    Orphaned,
    /// Its file was removed.
    Gone,
}

impl Came {
    const fn word(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Ended(_) => "already_ended",
            Self::Asked => "asked",
            Self::Orphaned => "worker_dead",
            Self::Gone => "gone",
        }
    }

    fn text(self) -> String {
        match self {
            Self::Cancelled => "cancelled".to_owned(),
            Self::Ended(outcome) => format!("had ended before: {}", lookup::ended_state(outcome)),
            Self::Asked => "cancel asked of its worker".to_owned(),
            Self::Orphaned => "cancel noted; its worker is dead and no brain runs to settle its \
                               affairs (start `brain`, or a worker of that name)"
                .to_owned(),
            Self::Gone => GONE.to_owned(),
        }
    }
}

impl Cancel {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        end_on_interrupt();
        let (pool, resolved) = app.ready()?;
        let ids = app.tasks(&pool, &self.ids)?;
        let name: Name = "queue".parse().expect("letters are a name");
        let ledger = Ledger::new(pool.layout().clone(), Writer::new(name));
        let mut canceller = Canceller {
            pool: &pool,
            settings: &resolved.settings,
            ledger: &ledger,
            asked: HashSet::new(),
            told: HashSet::new(),
            came: HashMap::with_capacity(ids.len()),
        };
        // Before the tasks: a brake none of whose tasks is left would be shown for nothing.
        let held = operate::brakes_of(&pool, &ids.iter().copied().collect())?;
        let cancelled = canceller.cancel(&ids, if self.no_wait { Wait::No } else { Wait::Yes });
        let came = canceller.came;
        for held in held.iter().filter(|held| held.is_about_all()) {
            operate::let_go(&pool, &held.brake.key)?;
        }
        if came.is_empty() {
            cancelled?;
            return say(app, &[]);
        }
        // What was done is said, also where something then went wrong.
        let results = ids.iter().filter_map(|id| Some((*id, *came.get(id)?)));
        let code = say(app, &results.collect::<Vec<_>>())?;
        cancelled.map(|()| code)
    }
}

fn say(app: &mut App, results: &[(TaskId, Came)]) -> Result<u8, Stop> {
    if app.json() {
        let tasks = results.iter().map(|(id, result)| json!({"id": id, "result": result.word()}));
        app.out.json("cancel", &json!({ "tasks": tasks.collect::<Vec<_>>() }))?;
    } else {
        for (id, result) in results {
            app.out.line(format!("{} {}", id.short(), result.text()))?;
        }
    }
    let any = |came: Came| results.iter().any(|(_id, result)| *result == came);
    Ok(match (any(Came::Orphaned), any(Came::Gone)) {
        (true, _) => exit::TRY_LATER,
        (false, true) => exit::NO_MATCH,
        (false, false) => exit::OK,
    })
}

/// Whether workers are only asked, or waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Yes,
    No,
}

struct Canceller<'a> {
    pool: &'a Pool,
    settings: &'a Settings,
    ledger: &'a Ledger,
    /// Attempts whose worker was asked.
    asked: HashSet<TaskName>,
    /// Of whom it was said that their end may take longer.
    told: HashSet<TaskId>,
    came: HashMap<TaskId, Came>,
}

impl Canceller<'_> {
    /// All are ended, or asked of their workers, before one is waited for.
    fn cancel(&mut self, ids: &[TaskId], wait: Wait) -> Result<(), Stop> {
        let mut open = ids.to_vec();
        let mut watch = None;
        loop {
            let running = self.pass(&open)?;
            if wait == Wait::No {
                let asked = running.iter().map(|found| (found.name.id, Came::Asked));
                self.came.extend(asked);
                return Ok(());
            }
            self.look_for_trouble(&running)?;
            open.retain(|id| !self.came.contains_key(id));
            if open.is_empty() {
                return Ok(());
            }
            let watch = watch.get_or_insert_with(|| Watch::on(&[&self.pool.layout().ledger()]));
            watch.wait(Deadline::after(None));
        }
    }

    /// Ends all that nobody runs, and asks the workers of the others, which are returned. Those that
    /// move meanwhile are looked for again.
    fn pass(&mut self, ids: &[TaskId]) -> Result<Vec<Found>, Stop> {
        let (mut open, mut running) = (ids.to_vec(), Vec::new());
        while !open.is_empty() {
            let mut found = places::find_all(self.pool.layout(), &open.iter().copied().collect())?;
            let there: Vec<Found> = open.iter().filter_map(|id| found.remove(id)).collect();
            let gone: HashSet<TaskId> = {
                let there: HashSet<_> = there.iter().map(|found| found.name.id).collect();
                open.iter().copied().filter(|id| !there.contains(id)).collect()
            };
            open = self.history(&gone)?;
            for group in there.chunks(operate::GROUP) {
                self.end(group, &mut open, &mut running)?;
            }
        }
        Ok(running)
    }

    /// Says of those that have ended how. Returns the others, which are being put back.
    fn history(&mut self, gone: &HashSet<TaskId>) -> Result<Vec<TaskId>, Stop> {
        let lines = search::last_of(self.pool.layout(), gone)?;
        lines.all_was_read()?;
        let last = lines.last;
        if let Some(id) = gone.iter().find(|id| !last.contains_key(id)) {
            return Err(Stop::no_match(format!("no task `{id}`")));
        }
        let mut moving = Vec::new();
        for (id, brief) in last {
            match (brief.end_of_task(), self.asked.iter().any(|name| name.id == id)) {
                // One that ended because we asked was cancelled by us.
                (Some(Outcome::Cancelled), true) => _ = self.came.insert(id, Came::Cancelled),
                (Some(outcome), _) => _ = self.came.insert(id, Came::Ended(outcome)),
                (None, _) => moving.push(id),
            }
        }
        let lost = gone::gone(self.pool.layout(), moving.iter().copied().collect())?;
        moving.retain(|id| !lost.contains(id));
        self.came.extend(lost.into_iter().map(|id| (id, Came::Gone)));
        Ok(moving)
    }

    /// The right is held only for one group at a time: others end tasks too.
    fn end(
        &mut self,
        group: &[Found],
        moved: &mut Vec<TaskId>,
        running: &mut Vec<Found>,
    ) -> Result<(), Stop> {
        let ender = Ender::wait(self.pool, self.ledger)?;
        let tasks = group.iter().map(|found| ToEnd { found, reason: Reason::Cancel });
        let changes = ender.end_group(&tasks.collect::<Vec<_>>(), &mut say_cancelled)?;
        let (mut asked, mut last) = (Vec::new(), Ok(()));
        for (found, change) in group.iter().zip(changes) {
            let id = found.name.id;
            match change {
                Ok(Change::Done) => _ = self.came.insert(id, Came::Cancelled),
                Ok(Change::NotThere { .. }) => {
                    self.came.insert(id, Came::Ended(Outcome::Failed));
                }
                Ok(Change::Moved) => moved.push(id),
                Ok(Change::Running { worker }) => asked.push((worker, found.clone())),
                Err(err) => last = Err(err),
            }
        }
        if !moved.is_empty() {
            // What somebody began to end and did not finish is finished now.
            ender.finish_all()?;
        }
        drop(ender);
        for (worker, found) in asked {
            self.ask(&worker, &found)?;
            running.push(found);
        }
        Ok(last?)
    }

    fn ask(&mut self, worker: &Name, found: &Found) -> Result<(), Stop> {
        if !self.asked.insert(found.name) {
            return Ok(());
        }
        let message = Message::new(ControlVerb::Cancel, &me());
        control::ask_about(self.pool.layout(), worker, found.name, message)?;
        let (task, attempt) = (found.name.id, found.name.attempt);
        shared::emit!(Event::TaskCancelAsked { task, attempt, worker: worker.clone(), by: me() });
        Ok(())
    }

    /// Says what stands in the way of those that were asked for; gives up those that nobody ends.
    fn look_for_trouble(&mut self, running: &[Found]) -> Result<(), Stop> {
        let mut workers: BTreeMap<&Name, Option<Trouble>> = BTreeMap::new();
        for found in running {
            let Place::Processing { worker } = &found.place else { continue };
            let trouble = match workers.entry(worker) {
                btree_map::Entry::Occupied(known) => known.into_mut(),
                btree_map::Entry::Vacant(new) => new.insert(self.trouble(worker)?),
            };
            let id = found.name.id;
            match trouble {
                Some(Trouble::Orphaned) => _ = self.came.insert(id, Came::Orphaned),
                Some(Trouble::Slow(text)) if self.told.insert(id) => {
                    note(format!("{}: {text}", id.short()));
                }
                Some(Trouble::Slow(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Why a worker that was asked may not do it.
    fn trouble(&self, worker: &Name) -> Result<Option<Trouble>, Stop> {
        let seen = view::worker(self.pool, self.settings, Moment::now(), worker.clone())?;
        let life = seen.map(|seen| seen.life);
        Ok(match life {
            Some(view::Life::Alive | view::Life::Unproven) => None,
            Some(view::Life::Hung { .. }) => {
                Some(Trouble::Slow(format!("{worker} was asked, but it is hung; waiting")))
            }
            Some(view::Life::Dead { settling: Some(by) }) => {
                Some(Trouble::Slow(format!("{worker} is dead; {by} settles its affairs, waiting")))
            }
            Some(view::Life::Dead { settling: None } | view::Life::Over { .. }) | None => {
                if Brain::see(self.pool)?.alive {
                    Some(Trouble::Slow(format!(
                        "{worker} is dead; waiting for the brain to settle its affairs"
                    )))
                } else {
                    Some(Trouble::Orphaned)
                }
            }
        })
    }
}

/// What stands in the way of an end that was asked for.
enum Trouble {
    /// Nobody is there who could do it.
    Orphaned,
    /// It may take longer, for this reason.
    Slow(String),
}

fn say_cancelled(ended: EndedTask) {
    let EndedTask { name, class, task_name } = ended;
    let what = format!("{class} task: {} ({task_name})", name.id.short());
    shared::emit!(Event::ended(name.id, name.attempt, what, Ending::cancelled()));
}
