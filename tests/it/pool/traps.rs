//! Traps of the requirements that no other file is about: contended limits, a whole card, a long
//! history, and people who change things while the brain looks on.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use queue::dir::claim::limit_slots::{self, SlotUse};
use queue::dir::{Privacy, Rules};
use serde_json::{Value, json};
use shared::id::TaskId;
use shared::task::TaskName;
use tests::{FakeGpu, Pool};

use crate::kit::{steps, *};

/// What the brain last wrote about itself and the pool.
fn state(pool: &Pool) -> Option<Value> {
    let text = fs::read(pool.dir().join("brain/state.json")).ok()?;
    // Replaced whole: a reader never sees half of one (001-B36).
    Some(serde_json::from_slice(&text).expect("the brain's state is whole"))
}

#[track_caller]
fn until_state(pool: &Pool, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    pool.until(what, || state(pool).filter(&is_it))
}

/// Lets the brain go through two whole monitor intervals: what it would undo is undone by then.
#[track_caller]
fn a_while(pool: &Pool) {
    let lines = || pool.log("brain").iter().filter(|line| line["event"] == "brain.monitor").count();
    let before = lines();
    pool.until_true("two more MONITOR lines", || lines() >= before + 2);
}

/// 001-B17: locks that others hold are passed by at once, however many there are.
#[test]
fn seed_001_b17_many_limits_in_use_hold_up_neither_the_worker_nor_the_task_behind_them() {
    let keys: Vec<_> = (0..40).map(|room| format!("label=room:{room}")).collect();
    let settings: String = keys.iter().map(|key| format!("\"{key}\" = 1\n")).collect();
    let pool = quick_pool(&format!("[limits]\n{settings}"));
    let limits = keys.iter().map(|key| (key.clone(), 1)).collect();
    let rules = Rules { limits, ..Rules::default() };
    let ours = queue::Pool::create(&pool.dir(), rules, Privacy::Owner).unwrap();
    let by = SlotUse::of(&"w".parse().unwrap(), TaskName::first(TaskId::new()));
    let take =
        |key: &String| limit_slots::take(&ours, std::slice::from_ref(key), &by).unwrap().unwrap();
    let held: Vec<_> = keys.iter().map(take).collect();
    let tasks: Vec<_> = (0..40)
        .map(|room| with(job(&["say=x"]), "labels", json!({"room": room.to_string()})))
        .collect();
    let batch = steps::submit_batch(&pool, &tasks);
    let free = steps::submit(&pool, &["--class", "cpu", "--priority", "0"], &["say=x"]);
    let _worker = pool.worker(&["--cpu", "--name", "w"]);
    assert_eq!(steps::until_over(&pool, &free)["outcome"], "succeeded");
    pool.until_true("each limit among the reasons", || {
        let heartbeat = pool.heartbeat("w").unwrap();
        let reasons = heartbeat["claim"]["reasons"].as_array().unwrap();
        reasons.iter().filter(|reason| reason["code"] == "limit.reached").count() == 40
    });
    drop(held);
    pool.queue(&["wait", batch["batch_id"].as_str().unwrap()]).success();
}

/// 001-B20: a task may need all of a card. One that needs more is said to be impossible.
#[test]
fn seed_001_b20_a_task_that_needs_the_whole_card_gets_it() {
    let pool = quick_pool("");
    pool.fake_gpus(&[FakeGpu::new("GPU-a")]);
    let _worker = pool.worker(&["--gpu", "0"]);
    let whole = pool.queue(&["submit", "--gpu-mem", "12GiB", "--", "true"]).id();
    pool.queue(&["wait", &whole]).success();
    let more = pool.queue(&["submit", "--gpu-mem", "12289MiB", "--", "true"]).id();
    let why = pool.queue(&["why", "--json", &more]).code(6).json();
    assert_eq!(why["verdict"], "impossible", "{why}");
}

/// 001-B35, B36: what a brain knows of the history survives it, and is not read again.
#[test]
fn seed_001_b35_b36_the_next_brain_reads_only_what_is_new_of_the_history() {
    let pool = quick_pool("");
    let _worker = pool.worker(&["--cpu", "--name", "w"]);
    let first = pool.brain(&["--no-spawn"]);
    for id in submit_all(&pool, (0..3).map(|_| job(&["say=x"]))) {
        until_succeeded(&pool, id);
    }
    let three = until_state(&pool, "three ended", |state| state["counts"]["complete"] == 3);
    until_succeeded(&pool, submit(&pool, job(&["say=x"])));
    let four = until_state(&pool, "four ended", |state| state["counts"]["complete"] == 4);
    assert_eq!(four["since"], three["since"], "not written anew with each save");
    first.kill9();
    // Whoever read these lines again would lose the four.
    for path in pool.files_in("ledger") {
        let length = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all(format!("{}\n", " ".repeat(length - 1)).as_bytes()).unwrap();
    }
    let _next = pool.brain(&["--no-spawn"]);
    until_place(&pool, submit(&pool, job(&["say=x"])), "gone");
    let next = until_state(&pool, "another brain", |state| state["since"] != three["since"]);
    assert!(next["counts"]["complete"].as_u64() >= Some(4), "{next}");
    until_state(&pool, "five ended", |state| state["counts"]["complete"] == 5);
}

/// 001-B39: the brain has no list of its own that it would write over what a person does.
#[test]
fn seed_001_b39_what_a_person_cancels_under_a_live_brain_stays_cancelled() {
    let pool = quick_pool("");
    let _brain = pool.brain(&["--no-spawn"]);
    until_state(&pool, "a brain", |_any| true);
    let named = |name: &str| with(job(&["say=x"]), "name", name);
    let batch = steps::submit_batch(
        &pool,
        &[
            named("pending"),
            with(named("waiting"), "after", json!(["pending"])),
            with(named("delayed"), "in", "1h"),
            with(named("held"), "hold", true),
        ],
    );
    until_state(&pool, "the brain knows them", |state| state["counts"]["waiting"] == 1);
    pool.queue(&["cancel", batch["batch_id"].as_str().unwrap()]).success();
    a_while(&pool);
    let counts = pool.queue(&["status", "--json"]).success().json()["counts"].clone();
    for place in ["pending", "waiting", "delayed", "held", "processing", "failed"] {
        assert_eq!(counts[place], 0, "{place}: {counts}");
    }
    assert_eq!(counts["cancelled"], 4, "{counts}");
}
