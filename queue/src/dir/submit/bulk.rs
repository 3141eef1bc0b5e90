//! Submitting many: staged as directories, flushed once, committed with ONE rename into
//! `publishing/`; from there anyone rolls forward.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use shared::id::{BatchId, TaskId};
use shared::task::{Task, TaskName};

use super::one::Submitter;
use super::staging::bytes_of;
use crate::Error;
use crate::dir::Pool;
use crate::dir::batch::roll_forward;
use crate::dir::disk::publish::{self, Moved};
use crate::dir::disk::reserve;
use crate::dir::layout::{Segment, Shelf, priority_dir};
use crate::dir::signal::doorbell;
use crate::store::start::{Start, start_of};

/// At most so many names in a directory, so that listing and counting stay cheap.
pub const MAX_NAMES: u32 = 4_096;

/// A bulk submit that is being staged. Dropped before [`Bulk::commit`], nothing of it stays.
#[derive(Debug)]
pub struct Bulk {
    submitter: Submitter,
    batch: BatchId,
    /// The directory that is being filled, per kind of place.
    rooms: HashMap<PathBuf, Room>,
    count: u64,
}

/// After so many staged tasks it is looked again whether there is room for more: a large batch
/// must not use up what running work needs.
const LOOK_FOR_ROOM: u64 = 64;

#[derive(Debug)]
struct Room {
    time: String,
    number: u32,
    names: u32,
}

impl Bulk {
    /// Begins a bulk submit.
    pub fn new(pool: &Pool) -> Result<Self, Error> {
        let (submitter, batch) = (Submitter::new(pool)?, BatchId::new());
        Ok(Self { submitter, batch, rooms: HashMap::new(), count: 0 })
    }

    /// The batch's id, which is known before there is such a batch in the pool.
    #[must_use]
    pub fn id(&self) -> BatchId {
        self.batch
    }

    /// Stages one more task. Ids must come in order, so that directories hold tasks in order.
    pub fn add(&mut self, task: &Task) -> Result<(), Error> {
        let name = TaskName::first(task.id);
        let dir = match start_of(task) {
            Start::Pending => {
                let lane = self.submitter.lane(task)?;
                let shelf =
                    Path::new("pending").join(lane.as_str()).join(priority_dir(task.priority()));
                self.room(&shelf, task.id)?
            }
            Start::Waiting => self.room(Path::new(Shelf::Waiting.as_str()), task.id)?,
            Start::Held => self.room(Path::new(Shelf::Held.as_str()), task.id)?,
            Start::Delayed(at) => {
                let target = self.submitter.pool.layout().delayed_task(at, name);
                let due = target.parent().and_then(Path::file_name).unwrap_or_default();
                let dir = self.submitter.dir.join("delayed").join(due);
                publish::make_dirs(&dir)?;
                dir
            }
        };
        let staged = dir.join(name.file_name());
        publish::create(&staged, &bytes_of(task, &staged)?)?;
        self.count += 1;
        if self.count.is_multiple_of(LOOK_FOR_ROOM) {
            let pool = &self.submitter.pool;
            reserve::require_room(pool.layout(), pool.rules().disk_low)?;
        }
        Ok(())
    }

    /// The directory that takes the next task of this place.
    fn room(&mut self, place: &Path, id: TaskId) -> Result<PathBuf, Error> {
        let time = id.segment();
        let room = self.rooms.entry(place.to_owned()).or_insert_with(|| Room {
            time: String::new(),
            number: 0,
            names: 0,
        });
        if room.time != time || room.names == MAX_NAMES {
            room.number += 1;
            room.time = time;
            room.names = 0;
        }
        room.names += 1;
        let segment = Segment { time: room.time.clone(), number: room.number };
        let dir = self.submitter.dir.join(place).join(segment.dir_name());
        if room.names == 1 {
            publish::make_dirs(&dir)?;
        }
        Ok(dir)
    }

    /// Commits: from here on all of it is in the pool, whatever dies. Returns how many tasks.
    pub fn commit(self) -> Result<u64, Error> {
        let layout = self.submitter.pool.layout();
        publish::flush_file_system(&self.submitter.dir)?;
        let target = layout.publishing_batch(self.batch);
        match publish::move_new(&self.submitter.dir, &target)? {
            Moved::Yes => {}
            Moved::SourceGone | Moved::TargetThere => {
                let problem = "the staged batch is gone, or one of this id is there".to_owned();
                return Err(Error::Garbled { path: target, problem });
            }
        }
        publish::flush_dir(&layout.publishing())?;
        // It is submitted now, whatever becomes of this: the next one who looks goes on with it.
        if roll_forward::forward_one(layout, &target).is_err() {
            doorbell::ring_brain(layout);
        }
        Ok(self.count)
    }
}
