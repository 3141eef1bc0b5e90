//! Rolling a committed bulk submit forward, directory by directory. Anyone may do it, several at
//! once: each step is one rename, and whoever comes second finds the source gone.

use std::path::Path;

use shared::id::BatchId;

use crate::Error;
use crate::dir::disk::lock::{Holder, Lock};
use crate::dir::disk::publish::{self, Moved};
use crate::dir::disk::{listing, owner, reject};
use crate::dir::fault::{self, Did};
use crate::dir::layout::{Layout, STAGING_LOCK, Segment, Shelf};
use crate::error::{At as _, OrGone as _};

/// Finishes every committed bulk submit, also one whose submitter is still at it: each helps the
/// other. Returns how many of them their submitter had left. One
/// that cannot be finished does not stop the others; its error comes last. Somebody who may look at
/// the pool and not change it (root, in another's) leaves them to others.
pub fn forward_all(layout: &Layout) -> Result<u32, Error> {
    let (mut rolled, mut last) = (0, Ok(()));
    let publishing = layout.publishing();
    let names = listing::entries(&publishing)?;
    if names.is_empty() || !owner::may_change_pool(layout)? {
        return Ok(0);
    }
    for name in names {
        let batch = publishing.join(&name);
        let is_batch = name.to_str().is_some_and(|text| text.parse::<BatchId>().is_ok());
        // One that is rolled forward by somebody else just now is gone, and that is well.
        let is_file = std::fs::symlink_metadata(&batch).is_ok_and(|meta| !meta.is_dir());
        let left = match Lock::probe(&batch.join(STAGING_LOCK)) {
            Ok(Holder::Nobody) => is_batch,
            // Who removes it is about to be done.
            Ok(Holder::Somebody | Holder::NoFile) | Err(_) => false,
        };
        let done = match (is_batch, is_file) {
            (true, false) => forward_one(layout, &batch),
            (true, true) => put_aside(layout, &batch, "it is not the directory of a batch"),
            (false, _) => put_aside(layout, &batch, "its name is not that of a batch"),
        };
        match done {
            Ok(()) => rolled += u32::from(left),
            Err(err) => last = Err(err),
        }
    }
    last.map(|()| rolled)
}

fn put_aside(layout: &Layout, path: &Path, problem: &str) -> Result<(), Error> {
    reject::reject(layout, path, problem).map(|_rejected| ())
}

/// Moves all of one committed bulk submit into place, and flushes where it went.
pub(in crate::dir) fn forward_one(layout: &Layout, batch: &Path) -> Result<(), Error> {
    for shelf in [Shelf::Waiting, Shelf::Held] {
        move_segments(&batch.join(shelf.as_str()), &layout.shelf(shelf))?;
    }
    move_delayed(&batch.join("delayed"), layout)?;
    let pending = batch.join("pending");
    for lane in listing::entries(&pending)? {
        let from = pending.join(&lane);
        for priority in listing::entries(&from)? {
            let to = layout.pending().join(&lane).join(&priority);
            move_segments(&from.join(&priority), &to)?;
        }
    }
    // One flush for all the names that moved; before it, the batch must not disappear.
    publish::flush_file_system(layout.root())?;
    remove_emptied(layout, batch)
}

/// Removes the batch's directories, which are empty now. What is left in them (a copy of a task
/// that is in place, something foreign) is put aside: nothing that could be a task is removed.
fn remove_emptied(layout: &Layout, dir: &Path) -> Result<(), Error> {
    for name in listing::entries(dir)? {
        let inner = dir.join(name);
        let meta = std::fs::symlink_metadata(&inner).at("look at", &inner).or_gone()?;
        match meta {
            Some(meta) if meta.is_dir() => remove_emptied(layout, &inner)?,
            Some(_file) => put_aside(layout, &inner, "it was left over of a batch")?,
            None => {}
        }
    }
    publish::remove(&dir.join(STAGING_LOCK))?;
    fault::step("remove directory").at("remove", dir)?;
    match std::fs::remove_dir(dir) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(err).at("remove", dir),
        Err(_gone) => Ok(()),
        Ok(()) => {
            fault::did(Did::Removed(dir));
            Ok(())
        }
    }
}

fn move_segments(from: &Path, to: &Path) -> Result<(), Error> {
    let staged = listing::segments(from)?;
    if staged.is_empty() {
        return Ok(());
    }
    publish::make_dirs_flushed(to)?;
    let mut free =
        1 + listing::segments(to)?.iter().map(|segment| segment.number).max().unwrap_or(0);
    for segment in staged {
        let source = from.join(segment.dir_name());
        loop {
            let target = to.join(Segment { time: segment.time.clone(), number: free }.dir_name());
            match publish::move_new(&source, &target)? {
                Moved::Yes | Moved::SourceGone => break,
                Moved::TargetThere => free += 1,
            }
        }
        free += 1;
    }
    Ok(())
}

fn move_delayed(from: &Path, layout: &Layout) -> Result<(), Error> {
    let (dues, delayed) = (listing::entries(from)?, layout.delayed());
    let mut made = false;
    for due in &dues {
        made |= publish::make_dirs(&delayed.join(due))?.is_some();
    }
    // One flush for all of them, before anything that must not be lost is moved into them.
    if made {
        publish::flush_dir(&delayed)?;
    }
    for due in dues {
        let dir = from.join(&due);
        for name in listing::tasks_in(&dir)?.tasks {
            let target = delayed.join(&due).join(name.file_name());
            publish::move_new(&dir.join(name.file_name()), &target)?;
        }
    }
    Ok(())
}
