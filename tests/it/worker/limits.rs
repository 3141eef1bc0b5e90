//! `queue limit`: what a person sets holds at once, for workers that run and tasks that wait.

use std::fs;

use serde_json::{Value, json};
use tests::Pool;

use crate::commands::json::has;
use crate::kit::steps::{file_of, messages, quick, submit, until_over, until_up};

/// Workers that look for work when a bell rings, and never by themselves within a test.
fn pool_with_bells_only() -> Pool {
    quick("idle_poll = \"1h\"\npoll_without_notify = \"1h\"")
}

#[track_caller]
fn until_limited(pool: &Pool, worker: &str) {
    pool.until_true(&format!("{worker} held up by a limit"), || {
        let heartbeat = pool.heartbeat(worker).unwrap_or_default();
        let reasons = heartbeat["claim"]["reasons"].as_array().cloned().unwrap_or_default();
        reasons.iter().any(|reason| reason["code"] == "limit.reached")
    });
}

fn limits(pool: &Pool) -> Value {
    let answer = pool.queue(&["limit", "--json"]).success().json();
    has(&answer, "limits", &["limits"]);
    answer["limits"].clone()
}

#[test]
fn a_limit_that_is_set_counts_what_is_pending_and_its_end_wakes_who_waits() {
    let pool = pool_with_bells_only();
    // One that has room for two: it looks for work in one place, so the order is certain.
    let _worker = pool.worker(&["--gpu", "0", "--slots", "2", "--cpu-slots", "0"]);
    until_up(&pool, "worker-0");
    pool.queue(&["pause"]).success();
    let gate = pool.fifo("gate");
    let first = submit(&pool, &["--user", "ann"], &[&gate.word()]);
    let more: Vec<_> = (0..3).map(|_| submit(&pool, &["--user", "ann"], &["say=x"])).collect();
    let set = pool.queue(&["limit", "user=ann", "1"]).success();
    assert_eq!(set.stdout, "user=ann is limited to 1, 0 in use (was not limited)\n");
    assert!(set.stderr.contains("those that are pending are"), "{set}");
    pool.queue(&["resume"]).success();
    let held = gate.until_reached();
    until_limited(&pool, "worker-0");
    assert_eq!(limits(&pool), json!([{"key": "user=ann", "used": 1, "allowed": 1}]));
    let table = pool.queue(&["limit"]).success().stdout;
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<_> = table.lines().map(words).collect();
    assert_eq!(rows, [vec!["LIMIT", "USED", "ALLOWED"], vec!["user=ann", "1", "1"]]);
    for id in &more {
        assert!(file_of(&pool, "pending", id).is_some(), "{id} waits");
        let why = pool.queue(&["why", "--json", id]).code(5).json();
        assert!(why.to_string().contains("limit.reached"), "{why}");
    }
    let off = pool.queue(&["limit", "--json", "user=ann", "off"]).success().json();
    has(&off, "limit", &["key", "used", "allowed", "was"]);
    assert_eq!((&off["was"], &off["allowed"]), (&json!(1), &Value::Null));
    // The first one still runs.
    more.iter().for_each(|id| assert_eq!(until_over(&pool, id)["outcome"], "succeeded"));
    assert!(file_of(&pool, "processing", &first).is_some());
    held.release();
    let ended = until_over(&pool, &first);
    assert_eq!((&ended["outcome"], &ended["attempt"]), (&"succeeded".into(), &1.into()));
    assert_eq!(limits(&pool), json!([]));
}

#[test]
fn below_what_runs_a_lowered_limit_lets_nothing_new_begin() {
    let pool = pool_with_bells_only();
    pool.queue(&["submit", "--hold", "--", "true"]).success();
    pool.queue(&["limit", "label=room:1", "2"]).success();
    let words = ["--gpu", "0", "--slots", "2", "--cpu-slots", "0", "--name", "w", "--verbose"];
    let _worker = pool.worker(&words);
    let label = ["--label", "room=1"];
    let gates = [pool.fifo("one"), pool.fifo("two")];
    let [one, two] = gates.each_ref().map(|gate| submit(&pool, &label, &[&gate.word()]));
    let [one_held, two_held] = gates.each_ref().map(|gate| gate.until_reached());
    pool.queue(&["limit", "label=room:1", "1"]).success();
    let third = submit(&pool, &label, &["say=x"]);
    assert_eq!(limits(&pool), json!([{"key": "label=room:1", "used": 2, "allowed": 1}]));
    // Whichever of the two slots it had, the other run is still there.
    one_held.release();
    until_over(&pool, &one);
    let said = "Lock timeout: limit label=room:1 (1 of 1 in use)";
    pool.until_true("the third is tried for and does not fit", || {
        messages(&pool, "w", "claim.lock_timeout").iter().any(|message| message == said)
    });
    assert!(file_of(&pool, "pending", &third).is_some());
    two_held.release();
    until_over(&pool, &two);
    assert_eq!(until_over(&pool, &third)["outcome"], "succeeded");
}

#[test]
fn the_file_that_people_edit_keeps_what_they_wrote() {
    let pool = Pool::new();
    pool.queue(&["submit", "--hold", "--", "true"]).success();
    let real = pool.home().join("dotfiles.toml");
    let text = "# ours\nidle_poll = \"2s\"\n\n[limits]\n# a guest\n\"user=bob\" = 1 # for now\n";
    fs::write(&real, text).unwrap();
    let named = pool.dir().join("pool.toml");
    let _ = fs::remove_file(&named);
    std::os::unix::fs::symlink(&real, &named).unwrap();
    pool.queue(&["limit", "user=bob", "2"]).success();
    pool.queue(&["limit", "model=qwen2.5:7b", "3"]).success();
    let expected = text.replace("= 1", "= 2") + "\"model=qwen2.5:7b\" = 3\n";
    assert_eq!(fs::read_to_string(&real).unwrap(), expected);
    assert!(fs::symlink_metadata(&named).unwrap().is_symlink());
    let all: Vec<_> = limits(&pool).as_array().unwrap().iter().map(|l| l["key"].clone()).collect();
    assert_eq!(all, ["model=qwen2.5:7b", "user=bob"]);
    let one = pool.queue(&["limit", "user=bob"]).success().stdout;
    assert!(one.contains("user=bob") && !one.contains("qwen"), "{one}");
    // A variable wins over the file, and is named.
    pool.env("BRAINSTEM_LIMITS", "user=eve=7");
    let set = pool.queue(&["limit", "user=bob", "1"]).success();
    assert!(set.stderr.contains("BRAINSTEM_LIMITS is set here"), "{set}");
    assert_eq!(limits(&pool)[0]["key"], "user=eve");
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let pool = Pool::new();
    pool.queue(&["limit"]).code(3);
    pool.queue(&["limit", "user=ann", "1"]).code(3);
    pool.queue(&["submit", "--hold", "--", "true"]).success();
    assert_eq!(pool.queue(&["limit"]).success().stdout, "no limits\n");
    for (words, code, says) in [
        (&["ann", "1"][..], 2, "write it as `user=ann`"),
        (&["usr=ann", "1"], 2, "did you mean `user`?"),
        (&["label=room=1", "1"], 2, "write a label's value as `label=room:1`"),
        (&["user=ann", "-1"], 2, "unexpected argument"),
        (&["user=ann", "two"], 2, "`two` is not how many may run at once"),
        (&["user=ann", "off"], 4, "there is no limit `user=ann`"),
        (&["user=ann"], 4, "there is no limit `user=ann`"),
    ] {
        let ran = pool.queue(&[&["limit"], words].concat()).code(code);
        assert!(ran.stderr.contains(says), "{ran}");
    }
    assert!(fs::metadata(pool.dir().join("pool.toml")).is_err());
}
