//! Waiting for something to change in some directories. The look is the truth, the notice only a
//! hint: whoever waits looks anyway after a bound, a shorter one where nothing can be noticed.

use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use notify::{EventKind, RecursiveMode};
use queue::dir::signal::notice;

/// Notices of changes below some directories. Where there can be none, each wait is shorter.
pub(super) struct Watch {
    changed: Receiver<()>,
    /// Kept where nothing can be noticed, too: nobody waits for a message that cannot come.
    _ring: Sender<()>,
    watcher: Option<notify::RecommendedWatcher>,
}

/// How long to wait at most where changes are noticed: what is not noticed (another host's
/// change, a killed worker) is seen then.
const HEARING: Duration = Duration::from_secs(1);
/// The same where they are not.
const DEAF: Duration = Duration::from_millis(200);

impl Watch {
    /// Notices changes in these directories and below.
    pub(super) fn on(dirs: &[&Path]) -> Self {
        let (ring, changed) = bounded(1);
        let kept = ring.clone();
        let heard = move |event: notify::Result<notify::Event>| {
            let reading = |event: &notify::Event| matches!(event.kind, EventKind::Access(_));
            if !event.is_ok_and(|event| reading(&event) && !event.need_rescan()) {
                // Full means that a wake-up is waiting already.
                let _ = ring.try_send(());
            }
        };
        let watcher = notice::watch(dirs, RecursiveMode::Recursive, heard).ok();
        Self { changed, _ring: kept, watcher }
    }

    /// Waits until something has changed, or may have.
    pub(super) fn wait(&self, deadline: Deadline) {
        let bound = if self.watcher.is_some() { HEARING } else { DEAF };
        let bound = deadline.left().map_or(bound, |left| left.min(bound));
        // A notice and the end of the wait mean the same: look.
        let _ = self.changed.recv_timeout(bound);
    }
}

/// Until when somebody is willing to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    /// So long from now; for ever without a bound.
    pub(super) fn after(timeout: Option<Duration>) -> Self {
        Self(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    fn left(self) -> Option<Duration> {
        self.0.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Whether it is over.
    pub(super) fn is_over(self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::TryRecvError;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    /// A process in which no descriptor is left. Each test is a process of its own.
    #[test]
    fn where_nothing_can_be_noticed_it_waits_all_the_same() {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limit }).unwrap();
        let watch = Watch::on(&[Path::new("/")]);
        setrlimit(Resource::Nofile, limit).unwrap();
        assert!(watch.watcher.is_none());
        assert_eq!(watch.changed.try_recv(), Err(TryRecvError::Empty));
    }
}
