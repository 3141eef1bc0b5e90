//! Messages to workers: files in `control/<worker>/`, addressed to one worker and, where they are
//! about a task, to one attempt, so that none of them can ever hit the next one.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::name::Name;
use shared::task::TaskName;
use shared::time::Moment;

use super::doorbell;
use crate::Error;
use crate::dir::disk::publish::{self, Durability};
use crate::dir::disk::{listing, plain_file, reserve};
use crate::dir::layout::Layout;

shared::words! {
    /// What is asked of a worker.
    ControlVerb {
        /// End the task's job; the task is cancelled.
        Cancel = "cancel",
        /// End the task's job because it makes no progress.
        Stall = "stall",
        /// A person says that nothing is left of the task's job, which has ended.
        Abandon = "abandon",
        /// Finish what runs, take nothing new, exit.
        Drain = "drain",
        /// Give back what runs, exit.
        Stop = "stop",
        /// Take nothing new until resumed.
        Pause = "pause",
    }
}

/// A message to one worker, or the pause of the whole pool: the content of its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// What is asked.
    pub verb: ControlVerb,
    /// About which attempt of which task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Who asks: a person as `user@host`, or a program by its name.
    pub by: String,
    /// When it was written.
    pub at: Moment,
    /// Why, in words: what a person says of a pause, or the brain of a stall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Message {
    /// A message from `by`, now.
    #[must_use]
    pub fn new(verb: ControlVerb, by: &str) -> Self {
        Self { verb, task: None, by: by.to_owned(), at: Moment::now(), why: None }
    }

    /// The attempt it is about, if it is about one.
    #[must_use]
    pub fn about(&self) -> Option<TaskName> {
        self.task.as_deref().and_then(|stem| stem.parse().ok())
    }

    fn file_name(&self) -> String {
        match &self.task {
            Some(stem) => format!("{}-{stem}.json", self.verb),
            None => format!("{}.json", self.verb),
        }
    }
}

/// Sends a message to a worker, from the reserve where the disk is full, and rings: it may be the
/// one that ends what fills the disk.
pub fn send(layout: &Layout, worker: &Name, message: &Message) -> Result<(), Error> {
    let dir = layout.control_of(worker);
    let write = || {
        publish::make_dirs_flushed(&dir)?;
        write(&dir.join(message.file_name()), message)
    };
    match write() {
        Err(err) if err.is_disk_full() && reserve::give_up(layout) => write()?,
        written => written?,
    }
    doorbell::ring_worker(layout, worker);
    Ok(())
}

/// Asks for one attempt of one task: cancel or stall.
pub fn ask_about(
    layout: &Layout,
    worker: &Name,
    name: TaskName,
    mut message: Message,
) -> Result<(), Error> {
    message.task = Some(name.to_string());
    send(layout, worker, &message)
}

/// A file among the messages for a worker.
#[derive(Debug)]
pub struct MessageFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds, or why that is no message.
    pub message: Result<Message, Error>,
}

/// The messages that wait for a worker, in the order of their files' names.
pub fn messages(layout: &Layout, worker: &Name) -> Result<Vec<MessageFile>, Error> {
    let dir = layout.control_of(worker);
    let mut found = Vec::new();
    for name in listing::entries(&dir)? {
        let path = dir.join(name);
        // It may have been followed meanwhile.
        if let Some(message) = read(&path).transpose() {
            found.push(MessageFile { path, message });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Takes a message away, once it was followed.
pub fn done(path: &Path) -> Result<(), Error> {
    publish::remove(path).map(|_removed| ())
}

/// Whether a person has asked to cancel this attempt.
pub fn has_cancel(layout: &Layout, worker: &Name, name: TaskName) -> Result<bool, Error> {
    let file = format!("{}-{name}.json", ControlVerb::Cancel);
    publish::is_there(&layout.control_of(worker).join(file))
}

/// Takes away the messages about tasks that a worker no longer has.
pub fn clear_tasks(layout: &Layout, worker: &Name) -> Result<(), Error> {
    for MessageFile { path, message } in messages(layout, worker)? {
        if message.is_ok_and(|message| message.task.is_some()) {
            done(&path)?;
        }
    }
    Ok(())
}

/// Takes away a standing message: a pause or a drain. `false` when there was none.
pub fn withdraw(layout: &Layout, worker: &Name, verb: ControlVerb) -> Result<bool, Error> {
    let removed = publish::remove(&layout.control_of(worker).join(format!("{verb}.json")))?;
    doorbell::ring_worker(layout, worker);
    Ok(removed)
}

/// A standing message to a worker, if there is one.
pub fn standing(
    layout: &Layout,
    worker: &Name,
    verb: ControlVerb,
) -> Result<Option<Message>, Error> {
    read(&layout.control_of(worker).join(format!("{verb}.json")))
}

/// The pause of the whole pool, if it is paused.
pub fn pool_pause(layout: &Layout) -> Result<Option<Message>, Error> {
    read(&pool_pause_file(layout))
}

/// Pauses the whole pool.
pub fn pause_pool(layout: &Layout, message: &Message) -> Result<(), Error> {
    let path = pool_pause_file(layout);
    publish::make_dirs_flushed(path.parent().unwrap_or(&path))?;
    write(&path, message)
}

/// Ends the pause of the whole pool. `false` when it was not paused.
pub fn resume_pool(layout: &Layout) -> Result<bool, Error> {
    publish::remove(&pool_pause_file(layout))
}

/// `+` cannot be in a worker's name, so this directory is never a worker's.
fn pool_pause_file(layout: &Layout) -> PathBuf {
    layout.control().join("+pool").join("pause.json")
}

fn write(path: &Path, message: &Message) -> Result<(), Error> {
    let text = serde_json::to_vec(message).expect("a message has only string keys");
    publish::replace(path, &text, Durability::Flushed)
}

fn read(path: &Path) -> Result<Option<Message>, Error> {
    let Some(text) = plain_file::read(path)? else { return Ok(None) };
    let garbled =
        |err: serde_json::Error| Error::Garbled { path: path.to_owned(), problem: err.to_string() };
    serde_json::from_slice(&text).map(Some).map_err(garbled)
}
