//! A model server's process: started in a group of its own, waited for, ended with all that it
//! started.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;
use queue::fence::SERVER_MARK;
use queue::umask;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::job::{Known, spawn_known};
use crate::server::Key;
use crate::server::lines::shown_whole;

/// A log that is longer is begun anew with the next start.
const LOG_KEPT: u64 = 16 * 1024 * 1024;
/// As much of the end of the log is shown when the server ended.
const LOG_SHOWN: u64 = 1000;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// `ollama` or `llama-server`, found in PATH where it has no slash.
    pub program: PathBuf,
    /// Where it is to listen, on this machine only.
    pub port: u16,
    /// The one GPU it may see, as CUDA names it (`GPU-…`); `None`: none at all.
    pub gpu: Option<String>,
    /// Variables besides the worker's own.
    pub env: Vec<(OsString, OsString)>,
    /// The key that it asks for, if it does.
    pub key: Option<Key>,
    /// Where its output goes.
    pub log: PathBuf,
    /// What no other server on this machine has: by it, what a killed worker left is found.
    pub mark: String,
    /// From TERM to KILL.
    pub grace: Duration,
}

/// A server that was started.
#[derive(Debug)]
pub(super) struct Process {
    group: Pid,
    /// As long as this lives, it is nobody's leak.
    _known: Known,
    /// Something comes when the leader is over.
    pub(super) over: Receiver<()>,
    log: PathBuf,
    log_begins: u64,
}

impl Process {
    pub(super) fn start(
        start: &Start,
        words: &[OsString],
        env: &[(&str, String)],
    ) -> io::Result<Self> {
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(umask::private_mode())
            .open(&start.log)?;
        if log.metadata()?.len() > LOG_KEPT {
            log.set_len(0)?;
        }
        let log_begins = log.seek(SeekFrom::End(0))?;
        let mut command = umask::command(&start.program);
        command
            .args(words)
            .env("CUDA_VISIBLE_DEVICES", start.gpu.as_deref().unwrap_or("-1"))
            .env("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
            .envs(env.iter().map(|(name, value)| (name, value)))
            .envs(start.env.iter().map(|(name, value)| (name, value)))
            .env(SERVER_MARK, &start.mark)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let (child, known) = spawn_known(&mut command)?;
        let group = Pid::from_child(&child);
        let (tell, over) = crossbeam_channel::bounded(1);
        thread::Builder::new().name("model-server".into()).spawn(move || {
            // Left unreaped, so that the group's number stays its own until it is ended.
            let _over = waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let _nobody_asks = tell.send(());
        })?;
        Ok(Self { group, _known: known, over, log: start.log.clone(), log_begins })
    }

    pub(super) fn pid(&self) -> u32 {
        self.group.as_raw_pid().unsigned_abs()
    }

    /// What it said last.
    pub(super) fn last_words(&self) -> String {
        tail(&self.log, self.log_begins).unwrap_or_default()
    }

    /// TERM to all of the group, KILL after the grace, and gone is who has been reaped.
    pub(super) fn end(self, grace: Duration) {
        let _gone = kill_process_group(self.group, Signal::TERM);
        let _late = self.over.recv_timeout(grace);
        let _gone = kill_process_group(self.group, Signal::KILL);
        let _over = self.over.recv();
        self.reap();
    }

    /// The leader is over: so is the rest of the group.
    pub(super) fn reap(self) {
        let _gone = kill_process_group(self.group, Signal::KILL);
        // Its orphans are ours, because a worker is a subreaper.
        while waitid(WaitId::Pgid(Some(self.group)), WaitIdOptions::EXITED).is_ok() {}
    }
}

fn tail(log: &Path, begins: u64) -> io::Result<String> {
    let mut file = File::open(log)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(begins.max(end.saturating_sub(LOG_SHOWN))))?;
    let mut bytes = Vec::new();
    file.take(LOG_SHOWN).read_to_end(&mut bytes)?;
    Ok(shown_whole(&bytes))
}
