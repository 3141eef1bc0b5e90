//! What is asked of a worker by others: pause, drain, cancel. It follows, it is seen to follow, and
//! it never follows for something else than what was meant.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tests::Pool;

use crate::kit::steps::{
    file_of, lines_of, messages, quick, submit, until_over, until_running, until_said, until_up,
};

/// The codes that `queue why ID` gives, with its exit code.
fn why(pool: &Pool, id: &str) -> (Vec<String>, Option<i32>) {
    let ran = pool.queue(&["why", "--json", id]);
    let answer = ran.json();
    let codes = answer["reasons"].as_array().unwrap().iter();
    (codes.map(|reason| reason["code"].as_str().unwrap().to_owned()).collect(), ran.status.code())
}

fn until_status(pool: &Pool, worker: &str, status: &str) {
    pool.until_true(&format!("{worker} is {status}"), || {
        pool.heartbeat(worker).is_some_and(|heartbeat| heartbeat["status"] == status)
    });
}

#[test]
fn a_paused_pool_takes_nothing_and_says_why_until_resumed() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    until_up(&pool, "worker-0");
    pool.queue(&["pause"]).success();
    until_status(&pool, "worker-0", "paused");
    let id = submit(&pool, &[], &["say=x"]);
    let (codes, code) = why(&pool, &id);
    assert!(codes.contains(&"paused".to_owned()), "{codes:?}");
    assert_eq!(code, Some(5), "blocked now, will run");
    let heartbeat = pool.heartbeat("worker-0").unwrap();
    assert_eq!(heartbeat["claim"]["reasons"][0]["code"], "paused");
    assert!(file_of(&pool, "pending", &id).is_some());
    pool.queue(&["resume"]).success();
    until_over(&pool, &id);
    let paused = messages(&pool, "worker-0", "pool.paused");
    assert!(paused.len() == 1 && paused[0].starts_with("Paused pool by "), "{paused:?}");
    assert_eq!(messages(&pool, "worker-0", "pool.resumed").len(), 1);
}

#[test]
fn seed_001_b29_what_is_asked_of_worker_1_is_not_asked_of_worker_10() {
    let pool = quick("");
    let _workers = [pool.worker(&["--gpu", "1"]), pool.worker(&["--gpu", "10"])];
    ["worker-1", "worker-10"].iter().for_each(|name| until_up(&pool, name));
    pool.queue(&["pause", "worker-1"]).success();
    until_status(&pool, "worker-1", "paused");
    for _ in 0..3 {
        let line = until_over(&pool, &submit(&pool, &[], &["say=x"]));
        assert_eq!(line["worker"], "worker-10");
    }
    pool.queue(&["pause", "worker-10"]).success();
    pool.queue(&["resume", "worker-1"]).success();
    until_status(&pool, "worker-10", "paused");
    assert_eq!(until_over(&pool, &submit(&pool, &[], &["say=x"]))["worker"], "worker-1");
}

#[test]
fn a_pause_lets_what_runs_go_on_and_outlives_the_worker() {
    let pool = quick("");
    let gate = pool.fifo("gate");
    let mut worker = pool.worker(&["--gpu", "0"]);
    let id = submit(&pool, &[], &[&gate.word()]);
    let held = gate.until_reached();
    pool.queue(&["pause", "worker-0"]).success();
    until_said(&pool, "worker-0", "Paused worker-0 by ");
    held.release();
    assert_eq!(until_over(&pool, &id)["outcome"], "succeeded");
    worker.term();
    worker.end().success();
    let waiting = submit(&pool, &[], &["say=x"]);
    let _next = pool.worker(&["--gpu", "0"]);
    until_status(&pool, "worker-0", "paused");
    assert!(file_of(&pool, "pending", &waiting).is_some());
}

#[test]
fn a_drained_worker_finishes_what_it_has_and_leaves() {
    let pool = quick("");
    let gate = pool.fifo("gate");
    let mut worker = pool.worker(&["--gpu", "0"]);
    let id = submit(&pool, &[], &[&gate.word()]);
    let held = gate.until_reached();
    let next = submit(&pool, &[], &["say=x"]);
    pool.queue(&["drain", "worker-0"]).success();
    until_said(&pool, "worker-0", "Worker worker-0 draining: takes nothing new, running: 1");
    until_status(&pool, "worker-0", "draining");
    let (codes, _) = why(&pool, &next);
    assert!(codes.contains(&"worker.draining".to_owned()), "{codes:?}");
    held.release();
    worker.end().success();
    assert_eq!(until_over(&pool, &id)["outcome"], "succeeded");
    assert!(file_of(&pool, "pending", &next).is_some());
    // Whoever comes after it was not asked.
    let _next = pool.worker(&["--gpu", "0"]);
    until_over(&pool, &next);
}

#[test]
fn a_drain_that_is_taken_back_was_only_a_pause() {
    let pool = quick("");
    let gate = pool.fifo("gate");
    let mut worker = pool.worker(&["--gpu", "0"]);
    let first = submit(&pool, &[], &[&gate.word()]);
    let held = gate.until_reached();
    pool.queue(&["drain", "worker-0"]).success();
    until_status(&pool, "worker-0", "draining");
    pool.queue(&["resume", "worker-0"]).success();
    until_status(&pool, "worker-0", "processing");
    held.release();
    until_over(&pool, &first);
    until_over(&pool, &submit(&pool, &[], &["say=x"]));
    assert!(worker.is_running());
}

/// Puts a message for a worker where `queue` puts them, as a late one would arrive.
fn send(pool: &Pool, worker: &str, verb: &str, stem: &str) -> PathBuf {
    let dir = pool.dir().join("control").join(worker);
    fs::create_dir_all(&dir).unwrap();
    let message =
        json!({"verb": verb, "task": stem, "by": "a test", "at": "2026-02-07T20:45:00.000Z"});
    let new = tempfile::Builder::new().prefix(".new").tempfile_in(&dir).unwrap();
    fs::write(new.path(), message.to_string()).unwrap();
    let path = dir.join(format!("{verb}-{stem}.json"));
    new.persist(&path).unwrap();
    path
}

#[test]
fn seed_001_b23_a_late_cancel_hits_neither_the_next_attempt_nor_the_next_task() {
    let pool = quick("");
    let gate = pool.fifo("gate");
    let _worker = pool.worker(&["--gpu", "0"]);
    let before = submit(&pool, &[], &["say=x"]);
    until_over(&pool, &before);
    let id = submit(&pool, &[], &[&format!("exit75-until={}:1", pool.at("count")), &gate.word()]);
    let held = gate.until_reached();
    assert_eq!(until_running(&pool, "worker-0", &id)["attempt"], 2);
    for (verb, stem) in [
        ("cancel", format!("{id}.a1f0d0")),
        ("stall", format!("{id}.a1f0d0")),
        ("cancel", format!("{id}.a3f0d0")),
        ("cancel", format!("{before}.a1f0d0")),
    ] {
        let file = send(&pool, "worker-0", verb, &stem);
        pool.until_true("the message is taken", || !file.is_file());
    }
    held.release();
    let line = until_over(&pool, &id);
    assert_eq!((&line["outcome"], &line["attempt"]), (&"succeeded".into(), &2.into()));
}

#[test]
fn seed_001_b23_a_cancel_ends_the_job_that_runs_now() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0", "--cpu-slots", "1"]);
    let bystander = submit(&pool, &["--class", "cpu"], &["hang"]);
    until_running(&pool, "worker-0", &bystander);
    let id = submit(&pool, &[], &["child", "hang"]);
    let pid = until_running(&pool, "worker-0", &id)["pgid"].clone();
    pool.queue(&["cancel", &id]).success();
    let line = until_over(&pool, &id);
    assert_eq!((&line["outcome"], &line["cause"]), (&"cancelled".into(), &"cancelled".into()));
    let pids: Vec<Value> = pool.alive().iter().map(|one| one.pid.into()).collect();
    assert!(!pids.contains(&pid), "its job lives");
    until_running(&pool, "worker-0", &bystander);
    assert_eq!(lines_of(&pool, &bystander).len(), 0, "the other one goes on");
    assert!(pool.files_in("control").is_empty(), "the message is gone");
}

#[test]
fn a_message_that_cannot_be_read_is_put_aside() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    until_up(&pool, "worker-0");
    let dir = pool.dir().join("control/worker-0");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("cancel-x.json"), "{ nonsense").unwrap();
    pool.until_event("worker-worker-0", "control.unreadable");
    pool.until_true("it is in rejected/", || pool.dir().join("rejected/cancel-x.json").is_file());
    until_over(&pool, &submit(&pool, &[], &["say=x"]));
}
