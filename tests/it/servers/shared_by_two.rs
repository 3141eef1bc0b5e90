//! Two workers with one model server: one place for models, with real programs and the stand-in
//! for Ollama.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::{FakeOllama, Pool, Proc};

use crate::kit::steps::{lines_of, quick};

const SOON: &str = "server_poll = \"100ms\"\ncanary_interval = \"5s\"";

/// A brain, two workers, and the server that both of them name.
fn begin(pool: &Pool) -> (FakeOllama, Vec<Proc>) {
    let model = json!({"load_seconds": 0.5, "token_seconds": 0.005, "tokens": 4});
    let models = json!({"first": model, "second": model});
    let fake = FakeOllama::start(pool, json!({"models": models, "max_loaded": 1, "parallel": 2}));
    let mut programs = vec![pool.brain(&["--no-spawn"])];
    for gpu in ["0", "1"] {
        programs.push(pool.worker(&["--gpu", gpu, "--ollama-url", fake.address()]));
        pool.until_event(&format!("worker-worker-{gpu}"), "server.up");
    }
    (fake, programs)
}

/// Asks the model so often, waits for all answers, and says who gave them.
fn ask(pool: &Pool, model: &str) -> BTreeSet<String> {
    let lines: String = (0..60).map(|n| format!("{{\"prompt\": \"topic {n}\"}}\n")).collect();
    let file = pool.at(&format!("{model}.jsonl"));
    std::fs::write(&file, lines).unwrap();
    let ran = pool.queue(&["submit", "--batch", &file, "--model", model]).success();
    pool.queue_with_input(&["wait", "-"], &ran.stdout).success();
    let ends = ran.stdout.lines().flat_map(|id| lines_of(pool, id));
    ends.map(|line| line["worker"].as_str().unwrap_or_default().to_owned()).collect()
}

fn count(log: &[Value], event: &str) -> usize {
    log.iter().filter(|line| line["event"] == event).count()
}

#[test]
fn two_workers_with_one_server_load_once_and_both_work() {
    let pool = quick(SOON);
    let (_fake, _programs) = begin(&pool);
    let both: BTreeSet<String> = ["worker-0".to_owned(), "worker-1".to_owned()].into();
    assert_eq!(ask(&pool, "first"), both);
    let log = pool.log("brain");
    assert_eq!(count(&log, "models.load_inserted"), 1, "one load for both of them");
    assert_eq!(ask(&pool, "second"), both);
    let log = pool.log("brain");
    let asked = (count(&log, "models.load_inserted"), count(&log, "models.unload_inserted"));
    assert_eq!(asked, (2, 1), "one makes room for both of them");
}
