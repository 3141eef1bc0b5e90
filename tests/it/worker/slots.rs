//! A worker with several slots beside a server that batches: so many requests are there at once,
//! which the stand-in shows by holding them, and each of them ends in the ledger.

use serde_json::{Value, json};
use tests::{FakeOllama, Pool};

use crate::kit::steps::{lines_of, quick};
use crate::servers::models::{ask, end_of, turn};

const SLOTS: usize = 3;

/// A server that could answer more at once than the worker asks for.
fn settings(fault: &Value) -> Value {
    json!({"models": {"tiny": {}, "other": {}}, "parallel": 8, "fault": fault})
}

fn worker(pool: &Pool, fake: &FakeOllama) -> tests::Proc {
    let slots = SLOTS.to_string();
    let worker = pool.worker(&["--gpu", "0", "--slots", &slots, "--ollama-url", fake.address()]);
    pool.until_event("worker-worker-0", "server.up");
    end_of(pool, &turn(pool, "load_llm", "tiny"));
    worker
}

fn held(fake: &FakeOllama) -> usize {
    fake.requests().iter().filter(|request| request["method"] == "HELD").count()
}

/// The attempts that the worker says it is at.
fn current(pool: &Pool) -> usize {
    let beat = pool.heartbeat("worker-0");
    beat.and_then(|beat| Some(beat["current"].as_array()?.len())).unwrap_or(0)
}

#[test]
fn so_many_requests_are_asked_at_once_as_there_are_slots_and_each_end_is_recorded() {
    let pool = quick("");
    let fake = FakeOllama::start(&pool, settings(&Value::Null));
    let _worker = worker(&pool, &fake);
    fake.set(settings(&json!("hold")));
    let ids: Vec<String> = (0..3 * SLOTS).map(|_| ask(&pool, "tiny")).collect();
    pool.until_true("as many requests as slots", || held(&fake) == SLOTS);
    pool.until_true("the worker to say so", || current(&pool) == SLOTS);
    assert_eq!(pool.files_in("pending").len(), 2 * SLOTS);
    assert_eq!(ids.iter().filter(|id| !lines_of(&pool, id).is_empty()).count(), 0);
    // A load would put out what answers: it waits until they are through.
    let load = turn(&pool, "load_llm", "other");
    fake.set(settings(&Value::Null));
    for id in &ids {
        assert_eq!(end_of(&pool, id)["outcome"], "succeeded");
        assert_eq!(lines_of(&pool, id).len(), 1);
    }
    assert_eq!(end_of(&pool, &load)["outcome"], "succeeded");
    assert_eq!(held(&fake), SLOTS);
}

#[test]
fn a_worker_that_dies_with_all_its_slots_full_loses_none_of_them() {
    let pool = quick("");
    let fake = FakeOllama::start(&pool, settings(&Value::Null));
    let first = worker(&pool, &fake);
    fake.set(settings(&json!("hold")));
    let ids: Vec<String> = (0..2 * SLOTS).map(|_| ask(&pool, "tiny")).collect();
    pool.until_true("as many requests as slots", || held(&fake) == SLOTS);
    let _killed = first.kill9();
    fake.set(settings(&Value::Null));
    let _second = worker(&pool, &fake);
    for id in &ids {
        assert_eq!(end_of(&pool, id)["outcome"], "succeeded");
    }
    let all: Vec<Value> = ids.iter().flat_map(|id| lines_of(&pool, id)).collect();
    let died = all.iter().filter(|line| line["cause"] == "worker_died").count();
    assert_eq!((died, all.len()), (SLOTS, 3 * SLOTS), "{all:?}");
}
