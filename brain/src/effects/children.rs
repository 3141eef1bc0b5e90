//! The workers that the brain starts. Each makes itself a session of its own, so that a terminal's
//! Ctrl-C reaches only the brain, which then drains them; a thread waits for each.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use crossbeam_channel::{Sender, bounded};
use queue::cli::{Common, LogFormat};
use queue::dir::presence::lease::{self, this_process};
use queue::fence::process_identity;
use queue::wire::brain_state::ChildProcess;
use queue::wire::brain_state::started_by::{BRAIN, VARIABLE as MARK};
use queue::wire::lease_record::{Process, Role};
use queue::{Pool, umask};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shared::name::Name;

use crate::core::words::worker_spec::{WorkerEnd, WorkerExit, WorkerKind, WorkerSpec};
use crate::effects::model_servers::Servers;
use crate::message::Message;

/// Workers that this brain started or adopted, and that have not ended.
pub(crate) struct Children {
    /// Signals go through these, so that none reaches a stranger with the same number.
    running: BTreeMap<Name, Running>,
    pool: Pool,
    spawning: Spawning,
    tell: Sender<Message>,
}

/// What those that are started are told.
pub(crate) struct Spawning {
    /// The words that all programs take.
    pub(crate) common: Common,
    /// Which model server each is told of.
    pub(crate) servers: Servers,
}

struct Running {
    handle: OwnedFd,
    process: Process,
}

impl Children {
    /// None yet.
    pub(crate) fn new(pool: Pool, spawning: Spawning, tell: Sender<Message>) -> Self {
        Self { running: BTreeMap::new(), pool, spawning, tell }
    }

    /// Starts a worker. Returns its process.
    pub(crate) fn spawn(&mut self, place: &WorkerSpec) -> Result<u32, String> {
        let mut command = self.command(place);
        // Who waits for it is there before it is: one that nobody waits for would be lost.
        let waiting = self.wait(place.worker.clone())?;
        let mut child = command
            .spawn()
            .map_err(|err| format!("could not start `{}`: {err}", program().display()))?;
        let pid = child.id();
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let handle = raw.ok_or(Errno::SRCH).and_then(|pid| {
            // Not reaped yet, so the number is still its own.
            pidfd_open(pid, PidfdFlags::empty())
        });
        match handle {
            Ok(handle) => {
                let start = process_identity(pid).map(|identity| identity.start_time);
                let process = Process { pid, start, ..this_process() };
                self.running.insert(place.worker.clone(), Running { handle, process });
            }
            Err(err) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("could not get hold of process {pid}: {err}"));
            }
        }
        // Received for as long as the other end lives, and it lives until this has come.
        let _received = waiting.send(child);
        Ok(pid)
    }

    /// Whether a living worker was started by a brain, and not by this one: by one that died
    /// before it had written that down.
    pub(crate) fn is_orphan(&self, worker: &Name, process: &Process) -> bool {
        !self.running.contains_key(worker) && carries_mark(process.pid)
    }

    /// Takes a worker over that an earlier brain had started. `false` where it is gone.
    pub(crate) fn adopt(&mut self, child: &ChildProcess) -> bool {
        let process = &child.process;
        let raw = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
        let Some(raw) = raw.filter(|_| process.is_visible_from(&this_process())) else {
            return false;
        };
        let Ok(handle) = pidfd_open(raw, PidfdFlags::empty()) else { return false };
        // Looked at after it is held: so it is this process and no later one of that number.
        let now = process_identity(process.pid).map(|identity| identity.start_time);
        if now.is_none() || now != process.start {
            return false;
        }
        let Ok(watched) = handle.try_clone() else { return false };
        let (worker, pid, tell) = (child.worker.clone(), process.pid, self.tell.clone());
        let (pool, whose) = (self.pool.clone(), process.clone());
        let thread = std::thread::Builder::new().name(format!("child-{worker}"));
        let waiting = thread.spawn(move || {
            // Not our child: that it ended can be seen, but not how. Its lease may tell.
            while let Err(Errno::INTR) = poll(&mut [PollFd::new(&watched, PollFlags::IN)], None) {}
            let exit = last_word(&pool, &worker, &whose);
            let _ = tell.send(Message::Exited(WorkerEnd { worker, pid, exit }));
        });
        if waiting.is_err() {
            return false;
        }
        self.running.insert(child.worker.clone(), Running { handle, process: process.clone() });
        true
    }

    /// Those that run, for the next brain.
    pub(crate) fn list(&self) -> Vec<ChildProcess> {
        let each = self.running.iter().map(|(worker, running)| ChildProcess {
            worker: worker.clone(),
            process: running.process.clone(),
        });
        each.collect()
    }

    fn command(&self, place: &WorkerSpec) -> Command {
        let mut command = umask::command(program());
        match place.kind {
            WorkerKind::Gpu(gpu) => command.arg("--gpu").arg(gpu.to_string()),
            WorkerKind::Cpu => command.arg("--cpu"),
        };
        command.arg("--name").arg(place.worker.as_str()).arg("--pool").arg(self.pool.root());
        let Spawning { common, servers } = &self.spawning;
        command.args(servers.words(place.kind));
        if common.verbose {
            command.arg("--verbose");
        }
        command.arg("--log-format").arg(match common.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        });
        // It starts in our process group, for who leads a group can have no session of its own. Until
        // it has one a Ctrl-C ends it at once: it has claimed nothing by then.
        command.env(MARK, BRAIN);
        // What workers say is for people; the brain's stdout is nobody's but the brain's.
        command.stdin(Stdio::null()).stdout(std::io::stderr());
        command
    }

    /// A thread that waits for the child that is sent to it.
    fn wait(&self, worker: Name) -> Result<Sender<Child>, String> {
        let tell = self.tell.clone();
        let (send, sent) = bounded::<Child>(1);
        let thread = std::thread::Builder::new().name(format!("child-{worker}"));
        let waiting = thread.spawn(move || {
            // None: it could not be started.
            let Ok(mut child) = sent.recv() else { return };
            let pid = child.id();
            let exit = child.wait().map_or(WorkerExit::Unknown, exit);
            // Nobody listens any more: the brain has ended.
            let _ = tell.send(Message::Exited(WorkerEnd { worker, pid, exit }));
        });
        waiting.map(|_ends_with_the_child| send).map_err(|err| format!("no thread for it: {err}"))
    }

    /// A worker has ended.
    pub(crate) fn ended(&mut self, worker: &Name) {
        self.running.remove(worker);
    }

    /// Asks a worker to end.
    pub(crate) fn terminate(&self, worker: &Name) {
        self.signal(worker, Signal::TERM);
    }

    /// Sends KILL to a worker alone: its jobs are ended when its affairs are settled.
    pub(crate) fn kill(&self, worker: &Name) {
        self.signal(worker, Signal::KILL);
    }

    fn signal(&self, worker: &Name, signal: Signal) {
        if let Some(Running { handle, .. }) = self.running.get(worker) {
            // Refused only where it has ended just now, which its thread tells.
            let _ = pidfd_send_signal(handle.as_fd(), signal);
        }
    }
}

/// How a process ended that was nobody's child here: one that said goodbye in its lease ended as a
/// worker ends that was told to, and did not fail.
fn last_word(pool: &Pool, worker: &Name, process: &Process) -> WorkerExit {
    match lease::read(pool.layout(), worker) {
        Ok(Some(record)) if record.process == *process && record.role == Role::Over => {
            WorkerExit::Code(0)
        }
        Ok(_) | Err(_) => WorkerExit::Unknown,
    }
}

fn carries_mark(pid: u32) -> bool {
    let mark = format!("{MARK}={BRAIN}");
    // Gone, or another user's: not ours.
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

fn exit(status: ExitStatus) -> WorkerExit {
    match (status.code(), status.signal()) {
        (Some(code), _) => WorkerExit::Code(code),
        (None, Some(signal)) => WorkerExit::Signal(signal),
        (None, None) => WorkerExit::Unknown,
    }
}

/// The worker's program: beside ours, else on the PATH.
fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name("worker"));
    let there = beside.filter(|path| std::fs::metadata(path).is_ok_and(|meta| meta.is_file()));
    there.unwrap_or_else(|| "worker".into())
}
