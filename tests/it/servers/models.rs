//! A worker and its model server: requests, loads, canaries, and servers that fall ill. The server
//! is the stand-in for Ollama; that one is checked against the real clients elsewhere.

use std::path::Path;

use queue::dir::Rules;
use queue::dir::layout::Layout;
use queue::dir::submit::one::Submitter;
use serde_json::{Value, json};
use shared::id::TaskId;
use shared::task::{Task, parse_spec};
use shared::time::Moment;
use tests::{FakeOllama, Pool};

use crate::kit::steps::{messages, quick, until_over};

/// Looks and canaries that come soon.
pub(crate) const SOON: &str =
    "server_poll = \"100ms\"\ncanary_interval = \"300ms\"\ncanary_patience = \"1s\"";

/// Submits a task that people's commands would refuse, as the brain's are.
pub(crate) fn submit(pool: &Pool, spec: Value) -> String {
    let opened = queue::Pool::open(Path::new(&pool.dir()), Rules::default()).unwrap();
    let task = Task {
        id: TaskId::new(),
        batch_id: None,
        submitted_at: Moment::now(),
        submitted_by: "brain".into(),
        correlation_id: "c".into(),
        spec: parse_spec(spec.to_string().as_bytes()).unwrap(),
    };
    Submitter::new(&opened).unwrap().submit(&task).unwrap();
    let class = spec["class"].as_str().unwrap();
    queue::dir::signal::doorbell::ring_class(opened.layout(), class.parse().unwrap());
    task.id.to_string()
}

pub(crate) fn ask(pool: &Pool, model: &str) -> String {
    submit(pool, json!({"class": "llm", "model": model, "prompt": "hi"}))
}

pub(crate) fn turn(pool: &Pool, verb: &str, model: &str) -> String {
    submit(
        pool,
        json!({"class": "resource", "verb": verb, "model": model, "worker": "worker-0",
               "priority": 10, "max_attempts": 1, "name": verb}),
    )
}

fn worker(pool: &Pool, fake: &FakeOllama) -> tests::Proc {
    let worker = pool.worker(&["--gpu", "0", "--ollama-url", fake.address()]);
    pool.until_event("worker-worker-0", "server.up");
    worker
}

/// The line of how a task ended.
pub(crate) fn end_of(pool: &Pool, id: &str) -> Value {
    until_over(pool, id)
}

/// What the worker's heartbeat says of its server.
pub(crate) fn server(pool: &Pool) -> Value {
    pool.heartbeat("worker-0").map_or(Value::Null, |mut beat| beat["ability"]["server"].take())
}

#[test]
fn a_model_is_loaded_asked_and_unloaded_and_the_answer_stands_in_the_ledger() {
    let pool = quick(SOON);
    let fake = FakeOllama::start(&pool, json!({"models": {"tiny": {"size": 100, "vram": 60}}}));
    let _worker = worker(&pool, &fake);
    let load = end_of(&pool, &turn(&pool, "load_llm", "tiny"));
    assert_eq!((&load["outcome"], &load["cause"]), (&json!("succeeded"), &Value::Null));
    let said = pool.until_event("worker-worker-0", "model.on_cpu");
    assert_eq!((&said["extra"]["size"], &said["extra"]["vram"]), (&json!(100), &json!(60)));
    let line = end_of(&pool, &ask(&pool, "tiny"));
    assert_eq!(line["outcome"], "succeeded");
    let text = line["answer"]["body"]["choices"][0]["message"]["content"].as_str();
    let text = text.or(line["answer"]["body"]["choices"][0]["text"].as_str()).unwrap();
    let log = std::fs::read_to_string(line["log_path"].as_str().unwrap()).unwrap();
    assert_eq!(log, text, "the log is the answer as it came");
    let done = pool.until_log("worker-worker-0", |said| {
        said["event"] == "task.completed" && said["task_id"] == line["id"]
    });
    assert_eq!(done["extra"]["completion_tokens"], line["answer"]["completion_tokens"]);
    let unload = end_of(&pool, &turn(&pool, "unload_llm", "tiny"));
    assert_eq!(unload["outcome"], "succeeded");
    // Heartbeats that follow each other closely are one.
    pool.until_true("the heartbeat to say so", || server(&pool)["models"] == json!([]));
}

#[test]
fn a_load_that_fails_is_not_tried_again_and_is_remembered() {
    let pool = quick(SOON);
    let models = json!({"big": {"load_fault": "oom"}, "tiny": {}});
    let fake = FakeOllama::start(&pool, json!({ "models": models }));
    let _worker = worker(&pool, &fake);
    for (model, cause, code) in
        [("big", "oom", "model.too_big"), ("nope", "model_missing", "model.missing")]
    {
        let line = end_of(&pool, &turn(&pool, "load_llm", model));
        assert_eq!((&line["cause"], &line["next"]), (&json!(cause), &json!("failed")), "{line}");
        pool.until_true("the worker to remember it", || {
            let failed = server(&pool)["failed_loads"].as_array().cloned().unwrap_or_default();
            failed.iter().any(|load| load["model"] == model && load["cause"] == cause)
        });
        let id = ask(&pool, model);
        let why = pool.queue(&["why", &id, "--json"]).code(6).json();
        assert_eq!(why["reasons"][0]["code"], code, "{why}");
        pool.queue(&["cancel", &id]).success();
    }
}

#[test]
fn a_server_that_is_down_keeps_no_script_waiting_and_says_so_once() {
    let pool = quick(SOON);
    let port = tests::free_port().to_string();
    let _worker = pool.worker(&["--gpu", "0", "--ollama-port", &port]);
    pool.until_event("worker-worker-0", "server.down");
    let script = crate::kit::steps::submit(&pool, &[], &["say=done"]);
    assert_eq!(end_of(&pool, &script)["outcome"], "succeeded");
    let id = ask(&pool, "tiny");
    pool.until_true("the heartbeat to say so", || server(&pool)["health"] == "down");
    let why = pool.queue(&["why", &id, "--json"]).code(5).json();
    assert_eq!(why["reasons"][0]["code"], "server.down", "{why}");
    assert_eq!(messages(&pool, "worker-0", "server.down").len(), 1);
}

#[test]
fn a_wedged_server_gets_no_task_until_it_answers_again() {
    let pool = quick(SOON);
    let settings = |fault: Value| json!({"models": {"tiny": {}}, "fault": fault});
    let fake = FakeOllama::start(&pool, settings(Value::Null));
    let _worker = worker(&pool, &fake);
    end_of(&pool, &turn(&pool, "load_llm", "tiny"));
    fake.set(settings(json!("wedge")));
    pool.until_event("worker-worker-0", "server.wedged");
    let id = ask(&pool, "tiny");
    pool.until_true("the heartbeat to say so", || server(&pool)["health"] == "wedged");
    let why = pool.queue(&["why", &id, "--json"]).code(5).json();
    assert_eq!(why["reasons"][0]["code"], "server.wedged", "{why}");
    fake.set(settings(Value::Null));
    assert_eq!(end_of(&pool, &id)["outcome"], "succeeded");
}

#[test]
fn a_server_that_is_busy_is_left_alone_for_a_while_and_its_words_are_told() {
    let pool = quick(SOON);
    let settings = |fault: Value| json!({"models": {"tiny": {}}, "fault": fault});
    let fake = FakeOllama::start(&pool, settings(Value::Null));
    let _worker = worker(&pool, &fake);
    end_of(&pool, &turn(&pool, "load_llm", "tiny"));
    fake.set(settings(json!("busy")));
    let id = ask(&pool, "tiny");
    let why = pool.until("`why` to say so", || {
        let why = pool.queue(&["why", &id, "--json"]).json();
        (why["reasons"][0]["code"] == "server.busy").then_some(why)
    });
    let text = why["reasons"][0]["text"].as_str().unwrap();
    assert!(text.contains("server busy, please try again.  maximum pending"), "{text}");
    // By the third time it is worth a line; the first pauses were of 1 s and 2 s.
    let said = pool.until_event("worker-worker-0", "server.busy");
    assert_eq!(said["extra"]["seconds"], 4.0, "{said}");
    let lines = crate::kit::steps::lines_of(&pool, &id);
    let ends: Vec<_> = lines.iter().map(|line| (&line["outcome"], &line["cause"])).collect();
    let busy = (&json!("returned"), &json!("server_error"));
    assert!(ends.len() <= 3 && ends.iter().all(|end| *end == busy), "{ends:?}");
    fake.set(settings(Value::Null));
    assert_eq!(end_of(&pool, &id)["outcome"], "succeeded");
    pool.until_event("worker-worker-0", "server.busy_cleared");
}

#[test]
fn a_load_for_which_a_server_has_no_time_is_asked_for_once() {
    let pool = quick(SOON);
    let settings = |fault: Value| json!({"models": {"tiny": {}}, "fault": fault});
    let fake = FakeOllama::start(&pool, settings(json!("busy")));
    let _brain = pool.brain(&["--no-spawn"]);
    let _worker = worker(&pool, &fake);
    let id = ask(&pool, "tiny");
    pool.until_event("worker-worker-0", "server.busy");
    pool.until_true("`why` to say so", || {
        let why = pool.queue(&["why", &id, "--json"]).code(5).json();
        why["reasons"][0]["code"] == "server.busy"
    });
    fake.set(settings(Value::Null));
    assert_eq!(end_of(&pool, &id)["outcome"], "succeeded");
    assert_eq!(messages(&pool, "worker-0", "model.loaded").len(), 1);
    let inserted = pool.log("brain").into_iter();
    let inserted = inserted.filter(|line| line["event"] == "models.load_inserted");
    assert_eq!(inserted.count(), 1, "one load, until it was done");
}

#[test]
fn a_request_is_cancelled_by_ending_its_connection() {
    let pool = quick(SOON);
    let slow = json!({"models": {"tiny": {"token_seconds": 0.05, "tokens": 100_000}}});
    let fake = FakeOllama::start(&pool, slow);
    let _worker = worker(&pool, &fake);
    end_of(&pool, &turn(&pool, "load_llm", "tiny"));
    let id = ask(&pool, "tiny");
    let log = Layout::new(pool.dir()).run_log(id.parse().unwrap(), 1);
    pool.until_true("text to come", || std::fs::metadata(&log).is_ok_and(|meta| meta.len() > 0));
    pool.queue(&["cancel", &id]).success();
    assert_eq!(end_of(&pool, &id)["outcome"], "cancelled");
    let timed = submit(
        &pool,
        json!({"class": "llm", "model": "tiny", "prompt": "hi", "timeout": "200ms",
               "max_attempts": 1}),
    );
    assert_eq!(end_of(&pool, &timed)["cause"], "timeout");
}

#[test]
fn without_a_brain_a_worker_loads_what_is_waited_for() {
    let pool = quick(&format!("{SOON}\nself_load_after = \"200ms\""));
    let fake = FakeOllama::start(&pool, json!({"models": {"tiny": {}, "other": {}}}));
    let _worker = worker(&pool, &fake);
    let (one, two) = (ask(&pool, "tiny"), ask(&pool, "other"));
    assert_eq!(end_of(&pool, &one)["outcome"], "succeeded");
    assert_eq!(end_of(&pool, &two)["outcome"], "succeeded");
    let script = crate::kit::steps::submit(&pool, &[], &["say=done"]);
    assert_eq!(end_of(&pool, &script)["outcome"], "succeeded");
    let said = pool.until_event("worker-worker-0", "worker.loads_alone");
    assert!(said["message"].as_str().unwrap().contains("asks itself to load_llm"), "{said}");
    // It ran only once the model was gone; the heartbeat says so a moment later.
    pool.until_true("the script to have had the memory", || server(&pool)["models"] == json!([]));
}

#[test]
fn a_server_killed_in_mid_answer_costs_one_attempt_and_no_other_task() {
    let pool =
        quick(&format!("{SOON}\nretry_backoff_first = \"10s\"\nretry_backoff_max = \"10s\""));
    let slow = json!({"models": {"tiny": {"token_seconds": 0.05, "tokens": 100_000}}});
    let fake = FakeOllama::start(&pool, slow);
    let _worker = worker(&pool, &fake);
    end_of(&pool, &turn(&pool, "load_llm", "tiny"));
    let (id, next) = (ask(&pool, "tiny"), ask(&pool, "tiny"));
    let log = Layout::new(pool.dir()).run_log(id.parse().unwrap(), 1);
    pool.until_true("text to come", || std::fs::metadata(&log).is_ok_and(|meta| meta.len() > 0));
    fake.into_process().kill9();
    let line = pool.until("the attempt to end", || {
        pool.ledger().into_iter().find(|line| line["id"] == id.as_str())
    });
    assert_eq!((&line["cause"], &line["outcome"]), (&json!("server_error"), &json!("failed")));
    pool.until_true("the heartbeat to say so", || server(&pool)["health"] == "down");
    let why = pool.queue(&["why", &next, "--json"]).code(5).json();
    assert_eq!(why["reasons"][0]["code"], "server.down", "{why}");
}

#[test]
fn a_server_of_its_own_begins_and_ends_with_the_worker() {
    let pool = quick(SOON);
    pool.env("FAKE_OLLAMA", pool.at("none.json"));
    let port = tests::free_port().to_string();
    let program = tests::program("fake-ollama").display().to_string();
    let args = ["--gpu", "0", "--managed", &program, "--ollama-port", &port];
    let mut worker = pool.worker(&args);
    pool.until_event("worker-worker-0", "server.up");
    end_of(&pool, &turn(&pool, "load_llm", "tiny"));
    assert_eq!(end_of(&pool, &ask(&pool, "tiny"))["outcome"], "succeeded");
    worker.term();
    worker.end().success();
    assert!(std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err(), "it is gone");
}
