//! A single task, and what a person may still do to it: keys, dependencies, times, hold, cancel.

use serde_json::Value;
use tests::Pool;

use crate::kit::steps::{
    file_of, lines_of, quick, show, submit, until_over, until_running, until_said, until_up,
};

fn state(pool: &Pool, id: &str) -> String {
    show(pool, id)["state"].as_str().unwrap().to_owned()
}

#[test]
fn the_same_key_is_the_same_task() {
    let pool = quick("");
    let keyed = |key: &str| {
        let args = ["submit", "--json", "--key", key, "--", "fake-job", "say=x"];
        pool.queue(&args).success().json()
    };
    let (first, again, other) = (keyed("nightly 7"), keyed("nightly 7"), keyed("nightly 8"));
    assert_eq!((&first["existing"], &again["existing"]), (&false.into(), &true.into()));
    assert_eq!(first["ids"], again["ids"]);
    assert_ne!(first["ids"], other["ids"]);
    assert_eq!(pool.files_in("pending").len(), 2);
    let _worker = pool.worker(&["--gpu", "0"]);
    until_over(&pool, first["ids"][0].as_str().unwrap());
    until_over(&pool, other["ids"][0].as_str().unwrap());
    assert_eq!(keyed("nightly 7")["ids"], first["ids"], "also when it has ended");
    assert!(pool.files_in("pending").is_empty());
}

#[test]
fn a_task_after_another_runs_after_it_whenever_that_ended() {
    let pool = quick("");
    let gate = pool.fifo("gate");
    let first = submit(&pool, &[], &[&gate.word()]);
    // By the end of its id, as lists show it.
    let then = submit(&pool, &["--after", &first[28..]], &["say=x"]);
    assert_eq!(state(&pool, &then), "waiting");
    let _worker = pool.worker(&["--gpu", "0"]);
    let held = gate.until_reached();
    assert_eq!(state(&pool, &then), "waiting");
    held.release();
    assert_eq!(until_over(&pool, &then)["outcome"], "succeeded");
    let late = submit(&pool, &["--after", &first, "--after", &then], &["say=x"]);
    assert_eq!(until_over(&pool, &late)["outcome"], "succeeded");
    let unknown = "0194c3f2-0000-7000-8000-000000000000";
    let ran = pool.queue(&["submit", "--after", unknown, "--", "true"]).code(2);
    assert!(ran.stderr.contains("--after"), "{ran}");
}

#[test]
fn what_waits_for_a_task_that_has_failed_long_ago_is_cancelled() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    let failed = submit(&pool, &["--max-attempts", "1"], &["exit=1"]);
    until_over(&pool, &failed);
    let then = submit(&pool, &["--after", &failed], &["say=x"]);
    let line = until_over(&pool, &then);
    assert_eq!(
        (&line["outcome"], &line["cause"]),
        (&"cancelled".into(), &"dependency_failed".into())
    );
    let anyway = submit(&pool, &["--after", &format!("{failed}:any")], &["say=x"]);
    assert_eq!(until_over(&pool, &anyway)["outcome"], "succeeded");
}

#[test]
fn a_task_for_later_runs_later_and_never_early() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    until_up(&pool, "worker-0");
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let soon = submit(&pool, &["--in", "1s"], &["say=x"]);
    assert_eq!(state(&pool, &soon), "delayed");
    let line = until_over(&pool, &soon);
    let waited = time(&line["started_at"]).duration_since(time(&line["task"]["submitted_at"]));
    assert!(waited >= jiff::SignedDuration::from_secs(1), "{waited}");
    let at = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1)).to_string();
    let then = submit(&pool, &["--at", &at], &["say=x"]);
    let line = until_over(&pool, &then);
    assert!(time(&line["started_at"]) >= time(&at.into()), "{line}");
    let past = submit(&pool, &["--at", "2020-01-01T00:00:00Z"], &["say=x"]);
    until_over(&pool, &past);
    let far = submit(&pool, &["--in", "30d"], &["say=x"]);
    assert_eq!(state(&pool, &far), "delayed");
    assert!(file_of(&pool, "delayed", &far).is_some());
}

#[test]
fn a_held_task_waits_for_a_person() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    let id = submit(&pool, &["--hold"], &["say=x"]);
    assert_eq!(state(&pool, &id), "held");
    let why = pool.queue(&["why", "--json", &id]).code(5).json();
    assert_eq!(why["reasons"][0]["code"], "held.person", "{why}");
    until_over(&pool, &submit(&pool, &[], &["say=x"]));
    assert_eq!(state(&pool, &id), "held");
    pool.queue(&["release", &id]).success();
    assert_eq!(until_over(&pool, &id)["outcome"], "succeeded");
    pool.queue(&["pause"]).success();
    until_said(&pool, "worker-0", "Paused pool by ");
    let pending = submit(&pool, &[], &["say=x"]);
    pool.queue(&["hold", &pending]).success();
    assert_eq!(state(&pool, &pending), "held");
    pool.queue(&["resume"]).success();
    pool.queue(&["release", &pending]).success();
    until_over(&pool, &pending);
}

#[test]
fn cancelled_wherever_it_is_it_ends_with_one_line() {
    let pool = quick("");
    let _worker = pool.worker(&["--gpu", "0"]);
    let running = submit(&pool, &[], &["hang"]);
    until_running(&pool, "worker-0", &running);
    let pending = submit(&pool, &[], &["say=x"]);
    let waiting = submit(&pool, &["--after", &running], &["say=x"]);
    let delayed = submit(&pool, &["--in", "1h"], &["say=x"]);
    let held = submit(&pool, &["--hold"], &["say=x"]);
    let all = [&pending, &waiting, &delayed, &held, &running];
    for id in all {
        pool.queue(&["cancel", id]).success();
        let lines = lines_of(&pool, id);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line = &lines[0];
        assert_eq!(
            (&line["outcome"], &line["next"]),
            (&"cancelled".into(), &"end".into()),
            "{line}"
        );
        assert_eq!(state(&pool, id), "cancelled");
        for place in ["pending", "processing", "waiting", "delayed", "held", "ending", "failed"] {
            assert!(file_of(&pool, place, id).is_none(), "{id} in {place}");
        }
        pool.queue(&["wait", id]).code(100);
    }
    let status = pool.queue(&["status", "--json"]).success().json();
    assert_eq!(status["counts"]["cancelled"], all.len(), "{}", status["counts"]);
    // Once more changes nothing.
    let _ = pool.queue(&["cancel", &running]);
    assert_eq!(lines_of(&pool, &running).len(), 1);
    until_over(&pool, &submit(&pool, &[], &["say=x"]));
}

#[test]
fn cancelling_what_others_wait_for_cancels_them() {
    let pool = quick("");
    let first = submit(&pool, &["--hold"], &["say=x"]);
    let second = submit(&pool, &["--after", &first], &["say=x"]);
    let third = submit(&pool, &["--after", &second], &["say=x"]);
    let _worker = pool.worker(&["--gpu", "0"]);
    pool.queue(&["cancel", &first]).success();
    assert_eq!(until_over(&pool, &third)["cause"], "dependency_failed");
    assert_eq!(until_over(&pool, &second)["cause"], "dependency_failed");
    assert_eq!(until_over(&pool, &first)["cause"], "cancelled");
}

#[test]
fn a_name_that_nothing_has_is_said_and_nothing_done() {
    let pool = quick("");
    submit(&pool, &["--hold"], &["say=x"]);
    for command in ["cancel", "retry", "hold", "release", "show", "wait", "output", "why"] {
        let ran = pool.queue(&[command, "ffffffff"]).code(4);
        assert!(ran.stderr.contains("ffffffff"), "{ran}");
    }
    assert_eq!(pool.files_in("held").len(), 1);
}
