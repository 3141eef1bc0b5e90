//! The workers that the brain starts, whoever is the brain just now: found by what their lease
//! says, and killed like all others.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use crate::Storm;

/// What the brains are told to keep.
pub(crate) const GPUS: &str = "90,91";
/// The workers that follow from that.
pub(crate) const NAMES: [&str; 2] = ["worker-90", "worker-91"];
/// One on the GPU and one beside it.
pub(crate) const SLOTS: u32 = 2;

/// Kills the worker of this name, where there is one.
pub(crate) fn kill(storm: &Storm, name: &str) -> bool {
    let Some(pid) = pid(storm, name) else { return false };
    // The number may be another's by now: looked at while a handle holds it.
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    is_worker(storm, pid, name) && pidfd_send_signal(&handle, Signal::KILL).is_ok()
}

fn pid(storm: &Storm, name: &str) -> Option<Pid> {
    let lease = storm.pool.dir().join(format!("locks/workers/{name}.lock"));
    let record: Value = serde_json::from_slice(&std::fs::read(lease).ok()?).ok()?;
    Pid::from_raw(i32::try_from(record["process"]["pid"].as_i64()?).ok()?)
}

fn is_worker(storm: &Storm, pid: Pid, name: &str) -> bool {
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    let words = std::fs::read(path).unwrap_or_default();
    let words = String::from_utf8_lossy(&words).replace('\0', " ");
    words.contains(&format!("--name {name} --pool {}", storm.pool.dir().display()))
}
