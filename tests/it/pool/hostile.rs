//! Places and times in which a pool should not have to live, and does: a pool that becomes
//! read-only under its programs, a clock that is set, no notification left, a crowd of workers,
//! two names for one directory; and a storm of deaths.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use shared::id::TaskId;
use tests::{Pool, Proc, program};

use crate::kit::disk::{Bind, Disk, May};
use crate::kit::*;

/// All that was submitted has succeeded, in one attempt each.
#[track_caller]
fn once_each(pool: &Pool, ids: &[TaskId]) {
    for id in ids {
        until_succeeded(pool, *id);
        assert_eq!(story(pool, *id), ["succeeded - end"]);
    }
}

/// Events of this name that anybody has said.
fn said(pool: &Pool, event: &str) -> Vec<Value> {
    let files = pool.files_in("logs").into_iter();
    let names = files.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    let lines = names.flat_map(|name| pool.log(&name));
    lines.filter(|line| line["event"] == event).collect()
}

#[test]
fn a_short_storm_of_deaths_loses_nothing() {
    let storm = program("storm");
    let words = ["--tasks=200", "--kills=12", "--workers=3", "--patience=30"];
    let ran = Command::new(storm).args(words).output().unwrap();
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && text.contains("the promise held"), "{text}");
}

// --- a disk that is full ---

/// From the reserve what runs is ended; nothing new is begun with it.
#[test]
fn on_a_full_disk_nothing_new_is_begun_and_a_large_batch_stops_before_it_is_full() {
    let pool = Pool::new();
    let Some(disk) = Disk::new(&pool, "16m") else { return };
    quicken(&pool, "reserve_size = \"2MiB\"\ndisk_low = \"3MiB\"\n");
    let brain = pool.brain(&["--no-spawn"]);
    let reserve = pool.dir().join("reserve");
    pool.until_true("the reserve", || reserve.is_file());
    let held = submit(&pool, job(&["say=x"]));
    let line = json!({"class": "cpu", "command": ["true"], "env": {"PAD": "x".repeat(32_000)}});
    fs::write(pool.at("large"), format!("{line}\n").repeat(150)).unwrap();
    disk.fill(4 << 20);
    let refused = pool.queue(&["submit", "--batch", "large"]).code(75);
    assert!(refused.stderr.contains("nothing was submitted"), "{refused}");
    assert!(pool.files_in("incoming").is_empty() && pool.files_in("publishing").is_empty());
    assert_eq!(pool.files_in("pending").len(), 1);
    assert!(reserve.is_file(), "it was not for that");

    fs::remove_file(&reserve).unwrap();
    disk.fill(2 << 20);
    pool.until_event("brain", "disk.reserve_used");
    let _worker = pool.worker(&["--cpu", "--name", "w"]);
    let report = pool.until("the worker to say why not", || {
        let claim = pool.heartbeat("w")?["claim"].clone();
        (claim["reasons"][0]["code"] == "disk.full").then_some(claim)
    });
    assert!(report["result"].as_str().unwrap().contains("disk is full"), "{report}");
    assert_eq!(place(&pool, held), "pending a1f0d0");
    let why = pool.queue(&["why", "--json", &held.to_string()]).code(5).json();
    assert_eq!(why["reasons"][0]["code"], "disk.full", "{why}");
    // Heartbeats are written as long as there is any room, and from the reserve after that.
    disk.make_room();
    once_each(&pool, &[held]);
    pool.until_true("the reserve again", || reserve.is_file());
    disk.fill(0);
    pool.until_true("the reserve to be given up for a heartbeat", || !reserve.is_file());
    drop((brain, disk));
}

// --- a file system that becomes read-only ---

#[test]
fn a_pool_that_becomes_read_only_goes_on_when_it_can_be_written_again() {
    let pool = quick_pool("");
    let brain = pool.brain(&["--no-spawn"]);
    let worker = pool.worker(&["--cpu", "--name", "w", "--cpu-slots", "2"]);
    let gate = pool.fifo("gate");
    let runs = submit(&pool, job(&["mark=runs", &gate.word()]));
    let waits = submit(&pool, with(job(&["mark=runs"]), "hold", true));
    let delayed = submit(&pool, with(job(&["mark=runs"]), "in", "1s"));
    until_started(&pool, "runs", runs, 1);
    // A real remount is refused while anybody has a file open for writing, so a mount that may
    // not be written to is laid over the pool: every path leads into that from here on.
    let Some(read_only) = Bind::new(&pool.dir(), &pool.dir(), May::Read) else { return };
    let refused = pool.queue(&["submit", "--class", "cpu", "--", "true"]);
    assert!(refused.stderr.contains("Read-only file system"), "{refused}");
    let ran = pool.queue(&["release", &waits.to_string()]);
    assert!(!ran.status.success() && ran.stderr.contains("Read-only file system"), "{ran}");
    gate.release();
    pool.until_true("the worker to say it", || worker.stderr().contains("Read-only file system"));
    pool.until_true("the brain to say it", || brain.stderr().contains("Read-only file system"));
    assert_eq!(pool.queue(&["status", "--json"]).success().json()["counts"]["processing"], 1);
    drop(read_only);
    once_each(&pool, &[runs, delayed]);
    pool.queue(&["release", &waits.to_string()]).success();
    once_each(&pool, &[waits]);
    for id in [runs, waits, delayed] {
        assert_eq!(starts(&pool, "runs", id), ["1"]);
    }
    let settled = said(&pool, "worker.died");
    assert!(settled.is_empty(), "nobody has died: {settled:?}");
    drop((brain, worker));
}

// --- a clock that is set ---

/// The wall clock of the programs of a pool.
struct Clock<'a> {
    pool: &'a Pool,
}

impl<'a> Clock<'a> {
    /// Right, for the time being. `None` where the library that can set it is missing.
    fn new(pool: &'a Pool) -> Option<Self> {
        let places = ["x86_64-linux-gnu/", "aarch64-linux-gnu/", ""];
        let library = |place| format!("/usr/lib/{place}faketime/libfaketime.so.1");
        let found = places.into_iter().map(library).find(|path| Path::new(path).is_file());
        let Some(library) = found else {
            tests::skip("needs libfaketime (Debian: faketime)");
            return None;
        };
        let clock = Self { pool };
        clock.set("+0");
        for (name, value) in [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", &pool.at("clock")),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            // Files keep the kernel's time.
            ("NO_FAKE_STAT", "1"),
        ] {
            pool.env(name, value);
        }
        Some(clock)
    }

    /// Sets it so many hours ahead or back.
    fn set(&self, offset: &str) {
        // Whole or not at all: programs read it at any time.
        let new = tempfile::NamedTempFile::new_in(self.pool.home()).unwrap();
        fs::write(new.path(), format!("{offset}\n")).unwrap();
        new.persist(self.pool.at("clock")).unwrap();
    }
}

/// Heartbeats of a worker after the clock was set: the programs have seen the new time.
#[track_caller]
fn until_beats(pool: &Pool, worker: &str, more: u64) {
    let seq = || pool.heartbeat(worker).and_then(|beat| beat["seq"].as_u64()).unwrap_or(0);
    let from = seq();
    pool.until_true("more heartbeats", || seq() >= from + more);
}

/// What somebody says who finds that a worker died, hangs or makes no progress.
const ALARMS: [&str; 5] =
    ["worker.died", "worker.hung", "detect.stuck", "detect.unclaimed", "brain.hung"];

#[track_caller]
fn all_is_well(pool: &Pool) {
    for alarm in ALARMS {
        let lines = said(pool, alarm);
        assert!(lines.is_empty(), "{lines:?}");
    }
    let worker = pool.until("the worker to be seen at work", || {
        let seen = pool.queue(&["workers", "--json"]).success().json();
        let worker = seen["workers"][0].clone();
        assert_eq!(worker["alive"], json!(true), "{worker}");
        (worker["status"] == json!("processing")).then_some(worker)
    });
    assert!(worker["heartbeat_age_seconds"].as_f64().unwrap() < 60.0, "{worker}");
    let status = pool.queue(&["status", "--json"]).success().json();
    assert_eq!(status["warnings"], json!([]), "{status}");
}

#[test]
fn a_clock_that_is_set_declares_nobody_dead_and_keeps_nobody_waiting() {
    let pool = quick_pool("heartbeat_interval = \"3s\"\nstuck_after = \"60s\"\n");
    let Some(clock) = Clock::new(&pool) else { return };
    let _brain = pool.brain(&["--no-spawn"]);
    let _worker = pool.worker(&["--cpu", "--name", "w", "--cpu-slots", "3"]);
    let gate = pool.fifo("gate");
    let long = submit(&pool, with(job(&["mark=runs", &gate.word()]), "timeout", "30m"));
    until_started(&pool, "runs", long, 1);
    let later = pool.queue(&["submit", "--class", "cpu", "--in", "30m", "--", "true"]).id();
    let later: TaskId = later.parse().unwrap();
    until_place(&pool, later, "delayed a1f0d0");

    clock.set("-1h");
    // Every 3 s there is a heartbeat anyway: those that are looked at here are old ones.
    all_is_well(&pool);
    let failing = pool.queue(&["submit", "--class", "cpu", "--", "sh", "-c", "exit 3"]).id();
    until_place(&pool, failing.parse().unwrap(), "failed a3f3d0");
    assert_eq!(place(&pool, later), "delayed a1f0d0");
    all_is_well(&pool);

    clock.set("+1h");
    all_is_well(&pool);
    // It was to run at that time, and by the clock it is that time.
    once_each(&pool, &[later]);
    until_beats(&pool, "w", 1);
    all_is_well(&pool);
    assert_eq!(place(&pool, long), "processing a1f0d0");
    gate.release();
    once_each(&pool, &[long]);
}

/// The pause before a retry is a length, and not a time of day.
#[test]
fn a_retry_does_not_wait_until_a_clock_that_was_set_back_is_there_again() {
    let pool = quick_pool("retry_backoff_first = \"2s\"\nretry_backoff_max = \"2s\"\n");
    let Some(clock) = Clock::new(&pool) else { return };
    let worker = pool.worker(&["--cpu", "--name", "w"]);
    let words = ["submit", "--class", "cpu", "--max-attempts", "2", "--", "sh", "-c", "exit 3"];
    let id: TaskId = pool.queue(&words).id().parse().unwrap();
    until_place(&pool, id, "delayed a2f1d0");
    clock.set("-1h");
    until_place(&pool, id, "failed a2f2d0");
    drop(worker);
}

// --- no notification ---

/// Helpers of this test use up what one user may have of it, in a user namespace of its own, so
/// that nobody else is disturbed.
#[test]
fn without_notification_workers_look_by_themselves_and_say_so() {
    let pool = quick_pool("poll_without_notify = \"100ms\"\nidle_poll = \"60s\"\n");
    let worker = program("worker");
    let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let words = ["-U", "-r", "sh", "-c", script, "sh"];
    let words = [&words[..], &[worker.to_str().unwrap(), "--cpu", "--name", "w"]].concat();
    let mut deaf = pool.start(&mut pool.foreign("unshare", &words));
    let up = pool.until("the worker, or its end", || {
        (pool.heartbeat("w").is_some() || !deaf.is_running()).then(|| deaf.is_running())
    });
    if !up && deaf.stderr().contains("sh:") || deaf.stderr().contains("unshare:") {
        tests::skip(&format!("needs a user namespace: {}", deaf.stderr()));
        return;
    }
    let polls = pool.until_event("worker-w", "worker.polling");
    assert_eq!(polls["extra"]["seconds"], 0.1);
    assert!(polls["message"].as_str().unwrap().contains("cannot be notified"), "{polls}");
    let ids = submit_all(&pool, (0..3).map(|_| job(&["say=x"])));
    once_each(&pool, &ids);
}

// --- many workers ---

fn crowd(pool: &Pool, size: usize) -> Vec<Proc> {
    let name = |number| format!("w{number}");
    let words = |name: String| {
        ["--cpu", "--cpu-slots=1", "--name"].map(str::to_owned).into_iter().chain([name])
    };
    (0..size)
        .map(|number| {
            let words: Vec<_> = words(name(number)).collect();
            pool.worker(&words.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .collect()
}

/// As many as a small machine can start in a moment; two hundred are tried by hand.
#[test]
fn a_crowd_of_workers_shares_the_tasks_and_loses_none() {
    const CROWD: usize = 20;
    let pool = quick_pool("");
    // One for each: whoever opens a FIFO to write lets all go that stand at it.
    let gates: Vec<_> = (0..CROWD).map(|n| pool.fifo(&format!("gate-{n}"))).collect();
    let workers = crowd(&pool, CROWD);
    let first = submit_all(&pool, gates.iter().map(|gate| job(&["mark=runs", &gate.word()])));
    let more = submit_all(&pool, (0..100).map(|_| job(&["mark=runs"])));
    let all: BTreeSet<String> = first.iter().chain(&more).map(ToString::to_string).collect();
    // Each of them has one that does not end: nobody could take two.
    let holders = || {
        let files = pool.files_in("processing").into_iter();
        files.filter_map(|path| Some(path.parent()?.to_owned())).collect::<BTreeSet<_>>()
    };
    pool.until_true("everybody to have one", || holders().len() == CROWD);
    for gate in &gates {
        gate.release();
    }
    pool.until_true("all to end", || pool.marks("runs").len() == 2 * all.len());
    pool.until_true("all to be recorded", || pool.files_in("processing").is_empty());
    let ledger = pool.ledger();
    let ended: BTreeSet<String> =
        ledger.iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect();
    assert!(ledger.iter().all(|line| line["outcome"] == "succeeded" && line["next"] == "end"));
    assert_eq!((ledger.len(), &ended), (all.len(), &all));
    drop(workers);
}

// --- two names for one directory ---

#[test]
fn a_worker_and_a_brain_may_know_the_pool_by_different_mounts() {
    let pool = quick_pool("grace_period = \"200ms\"\n");
    inside(&pool);
    let other = PathBuf::from(pool.at("elsewhere"));
    fs::create_dir(&other).unwrap();
    let Some(bind) = Bind::new(&pool.dir(), &other, May::Write) else { return };
    let brain = pool.brain(&["--no-spawn"]);
    let worker = pool.worker(&["--cpu", "--name", "w", "--pool", other.to_str().unwrap()]);
    let gate = pool.fifo("gate");
    let lost = submit(&pool, job(&["mark=runs", "ignore-term", &gate.word()]));
    until_started(&pool, "runs", lost, 1);
    // Its lock is seen through the other mount, and so is that it is free; the job is found by
    // its log, which has another path there.
    let double = pool.worker(&["--cpu", "--name", "w"]).end().code(75);
    assert!(double.stderr.contains("its lock is held by a living w"), "{double}");
    worker.kill9();
    until_place(&pool, lost, "pending a2f0d1");
    assert_eq!(jobs_alive(&pool), Vec::<u32>::new());
    let doctor = pool.queue(&["--pool", other.to_str().unwrap(), "doctor"]).success();
    assert!(doctor.stdout.contains("notification"), "{doctor}");
    drop((brain, bind, File::open(pool.home())));
}
