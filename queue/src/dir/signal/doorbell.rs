//! Doorbells: files touched to wake whoever waits. The look is the truth, the bell only a hint:
//! whoever waits looks anyway after an upper bound.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use notify::{EventKind, RecursiveMode};
use rustix::fs::{OFlags, Timespec, Timestamps, UTIME_NOW, futimens};
use shared::name::Name;
use shared::task::Class;

use super::notice;
use crate::dir::disk::network::network_of;
use crate::dir::disk::publish;
use crate::dir::layout::Layout;

/// Wakes the workers that take this class.
pub fn ring_class(layout: &Layout, class: Class) {
    ring(layout, &class_bell(class));
}

/// Wakes whoever has to do with a task that can be claimed from now on: the workers that take its
/// class and, where it needs a model, the brain, which finds a place for that.
pub fn ring_new(layout: &Layout, class: Class) {
    ring_class(layout, class);
    match class {
        Class::Llm => ring_brain(layout),
        Class::Cpu | Class::Script | Class::Resource => {}
    }
}

/// Wakes one worker, whatever classes it takes.
pub fn ring_worker(layout: &Layout, worker: &Name) {
    ring(layout, &worker_bell(worker));
}

/// Wakes the brain, if there is one.
pub fn ring_brain(layout: &Layout) {
    ring(layout, BRAIN);
}

const BRAIN: &str = "brain";

fn class_bell(class: Class) -> String {
    format!("class-{class}")
}

fn worker_bell(worker: &Name) -> String {
    format!("worker-{worker}")
}

/// Touches a bell. A bell that cannot be rung (disk full, read-only) costs a wait, not a task, so
/// nothing is said here: whatever else is wrong with the disk is said by those who need it.
fn ring(layout: &Layout, bell: &str) {
    let path = layout.doorbells().join(bell);
    // Both times, and to now as the system has it: that needs no more than the right to write, any
    // other time that of the owner.
    let now = || Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let now = Timestamps { last_access: now(), last_modification: now() };
    let touch = |file: &File| Ok(futimens(file, &now)?);
    // A FIFO in its place must not make whoever rings wait.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut options = File::options();
    options.write(true).mode(0o660).custom_flags(flags);
    let rung = options.open(&path).and_then(|file| touch(&file));
    if rung.is_err() {
        let made = options.create(true).truncate(false).open(&path);
        let _ = made.and_then(|file| touch(&file));
    }
}

/// Which bells one waits for.
#[derive(Clone, Debug)]
pub enum Bells {
    /// Those of a worker that takes these classes.
    Worker(Name, Vec<Class>),
    /// The brain's.
    Brain,
}

impl Bells {
    fn names(&self) -> Vec<String> {
        match self {
            Self::Worker(name, classes) => {
                let classes = classes.iter().map(|class| class_bell(*class));
                classes.chain([worker_bell(name)]).collect()
            }
            Self::Brain => vec![BRAIN.to_owned()],
        }
    }
}

/// Waits for bells. Without notification (a network file system, or the machine's limit of watches
/// is used up) every wait only lasts shorter.
#[derive(Debug)]
pub struct Listener {
    dir: PathBuf,
    bells: Vec<String>,
    rung: Receiver<()>,
    ring: Sender<()>,
    watcher: Option<notify::RecommendedWatcher>,
    /// The network file system it is on: bells rung on other machines are not heard.
    network: Option<&'static str>,
}

impl Listener {
    /// Starts to listen. Where bells cannot be heard, that is no error: see [`Self::hears`].
    #[must_use]
    pub fn new(layout: &Layout, bells: &Bells) -> Self {
        let (ring, rung) = bounded(1);
        let (dir, bells) = (layout.doorbells(), bells.names());
        let mut listener = Self { dir, bells, rung, ring, watcher: None, network: None };
        listener.arm();
        listener.network = network_of(&listener.dir);
        listener
    }

    /// Whether bells can be heard, or only short waits help.
    #[must_use]
    pub fn hears(&self) -> bool {
        self.watcher.is_some()
    }

    /// Receives a message (at most one waits) when a bell was rung.
    #[must_use]
    pub fn rung(&self) -> &Receiver<()> {
        &self.rung
    }

    /// How long to wait at most before looking anyway.
    #[must_use]
    pub fn patience(&self, hearing: Duration, deaf: Duration) -> Duration {
        if self.hears() && self.network.is_none() { hearing } else { deaf }
    }

    /// Listens again where that was lost: the directory was removed, or watches were used up.
    pub fn arm(&mut self) {
        let named_as_before = publish::is_there(&self.dir).unwrap_or(false);
        if self.watcher.is_some() && named_as_before {
            return;
        }
        self.watcher = None;
        if publish::make_dirs(&self.dir).is_err() {
            return;
        }
        let (bells, ring) = (self.bells.clone(), self.ring.clone());
        let heard = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_for(&event, &bells)) {
                // Full means that a wake-up is waiting already.
                let _ = ring.try_send(());
            }
        };
        self.watcher = notice::watch(&[&self.dir], RecursiveMode::NonRecursive, heard).ok();
    }
}

/// Reading a bell is not ringing it.
fn is_for(event: &notify::Event, bells: &[String]) -> bool {
    let rung = match event.kind {
        EventKind::Create(_) | EventKind::Modify(_) | EventKind::Any => true,
        EventKind::Access(_) => false,
        EventKind::Remove(_) | EventKind::Other => return true,
    };
    let named = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|n| bells.iter().any(|b| b == n))
    };
    event.need_rescan() || rung && event.paths.iter().any(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_wakes_those_it_is_for_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let worker: Name = "worker-1".parse().unwrap();
        let mine = Listener::new(&layout, &Bells::Worker(worker.clone(), vec![Class::Cpu]));
        let brain = Listener::new(&layout, &Bells::Brain);
        assert!(mine.hears() && brain.hears());
        ring_class(&layout, Class::Cpu);
        mine.rung().recv_timeout(Duration::from_secs(10)).unwrap();
        ring_brain(&layout);
        brain.rung().recv_timeout(Duration::from_secs(10)).unwrap();
        // The brain heard its own bell after the worker's was rung: the other was not for it.
        assert!(brain.rung().try_recv().is_err() || brain.rung().try_recv().is_err());
    }
}
