//! The night that this project was born from, with real processes: three GPUs, prompts for one
//! model, and one worker that cannot help. That it cannot is said in time, and `queue why` says
//! the same of a task, of the worker and of the model.

use serde_json::{Value, json};
use tests::{FakeOllama, Pool, Proc};

use crate::kit::steps::{messages, quick, submit_batch, until_up};

/// A goal that is not met is spoken of after this; a worker that is silent, a moment earlier.
const SETTINGS: &str = "load_warn = \"3s\"\nheartbeat_warn = \"2s\"\nheartbeat_interval = \"500ms\"\n\
                        server_poll = \"200ms\"\nretry_backoff_first = \"1s\"\n";

/// Three workers with a server each, and a brain; prompts that take long enough.
struct Night {
    pool: Pool,
    servers: Vec<FakeOllama>,
    workers: Vec<Proc>,
    _brain: Proc,
}

/// The model as a server has it, with what is special; answers take 2 s, so that two workers are
/// not done in a moment.
fn model(special: Value) -> Value {
    let mut model = json!({"tokens": 4, "token_seconds": 0.5});
    model.as_object_mut().unwrap().extend(special.as_object().unwrap().clone());
    json!({"models": {"m": model}})
}

impl Night {
    fn new(first: Value) -> Self {
        let pool = quick(SETTINGS);
        let settings = [model(first), model(json!({})), model(json!({}))];
        let servers = settings.into_iter().zip(1..).map(|(settings, number)| {
            FakeOllama::named(&pool, &format!("ollama-{number}"), settings)
        });
        let servers: Vec<FakeOllama> = servers.collect();
        let workers = servers.iter().zip(1..).map(|(server, number)| {
            let gpu = number.to_string();
            let worker = pool.worker(&["--gpu", &gpu, "--ollama-url", server.address()]);
            until_up(&pool, &format!("worker-{number}"));
            pool.until_true("the heartbeat to say that its server answers", || {
                let beat = pool.heartbeat(&format!("worker-{number}"));
                beat.is_some_and(|beat| beat["ability"]["server"]["health"] == "up")
            });
            worker
        });
        let workers = workers.collect();
        let brain = pool.brain(&["--no-spawn"]);
        pool.until_event("brain", "brain.monitor");
        Self { pool, servers, workers, _brain: brain }
    }

    /// Submits the prompts; the last one, which waits longest.
    fn submit(&self) -> String {
        let prompt = json!({"class": "llm", "model": "m", "prompt": "hi"});
        let answer = submit_batch(&self.pool, &vec![prompt; 200]);
        answer["ids"].as_array().unwrap().last().unwrap().as_str().unwrap().to_owned()
    }

    /// The line of the seed, or the one where no request stands, once it names worker-1.
    fn until_told(&self) -> String {
        let line = self.pool.until_log("brain", |line| {
            let late = ["models.unconsumed", "models.wanted"];
            late.iter().any(|name| line["event"] == *name)
                && line["extra"]["workers"].as_array().unwrap().contains(&json!("worker-1"))
        });
        line["message"].as_str().unwrap().to_owned()
    }

    /// What `queue why` says of it first that has to do with worker-1: code and text.
    fn why(&self, about: &str) -> (String, String) {
        let why = self.pool.queue(&["why", about, "--json"]).json();
        let reasons = why["reasons"].as_array().unwrap();
        let own = reasons.iter().find(|reason| reason["worker"] == "worker-1");
        let own = own.unwrap_or_else(|| panic!("{about}: nothing of worker-1: {why}"));
        let text = |key: &str| own[key].as_str().unwrap().to_owned();
        (text("code"), text("text"))
    }

    /// That task and model have the same first reason that has to do with worker-1, which says
    /// this, and that the worker says it, too.
    fn agree(&self, id: &str, code: &str, words: &str) {
        let (task, model) = (self.why(id), self.why("m"));
        assert_eq!((task.0.as_str(), model.0.as_str()), (code, code), "{task:?} {model:?}");
        assert!(task.1.contains(words) && model.1.contains(words), "{task:?} {model:?}");
        let worker = self.pool.queue(&["why", "worker-1"]).stdout;
        assert!(worker.contains(words), "{worker}");
    }
}

const OF_OLD: &str = "load_llm task available for 3s but workers ['worker-1'] still have no model";
const WANTED: &str = "m wanted for 3s but workers ['worker-1'] still have no model: worker-1: ";

#[test]
fn a_worker_that_is_stopped_is_named_and_goes_on_when_it_is_continued() {
    let night = Night::new(json!({}));
    night.workers[0].stop();
    let id = night.submit();
    assert_eq!(night.until_told(), OF_OLD);
    night.agree(&id, "worker.hung", "worker-1 lives, but its last heartbeat is ");
    night.workers[0].cont();
    night.pool.until_event("worker-worker-1", "model.loaded");
    night.pool.until_event("brain", "models.unconsumed_cleared");
}

#[test]
fn a_server_that_is_frozen_in_its_load_is_named() {
    let night = Night::new(json!({"load_seconds": 3600}));
    let id = night.submit();
    assert_eq!(night.until_told(), OF_OLD);
    night.agree(&id, "model.loading", "worker-1 is loading it");
}

#[test]
fn a_server_that_refuses_to_load_is_named() {
    let night = Night::new(json!({"load_fault": "die"}));
    let id = night.submit();
    let told = night.until_told();
    let state = "the last load failed (server_error), asked again in ";
    assert!(told.starts_with(&format!("{WANTED}{state}")), "{told}");
    night.agree(&id, "model.not_loaded", "tried on worker-1, the last load failed");
}

#[test]
fn a_server_that_is_down_is_named_and_no_load_is_asked_of_it() {
    let mut night = Night::new(json!({}));
    drop(night.servers.remove(0).into_process().kill9());
    night.pool.until_true("the heartbeat to say that its server is down", || {
        let beat = night.pool.heartbeat("worker-1");
        beat.is_some_and(|beat| beat["ability"]["server"]["health"] == "down")
    });
    let id = night.submit();
    let told = night.until_told();
    assert!(told.starts_with(&format!("{WANTED}not asked: http://127.0.0.1:")), "{told}");
    night.agree(&id, "server.down", "worker-1's model server ");
    let asked = messages(&night.pool, "brain", "models.load_inserted");
    assert!(asked.iter().all(|line| !line.contains("for worker-1:")), "{asked:?}");
}
