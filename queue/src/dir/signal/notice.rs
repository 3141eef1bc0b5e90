//! Being told by the kernel of changes in a directory. A hint only: whoever waits looks anyway.

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use notify::{EventHandler, RecommendedWatcher, RecursiveMode, Watcher as _};

/// Has `heard` called for changes in these directories, for as long as the value lives.
///
/// # Errors
/// When there are no watches left, no descriptors, or no thread to call it from.
pub fn watch(
    dirs: &[&Path],
    depth: RecursiveMode,
    heard: impl EventHandler,
) -> notify::Result<RecommendedWatcher> {
    // The library does not look whether it got its thread, and panics at the first word to it and
    // again when it is dropped. So it is asked before, and if the last thread went to somebody else
    // just then, the watcher is left lying.
    std::thread::Builder::new().spawn(|| ()).map_err(notify::Error::io)?;
    let mut watcher = ManuallyDrop::new(notify::recommended_watcher(heard)?);
    let mut watch = || dirs.iter().try_for_each(|dir| watcher.watch(dir, depth));
    let watching = catch_unwind(AssertUnwindSafe(&mut watch));
    let Ok(watching) = watching else {
        return Err(notify::Error::generic("no thread could be had"));
    };
    let watcher = ManuallyDrop::into_inner(watcher);
    watching.map(|()| watcher)
}
