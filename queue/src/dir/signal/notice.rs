//! Being told by the kernel when something changes. A hint only: whoever waits looks anyway.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use notify::{Event, EventHandler, RecommendedWatcher, RecursiveMode, Watcher as _};

/// Calls `heard` at each change in these directories, for as long as the watcher is kept.
///
/// # Errors
/// When the machine gives no thread, no descriptor or no more watches for it.
pub fn watch(
    dirs: &[&Path],
    mode: RecursiveMode,
    heard: impl EventHandler,
) -> notify::Result<RecommendedWatcher> {
    // The library does not look whether its thread was started, and panics at the first word to it
    // and again when it is dropped. So it is asked only where there seems to be one.
    let tried = thread::Builder::new().spawn(|| ()).map_err(notify::Error::io)?;
    let _did_nothing = tried.join();
    let gone = Arc::<AtomicBool>::default();
    let mut watcher = notify::recommended_watcher(Hearing { heard, gone: gone.clone() })?;
    // What was to run in that thread is dropped where the last one went to somebody else just then.
    if gone.load(Ordering::Acquire) {
        std::mem::forget(watcher);
        return Err(notify::Error::io(io::ErrorKind::WouldBlock.into()));
    }
    dirs.iter().try_for_each(|dir| watcher.watch(dir, mode)).map(|()| watcher)
}

/// Passes on what it is told, and says when nobody can tell it anything any more.
struct Hearing<H> {
    heard: H,
    gone: Arc<AtomicBool>,
}

impl<H: EventHandler> EventHandler for Hearing<H> {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        self.heard.handle_event(event);
    }
}

impl<H> Drop for Hearing<H> {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Release);
    }
}
