//! The model servers of the workers that the brain starts: one beside each GPU, or one for all, or
//! none at all, which must cost nobody anything who only runs scripts.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::{FakeOllama, Pool, Proc, free_port_pair, llama_models};

use crate::kit::steps::{messages, quick, submit, until_over, until_said};

const SOON: &str = "server_poll = \"100ms\"";

/// Submits prompts for these models, and waits; which workers answered them.
fn answered_by(pool: &Pool, models: &[&str]) -> BTreeSet<String> {
    let lines = models.iter().map(|model| json!({"prompt": "hi", "model": model}).to_string());
    std::fs::write(pool.at("in.jsonl"), lines.collect::<Vec<_>>().join("\n")).unwrap();
    let ran = pool.queue(&["submit", "--batch", "in.jsonl"]).success();
    let ends = ran.stdout.lines().map(|id| until_over(pool, id));
    let by = |line: Value| {
        assert_eq!(line["outcome"], "succeeded", "{line}");
        line["worker"].as_str().unwrap().to_owned()
    };
    ends.map(by).collect()
}

fn ends(mut brain: Proc, pool: &Pool) {
    brain.term();
    brain.end().success();
    pool.until_true("nobody to be left", || {
        pool.alive().iter().all(|one| !one.command.contains("serve"))
    });
}

#[test]
fn each_worker_of_the_brain_has_the_server_beside_its_gpu() {
    let pool = quick(SOON);
    let base = free_port_pair();
    let _servers = [(0, "left"), (1, "right")].map(|(gpu, model)| {
        FakeOllama::at(&pool, model, base + gpu, json!({"models": {model: {}}}))
    });
    let _brain = pool.brain(&["--gpus", "0,1", "--ollama-base-port", &base.to_string()]);
    let workers = answered_by(&pool, &["left", "right", "left", "right"]);
    assert_eq!(workers, ["worker-0", "worker-1"].map(String::from).into());
    // Jobs beside it find it too.
    let words = ["--class", "script", "--worker", "worker-1"];
    let id = submit(&pool, &words, &["env=OLLAMA_HOST"]);
    until_over(&pool, &id);
    let host = format!("OLLAMA_HOST=127.0.0.1:{}\n", base + 1);
    assert_eq!(crate::kit::steps::log_of(&pool, &id, 1), host);
}

/// Nobody listens beside a GPU of this number, on any machine that tests run on.
const NOBODY: &str = "4321";
const BESIDE: &str = "http://127.0.0.1:15757";

#[test]
fn without_a_server_scripts_run_and_one_calm_line_says_so() {
    let pool = quick(SOON);
    // As if it were not set.
    pool.env("BRAINSTEM_OLLAMA_BASE_PORT", "");
    pool.env("OLLAMA_HOST", "box:1");
    let _brain = pool.brain(&["--gpus", NOBODY]);
    let worker = format!("worker-{NOBODY}");
    let said = until_said(&pool, &worker, "No model server at");
    assert_eq!((&said["event"], &said["level"]), (&json!("server.absent"), &json!("INFO")));
    assert!(said["message"].as_str().unwrap().contains(BESIDE), "{said}");
    let id = submit(&pool, &[], &["env=OLLAMA_HOST"]);
    assert_eq!(until_over(&pool, &id)["outcome"], "succeeded");
    assert_eq!(crate::kit::steps::log_of(&pool, &id, 1), "OLLAMA_HOST=box:1\n", "left as it was");
    let id = pool.queue(&["submit", "--model", "tiny", "--prompt", "hi"]).id();
    let why = pool.until("the heartbeat to say so", || {
        let why = pool.queue(&["why", &id, "--json"]).code(5).json();
        (why["reasons"][0]["code"] == "server.down").then_some(why)
    });
    let reason = &why["reasons"][0];
    assert!(reason["text"].as_str().unwrap().contains(BESIDE), "{why}");
    assert_eq!(reason["fix"], "OLLAMA_HOST=127.0.0.1:15757 ollama serve");
    assert_eq!(messages(&pool, &worker, "server.absent").len(), 1);
    let workers = pool.queue(&["workers"]).success();
    assert!(!workers.stdout.contains("MODELS"), "nothing of servers: {workers}");
    let loud = |line: &Value| line["level"] != "INFO" && line["log_level"] != "DEBUG";
    let log = pool.log(&format!("worker-{worker}"));
    assert_eq!(log.into_iter().filter(loud).collect::<Vec<_>>(), Vec::<Value>::new());
}

#[test]
fn a_server_that_comes_later_is_used() {
    let pool = quick(SOON);
    let base = free_port_pair();
    let _brain = pool.brain(&["--gpus", "0", "--ollama-base-port", &base.to_string()]);
    // Asked for, so its absence is a warning.
    pool.until_event("worker-worker-0", "server.down");
    let _server = FakeOllama::at(&pool, "late", base, json!({"models": {"tiny": {}}}));
    assert_eq!(answered_by(&pool, &["tiny"]), ["worker-0".to_owned()].into());
}

#[test]
fn each_worker_of_the_brain_starts_a_server_of_its_own_and_ends_it() {
    let pool = quick(SOON);
    let models = json!({"models": {"tiny": {"load_seconds": 0.3, "token_seconds": 0.05}}});
    std::fs::write(pool.at("served.json"), models.to_string()).unwrap();
    pool.env("FAKE_OLLAMA", pool.at("served.json"));
    let program = tests::program("fake-ollama").display().to_string();
    let base = free_port_pair().to_string();
    let words = ["--gpus", "0,1", "--managed", &program, "--ollama-base-port", &base];
    let brain = pool.brain(&words);
    for worker in ["worker-0", "worker-1"] {
        pool.until_event(&format!("worker-{worker}"), "server.up");
    }
    let workers = answered_by(&pool, &["tiny"; 24]);
    assert_eq!(workers, ["worker-0", "worker-1"].map(String::from).into());
    ends(brain, &pool);
}

/// On a machine without a GPU, the one worker has the server.
#[test]
fn a_real_llama_server_beside_the_cpu() {
    let pool = quick(SOON);
    let Some((server, models)) = llama_models() else { return };
    let (server, file) = (server.display().to_string(), models.join("tiny.gguf"));
    let (file, port) = (file.display().to_string(), free_port_pair().to_string());
    let words = ["--cpu", "--managed", &server, "--model-file", &file, "--ollama-base-port", &port];
    let brain = pool.brain(&words);
    let workers = answered_by(&pool, &["tiny", "tiny"]);
    assert!(workers.len() == 1 && workers.iter().all(|name| name.starts_with("cpu-")));
    ends(brain, &pool);
}

#[test]
fn servers_that_cannot_be_are_refused_by_the_brain_itself() {
    let pool = Pool::new();
    for (words, told) in [
        (&["--openai-url", "https://box"][..], "https is not supported"),
        (&["--managed", "llama-server"], "--model-file"),
        (&["--ollama-base-port", "70000"], "not a port"),
        (&["--ollama-url", "x", "--ollama-base-port", "1"], "cannot be used with"),
    ] {
        let ran = pool.brain(&[&["--gpus", "0"], words].concat()).end().code(2);
        assert!(ran.stderr.contains(told), "{ran}");
    }
}
