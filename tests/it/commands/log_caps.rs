//! Jobs that print more than is kept: their logs are cut in the middle, and everybody says so.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use serde_json::Value;
use tests::Pool;

use crate::kit::disk::{Bind, Disk};
use crate::kit::quicken;
use crate::kit::steps::{quick, submit, until_over, until_running};

const CAP: u64 = 1 << 20;

fn log_file(pool: &Pool, id: &str) -> PathBuf {
    let name = format!("{id}.a1.log");
    pool.files_in("runs").into_iter().find(|file| file.ends_with(&name)).unwrap()
}

/// What of a file is on the disk.
fn kept(file: &PathBuf) -> u64 {
    fs::metadata(file).unwrap().blocks() * 512
}

fn warning(pool: &Pool, code: &str) -> Option<Value> {
    let status = pool.queue(&["status", "--json"]).success().json();
    status["warnings"].as_array().unwrap().iter().find(|one| one["code"] == code).cloned()
}

#[test]
fn a_log_that_grows_beyond_its_cap_is_named_and_keeps_both_ends() {
    let pool = quick("log_cap = \"1MiB\"");
    let _worker = pool.worker(&["--cpu", "--name", "w"]);
    let gate = pool.fifo("gate");
    let words = ["say=first", "bytes=5000000", &gate.word(), "say=last"];
    let id = submit(&pool, &["--class", "cpu"], &words);
    let event = pool.until_event("worker-w", "job.log_cut");
    let path = log_file(&pool, &id);
    assert_eq!(event["extra"]["path"], path.to_str().unwrap(), "{event}");
    assert!(kept(&path) < CAP + (64 << 10), "{} are kept", kept(&path));
    assert_eq!(fs::metadata(&path).unwrap().len(), 5_000_006, "offsets stay");
    let named = pool.until("the log in the status", || warning(&pool, "log.cut"));
    assert!(named["text"].as_str().unwrap().contains(path.to_str().unwrap()), "{named}");
    let run = until_running(&pool, "w", &id);
    let missing = run["log"]["missing"].as_u64().unwrap();
    assert!(missing > 3 << 20, "{run}");

    let follow = ["output", "-f", &id];
    let mut follower = pool.start(&mut pool.command("queue", &follow));
    pool.until_true("what is missing to be said", || follower.stderr().contains("are missing"));
    gate.release();
    for ran in [follower.end().success(), pool.queue(&["output", &id]).success()] {
        assert!(ran.stdout.starts_with("first\n"), "the beginning");
        assert!(ran.stdout.ends_with("last\n"), "the end");
        let gap = "MiB of output are missing here]\n";
        assert_eq!(ran.stdout.matches(gap).count(), 1);
        assert!(!ran.stdout.contains('\0'), "no zeros");
        let hint = "its log grew beyond its cap; submit with --log-cap none";
        assert!(ran.stderr.contains(hint), "{}", ran.stderr);
    }
}

#[test]
fn a_task_says_how_much_of_its_log_is_kept_and_what_it_printed_last_is_cut_too() {
    let pool = quick("log_cap = \"1MiB\"");
    let _worker = pool.worker(&["--cpu", "--name", "w", "--cpu-slots", "3"]);
    let submit = |cap: &[&str]| {
        submit(
            &pool,
            &[&["--class", "cpu", "--max-attempts", "1"], cap].concat(),
            &["bytes=3000000", "exit=3"],
        )
    };
    let [all, little, usual] =
        [&["--log-cap", "none"][..], &["--log-cap", "100KiB"], &[]].map(submit);
    for (id, at_least, at_most) in [
        (&all, 3_000_000, 4 << 20),
        (&little, 60 << 10, 200 << 10),
        (&usual, 900 << 10, 1100 << 10),
    ] {
        let line = until_over(&pool, id);
        let kept = kept(&log_file(&pool, id));
        assert!((at_least..at_most).contains(&kept), "{kept} of {line}");
        let says = line["error_message"].as_str().unwrap().contains("are missing");
        assert_eq!(says, *id != all, "{line}");
    }
    let ran = pool.queue(&["output", &all]).success();
    assert_eq!((ran.stdout.len(), &*ran.stderr), (3_000_000, ""));
    let refused = pool.queue(&["submit", "--log-cap", "10", "--", "true"]).code(2);
    assert!(refused.stderr.contains("at least 64 KiB"), "{refused}");
}

#[test]
fn the_brain_cuts_the_log_of_a_job_whose_worker_is_stopped() {
    let pool = quick("log_cap = \"1MiB\"");
    let _brain = pool.brain(&["--no-spawn"]);
    let worker = pool.worker(&["--cpu", "--name", "w"]);
    let gate = pool.fifo("gate");
    let id = submit(&pool, &["--class", "cpu"], &[&gate.word(), "bytes=5000000", "hang"]);
    until_running(&pool, "w", &id);
    worker.stop();
    gate.release();
    let event = pool.until_event("brain", "job.log_cut");
    assert_eq!(event["task_id"], id, "{event}");
    let path = log_file(&pool, &id);
    pool.until_true("all of it to be cut", || {
        fs::metadata(&path).unwrap().len() == 5_000_000 && kept(&path) < CAP + (64 << 10)
    });
    worker.cont();
}

/// The worker did not see what the job printed last.
#[test]
fn whoever_settles_a_dead_workers_affairs_cuts_the_logs_it_left() {
    let pool = quick("log_cap = \"1MiB\"\npoison_deaths = 1");
    let worker = pool.worker(&["--cpu", "--name", "w"]);
    let gate = pool.fifo("gate");
    let id = submit(&pool, &["--class", "cpu"], &[&gate.word(), "bytes=5000000", "hang"]);
    until_running(&pool, "w", &id);
    worker.stop();
    gate.release();
    let path = log_file(&pool, &id);
    pool.until_true("all to be printed", || fs::metadata(&path).unwrap().len() == 5_000_000);
    assert!(kept(&path) >= 5_000_000);
    worker.kill9();
    let _next = pool.worker(&["--cpu", "--name", "w"]);
    let line = until_over(&pool, &id);
    assert_eq!(line["cause"], "worker_died", "{line}");
    assert!(kept(&path) < CAP + (64 << 10), "{} are kept", kept(&path));
}

/// The disk is small, so less than the cap is kept: other work goes on, and the reserve stays or comes
/// back by itself.
#[test]
fn a_job_that_fills_the_disk_stops_nobody_else() {
    let pool = Pool::new();
    let Some(_disk) = Disk::new(&pool, "64m") else { return };
    quicken(&pool, "reserve_size = \"8MiB\"\ndisk_low = \"8MiB\"");
    let _brain = pool.brain(&["--no-spawn"]);
    let _worker = pool.worker(&["--cpu", "--name", "w"]);
    let hog = submit(&pool, &["--class", "cpu"], &["bytes=200000000"]);
    let line = until_over(&pool, &hog);
    // Whoever is quicker, the job or the cutting: no attempt is held up.
    let is_done = line["outcome"] == "succeeded" || line["attempt"] == 3;
    assert!(is_done, "all attempts had room for their logs: {line}");
    let other = submit(&pool, &["--class", "cpu"], &["say=x"]);
    pool.queue(&["wait", &other]).success();
    pool.until_true("the reserve", || pool.dir().join("reserve").is_file());
}

/// No file of a ramfs can be cut. Only when the disk is full is a job ended for that.
#[test]
fn where_no_log_can_be_cut_that_is_said_and_a_job_ends_only_below_the_reserve() {
    let pool = Pool::new();
    let Some(disk) = Disk::new(&pool, "64m") else { return };
    quicken(&pool, "log_cap = \"1MiB\"\nreserve_size = \"8MiB\"\ndisk_low = \"8MiB\"");
    let _brain = pool.brain(&["--no-spawn"]);
    let worker = pool.worker(&["--cpu", "--name", "w"]);
    let reserve = pool.dir().join("reserve");
    pool.until_true("the reserve", || reserve.is_file());
    let Some(_ram) = Bind::ramfs(&pool.dir().join("runs")) else { return };
    let gate = pool.fifo("gate");
    let words = ["bytes=5000000", &gate.word(), "bytes=1000000", "hang"];
    let id = submit(&pool, &["--class", "cpu", "--max-attempts", "1"], &words);
    let event = pool.until_event("worker-w", "job.log_uncut");
    let path = log_file(&pool, &id);
    assert_eq!(event["extra"]["path"], path.to_str().unwrap(), "{event}");
    assert_eq!(kept(&path), fs::metadata(&path).unwrap().len().next_multiple_of(4096), "whole");
    until_running(&pool, "w", &id);
    disk.fill(512 << 10);
    gate.release();
    pool.until_true("the job to be ended", || worker.stderr().contains("(disk_full)"));
    disk.make_room();
    let line = until_over(&pool, &id);
    assert_eq!(line["cause"], "disk_full", "{line}");
}

/// Without a brain, and with a log that is the output itself.
#[test]
fn a_job_whose_log_may_not_be_cut_is_ended_where_it_fills_the_disk() {
    let pool = Pool::new();
    let Some(_disk) = Disk::new(&pool, "64m") else { return };
    quicken(&pool, "reserve_size = \"8MiB\"\ndisk_low = \"8MiB\"");
    let _worker = pool.worker(&["--cpu", "--name", "w"]);
    pool.until_true("the worker makes the reserve", || pool.dir().join("reserve").is_file());
    // It takes no notice of errors.
    let hogs = "while :; do head -c 1000000 /dev/zero; done 2>/dev/null";
    let words = ["submit", "--class", "cpu", "--log-cap", "none", "--max-attempts", "1", "--"];
    let hog = pool.queue(&[&words[..], &["sh", "-c", hogs]].concat()).id();
    let line = until_over(&pool, &hog);
    assert_eq!(
        (&line["outcome"], &line["cause"]),
        (&"failed".into(), &"disk_full".into()),
        "{line}"
    );
}

/// What would help must not fail for want of room.
#[test]
fn what_fills_the_disk_is_named_and_can_be_cancelled() {
    let pool = Pool::new();
    let Some(disk) = Disk::new(&pool, "64m") else { return };
    quicken(&pool, "reserve_size = \"8MiB\"\ndisk_low = \"8MiB\"");
    let _worker = pool.worker(&["--cpu", "--name", "w"]);
    pool.until_true("the worker makes the reserve", || pool.dir().join("reserve").is_file());
    let words = ["--class", "cpu", "--log-cap", "none"];
    let hog = submit(&pool, &words, &["bytes=5000000", "hang"]);
    pool.until_true("its log to be known", || {
        pool.heartbeat("w").is_some_and(|beat| beat["current"][0]["log"]["bytes"] == 5_000_000)
    });
    let other = submit(&pool, &["--class", "cpu", "--hold"], &["say=x"]);
    disk.fill(0);
    let reason = pool.until("the full disk to be said", || {
        let why = pool.queue(&["why", &other, "--json"]).json();
        let reasons = why["reasons"].as_array()?.clone();
        reasons.into_iter().find(|reason| reason["code"] == "disk.full")
    });
    let short = &hog[hog.len() - 8..];
    let text = reason["text"].as_str().unwrap();
    assert!(text.contains(&format!("the log of {short} ")), "{reason}");
    assert_eq!(reason["fix"], format!("queue cancel {short}"));
    pool.queue(&["cancel", &hog]).success();
    assert_eq!(until_over(&pool, &hog)["outcome"], "cancelled");
}
