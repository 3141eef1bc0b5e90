//! One error that all tasks of a batch have: it costs a few attempts, is said everywhere, and when it
//! is gone the batch goes on by itself. And what goes wrong on one worker only: it is left to others.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use tests::Pool;

use crate::kit::steps::{ids, lines_of, quick, submit_batch, until_over, until_up};

/// Fails with the same words, but for a number, until `file` is there.
fn batch(pool: &Pool, tasks: usize, more: &Value) -> Vec<Value> {
    let file = pool.at("mended");
    let task = |number: usize| {
        let shell =
            format!("test -e {} || {{ echo CUDA out of memory: {number} MiB; exit 1; }}", file);
        let mut task = json!({"class": "cpu", "shell": shell});
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        task
    };
    (0..tasks).map(task).collect()
}

fn attempts(pool: &Pool, ids: &[String]) -> usize {
    ids.iter().map(|id| lines_of(pool, id).len()).sum()
}

/// As if the pause before the next probe were over.
fn let_it_try(pool: &Pool) {
    let file = pool.files_in("brakes").remove(0);
    let mut brake: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    brake["held"]["next_probe"] = json!("2026-01-01T00:00:00.000Z");
    let aside = pool.at("brake");
    fs::write(&aside, brake.to_string()).unwrap();
    rustix::fs::rename(aside, file).unwrap();
}

#[test]
fn one_common_error_costs_about_ten_attempts_and_the_batch_goes_on_when_it_is_gone() {
    let pool = quick("");
    let all = ids(&submit_batch(&pool, &batch(&pool, 40, &json!({}))));
    let last = &all[39];
    let mut wait = pool.start(&mut pool.command("queue", &["wait", last]));
    let _worker = pool.worker(&["--cpu", "--name", "cpu", "--cpu-slots", "2"]);
    let said = pool.until_event("worker-cpu", "brake.held");
    assert!(said["message"].to_string().contains("CUDA out of memory"), "{said}");
    pool.until_true("whoever waits hears of it", || wait.stderr().contains("CUDA out of memory"));
    pool.until_true("all are held", || {
        let status = pool.queue(&["status", "--json"]).success().json();
        let warned = status["warnings"].to_string();
        status["counts"]["delayed"] == 0
            && status["counts"]["pending"] == 1
            && status["counts"]["held"] == 39
            && warned.contains("held.brake")
            && warned.contains("queue release ")
    });
    let why = pool.queue(&["why", last, "--json"]).code(5).json();
    assert_eq!(why["reasons"][0]["code"], "held.brake", "{why}");
    assert_eq!(pool.queue(&["show", last, "--json"]).success().json()["state"], "held");
    let spent = attempts(&pool, &all);
    assert!(spent < 32, "{spent} attempts");
    let_it_try(&pool);
    let probe = pool.until_event("worker-cpu", "brake.probe");
    let id = probe["task_id"].as_str().unwrap().to_owned();
    pool.until_true("the probe has failed", || attempts(&pool, &all) == spent + 1);
    let line = lines_of(&pool, &id).pop().unwrap();
    assert_eq!((&line["outcome"], &line["cause"]), (&"failed".into(), &"exit_code".into()));
    let failures = lines_of(&pool, &id).len() - 1;
    assert!(line["next_name"].to_string().contains(&format!("f{failures}d0")), "{line}");
    fs::write(pool.at("mended"), "").unwrap();
    let_it_try(&pool);
    pool.until_event("worker-cpu", "brake.released");
    wait.end().code(0);
    assert_eq!(until_over(&pool, &all[18])["outcome"], "succeeded");
}

#[test]
fn a_person_lets_it_go_on_or_ends_it_or_wants_no_brake() {
    let pool = quick("max_attempts = 1");
    let _worker = pool.worker(&["--cpu", "--name", "cpu"]);
    let off = ids(&submit_batch(&pool, &batch(&pool, 20, &json!({"brake": "off"}))));
    pool.until_true("each was tried", || attempts(&pool, &off) == 20);
    let answer = submit_batch(&pool, &batch(&pool, 80, &json!({})));
    let (all, batch_id) = (ids(&answer), answer["batch_id"].as_str().unwrap().to_owned());
    let held = || pool.until_event("worker-cpu", "brake.held");
    assert!(held()["message"].to_string().contains(&batch_id[28..]));
    let rest = |ids: &[String]| ids.iter().filter(|id| lines_of(&pool, id).is_empty()).count();
    let before = rest(&all);
    // Up to 16 that are so short may run before the end of the first is recorded.
    assert!((40..=72).contains(&before), "{before} were not tried");
    pool.queue(&["release", &batch_id]).success();
    held();
    pool.until_true("they went on", || rest(&all) < before);
    pool.queue(&["cancel", &batch_id]).success();
    let status = pool.queue(&["status"]).success();
    assert!(!status.stdout.contains("held.brake"), "{status}");
    fs::write(pool.at("mended"), "").unwrap();
    pool.queue(&["retry", &batch_id]).code(4);
    pool.until_true("what had failed for good is back", || {
        all.iter()
            .any(|id| lines_of(&pool, id).pop().is_some_and(|line| line["outcome"] == "succeeded"))
    });
}

/// What a person holds, a person releases; that is no word about the others.
#[test]
fn a_release_of_what_a_person_holds_leaves_the_brake() {
    let pool = quick("max_attempts = 1");
    let _worker = pool.worker(&["--cpu", "--name", "cpu"]);
    let all = ids(&submit_batch(&pool, &batch(&pool, 80, &json!({}))));
    pool.until_event("worker-cpu", "brake.held");
    let last = &all[79];
    pool.queue(&["hold", last]).success();
    let released = pool.queue(&["release", last]).success();
    assert!(!released.stderr.contains("released batch"), "{released}");
    let why = pool.queue(&["why", last, "--json"]).code(5).json();
    assert_eq!(why["reasons"][0]["code"], "held.brake", "{why}");
    let released = pool.queue(&["release", last]).success();
    assert!(released.stderr.contains("released batch"), "{released}");
}

#[test]
fn what_failed_on_one_worker_is_tried_on_another_first() {
    let pool = quick("");
    let _workers =
        ["one", "two"].map(|name| pool.worker(&["--cpu", "--name", name, "--cpu-slots", "8"]));
    ["one", "two"].iter().for_each(|name| until_up(&pool, name));
    let task = |number: usize| {
        let file = pool.at(&format!("ran-{number}"));
        json!({"class": "cpu", "shell": format!("test -e {file} || {{ touch {file}; exit 1; }}")})
    };
    let tasks: Vec<_> = (0..5).map(task).collect();
    for id in ids(&submit_batch(&pool, &tasks)) {
        assert_eq!(until_over(&pool, &id)["outcome"], "succeeded");
        let ran: BTreeSet<String> =
            lines_of(&pool, &id).iter().map(|line| line["worker"].to_string()).collect();
        assert_eq!(ran.len(), 2, "{id} was tried on {ran:?} only");
    }
}

#[test]
fn a_worker_on_which_all_fails_that_goes_well_elsewhere_leaves_it_to_others() {
    let pool = quick("");
    let _workers =
        ["bad", "good"].map(|name| pool.worker(&["--cpu", "--name", name, "--cpu-slots", "1"]));
    ["bad", "good"].iter().for_each(|name| until_up(&pool, name));
    let shell = "test $BRAINSTEM_WORKER = good || { echo no libcuda.so; exit 1; }; sleep 0.03";
    let tasks = vec![json!({"class": "cpu", "shell": shell, "max_attempts": 20}); 80];
    let all = ids(&submit_batch(&pool, &tasks));
    let said = pool.until_event("worker-bad", "worker.backs_off");
    assert!(said["message"].to_string().contains("no libcuda.so"), "{said}");
    pool.until_true("it says why", || {
        pool.queue(&["why", "bad", "--json"]).stdout.contains("worker.backs_off")
    });
    for id in &all {
        assert_eq!(until_over(&pool, id)["worker"], "good");
    }
    let failures = all.iter().flat_map(|id| lines_of(&pool, id));
    let failures = failures.filter(|line| line["worker"] == "bad").count();
    assert!(failures < 20, "{failures} attempts went wrong");
}
