//! A model server that a worker started itself, through the real programs: it falls ill, it is
//! killed, its worker is killed; and whatever happens, nothing of it is left over. The server is
//! the stand-in for Ollama, whose models have a process each, as Ollama's do.

use std::fs;

use queue::dir::layout::Layout;
use serde_json::{Value, json};
use tests::{Pool, Proc, Signal, free_port};

use crate::kit::steps::{lines_of, messages, quick};
use crate::servers::models::{SOON, ask, end_of, server, turn};

/// A worker with a server of its own.
struct Own<'a> {
    pool: &'a Pool,
    worker: Proc,
}

/// What the server does from the next request on.
fn set(pool: &Pool, settings: &Value) {
    let file = pool.home().join("own.json");
    let new = tempfile::NamedTempFile::new_in(pool.home()).unwrap();
    fs::write(new.path(), settings.to_string()).unwrap();
    new.persist(file).unwrap();
}

impl<'a> Own<'a> {
    /// With the model loaded.
    fn start(pool: &'a Pool, settings: &Value) -> Self {
        set(pool, settings);
        pool.env("FAKE_OLLAMA", pool.at("own.json"));
        let port = free_port().to_string();
        let program = tests::program("fake-ollama").display().to_string();
        let worker = pool.worker(&["--gpu", "0", "--managed", &program, "--ollama-port", &port]);
        pool.until_event("worker-worker-0", "server.up");
        let own = Self { pool, worker };
        own.load();
        own
    }

    fn load(&self) {
        let line = end_of(self.pool, &turn(self.pool, "load_llm", "tiny"));
        assert_eq!(line["outcome"], "succeeded", "{line}");
    }

    /// Waits until a request has begun to be answered.
    fn until_answering(&self, id: &str) {
        let log = Layout::new(self.pool.dir()).run_log(id.parse().unwrap(), 1);
        let some = || fs::metadata(&log).is_ok_and(|meta| meta.len() > 0);
        self.pool.until_true("text to come", some);
    }
}

/// The processes of servers, and of their models.
fn running(pool: &Pool, what: &str) -> Vec<u32> {
    let found = pool.alive().into_iter();
    let found = found.filter(|one| one.command.ends_with(&format!("fake-ollama {what}")));
    found.map(|one| one.pid).collect()
}

#[track_caller]
fn until_another(pool: &Pool, than: &[u32]) {
    pool.until_true("another server", || {
        let now = running(pool, "serve");
        now.len() == 1 && now != than
    });
}

fn none_left(pool: &Pool) -> bool {
    running(pool, "serve").is_empty() && running(pool, "runner").is_empty()
}

fn endless() -> Value {
    json!({"models": {"tiny": {"token_seconds": 0.05, "tokens": 100_000}}})
}

fn well() -> Value {
    json!({"models": {"tiny": {}}})
}

/// It answers pings and its model does not answer: nothing is given to it, and it is started anew.
#[test]
fn a_server_of_its_own_that_is_wedged_is_drained_reported_and_started_anew() {
    let pool = quick(SOON);
    let own = Own::start(&pool, &well());
    let (first, runner) = (running(&pool, "serve"), running(&pool, "runner"));
    assert_eq!((first.len(), runner.len()), (1, 1));
    set(&pool, &json!({"models": {"tiny": {}}, "fault": "wedge"}));
    let said = pool.until_event("worker-worker-0", "server.wedged");
    assert!(said["message"].as_str().unwrap().contains("answers pings"), "{said}");
    let id = ask(&pool, "tiny");
    until_another(&pool, &first);
    pool.until_true("the old model's process to be gone", || running(&pool, "runner") != runner);
    set(&pool, &well());
    pool.until_true("the new server to be up", || server(&pool)["health"] == "up");
    own.load();
    assert_eq!(end_of(&pool, &id)["outcome"], "succeeded");
    assert_eq!(lines_of(&pool, &id).len(), 1, "nobody gave it to the wedged one");
    assert_eq!(messages(&pool, "worker-0", "server.wedged").len(), 1);
}

#[test]
fn a_server_of_its_own_that_is_killed_in_mid_answer_comes_back_and_costs_one_attempt() {
    let pool = quick(SOON);
    let own = Own::start(&pool, &endless());
    let first = running(&pool, "serve");
    let id = ask(&pool, "tiny");
    own.until_answering(&id);
    set(&pool, &well());
    let pid = rustix::process::Pid::from_raw(first[0].cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    let line = pool.until("the attempt to end", || lines_of(&pool, &id).pop());
    assert_eq!((&line["cause"], &line["outcome"]), (&json!("server_error"), &json!("failed")));
    until_another(&pool, &first);
    pool.until_true("the killed one's model to be gone", || running(&pool, "runner").is_empty());
    own.load();
    assert_eq!(end_of(&pool, &id)["outcome"], "succeeded");
    assert_eq!(lines_of(&pool, &id).len(), 2);
}

/// Nobody follows the worker, so the brain ends what it left: else the memory would stay taken.
#[test]
fn nothing_of_a_killed_workers_server_is_left_where_there_is_a_brain() {
    let pool = quick(SOON);
    let _brain = pool.brain(&["--no-spawn"]);
    let own = Own::start(&pool, &endless());
    let id = ask(&pool, "tiny");
    own.until_answering(&id);
    let _killed = own.worker.kill9();
    pool.until_true("all of it to be gone", || none_left(&pool));
    let said = pool.until_event("brain", "pool.cleaned");
    assert!(said["message"].as_str().unwrap().contains("model server"), "{said}");
    pool.until_true("the task to be put back", || {
        lines_of(&pool, &id).iter().any(|line| line["cause"] == "worker_died")
    });
}

/// Without a brain the next one of its name does.
#[test]
fn nothing_of_a_killed_workers_server_is_left_to_the_next_worker() {
    let pool = quick(SOON);
    let own = Own::start(&pool, &endless());
    let (first, runner) = (running(&pool, "serve"), running(&pool, "runner"));
    let id = ask(&pool, "tiny");
    own.until_answering(&id);
    let _killed = own.worker.kill9();
    assert_eq!((running(&pool, "serve"), running(&pool, "runner")), (first.clone(), runner));
    let next = Own::start(&pool, &well());
    until_another(&pool, &first);
    assert_eq!(running(&pool, "runner").len(), 1);
    assert_eq!(end_of(&pool, &id)["outcome"], "succeeded");
    drop(next);
}

#[test]
fn nothing_of_the_server_is_left_when_its_worker_is_told_to_end_in_mid_answer() {
    let pool = quick(&format!("{SOON}\nshutdown_grace = \"200ms\""));
    let mut own = Own::start(&pool, &endless());
    let id = ask(&pool, "tiny");
    own.until_answering(&id);
    own.worker.term();
    own.worker.end().success();
    assert!(none_left(&pool), "{:?}", pool.alive());
    let line = lines_of(&pool, &id).pop().unwrap();
    assert_eq!((&line["outcome"], &line["next"]), (&json!("returned"), &json!("pending")));
}
