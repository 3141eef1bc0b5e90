//! The night that the project was born from, replayed with real programs: workers without a model,
//! many prompts, and a server per worker that takes a while to load. Every GPU that can help, helps.
//! The servers are the stand-in for Ollama.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tests::{FakeOllama, Pool, Proc};

use crate::kit::steps::{lines_of, messages, quick};

const TASKS: usize = 125;
const SOON: &str = "server_poll = \"100ms\"\ncanary_interval = \"5s\"";
const WORKERS: [&str; 3] = ["worker-0", "worker-1", "worker-2"];

/// A pool with a brain and three workers, whose servers load for as long as three dozen answers take.
struct Night {
    pool: Pool,
    _servers: Vec<FakeOllama>,
    workers: Vec<Proc>,
    brain: Proc,
}

impl Night {
    fn begin(models: [Value; 3]) -> Self {
        let pool = quick(SOON);
        let brain = pool.brain(&["--no-spawn"]);
        let (mut servers, mut workers) = (Vec::new(), Vec::new());
        for (gpu, model) in models.into_iter().enumerate() {
            let name = format!("ollama-{gpu}");
            let server = FakeOllama::named(&pool, &name, json!({"models": {"tiny": model}}));
            workers.push(pool.worker(&[
                "--gpu",
                &gpu.to_string(),
                "--ollama-url",
                server.address(),
            ]));
            servers.push(server);
            pool.until_event(&format!("worker-worker-{gpu}"), "server.up");
        }
        Self { pool, _servers: servers, workers, brain }
    }

    /// The prompts, by their ids.
    fn submit(&self) -> Vec<String> {
        let lines: String =
            (0..TASKS).map(|n| format!("{{\"prompt\": \"topic {n}\"}}\n")).collect();
        std::fs::write(self.pool.at("night.jsonl"), lines).unwrap();
        let file = self.pool.at("night.jsonl");
        let ran = self.pool.queue(&["submit", "--batch", &file, "--model", "tiny"]).success();
        ran.stdout.lines().map(str::to_owned).collect()
    }

    fn until_all_succeeded(&self, ids: &[String]) {
        self.pool.queue_with_input(&["wait", "-"], &ids.join("\n")).success();
    }

    /// How many prompts each worker answered.
    fn shares(&self, ids: &[String]) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for id in ids {
            let lines = lines_of(&self.pool, id);
            let ends: Vec<_> = lines.iter().filter(|l| l["outcome"] == "succeeded").collect();
            assert_eq!(ends.len(), 1, "{lines:?}");
            *shares.entry(ends[0]["worker"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        shares
    }

    fn asked_to_load(&self) -> Vec<Value> {
        let log = self.pool.log("brain").into_iter();
        log.filter(|line| line["event"] == "models.load_inserted").collect()
    }
}

fn healthy() -> Value {
    json!({"load_seconds": 1.0, "token_seconds": 0.003, "tokens": 4})
}

/// 001-G7, B7, B8, B11: each worker is asked by name, at once, and all of them share the work.
#[test]
fn seed_001_g7_b7_b8_b11_every_worker_loads_and_shares_the_night() {
    let night = Night::begin([healthy(), healthy(), healthy()]);
    let ids = night.submit();
    night.until_all_succeeded(&ids);
    let asked = night.asked_to_load();
    assert_eq!(asked.len(), 3, "one request for each, and none twice: {asked:?}");
    let first = asked[0]["message"].as_str().unwrap();
    assert!(first.starts_with("LLM tasks waiting ("), "{first}");
    assert!(first.contains("but no models loaded - inserting load_llm task"), "{first}");
    let shares = night.shares(&ids);
    for worker in WORKERS {
        let share = shares.get(worker).copied().unwrap_or(0);
        assert!(share >= TASKS / 6, "{worker} helps: {shares:?}");
        assert_eq!(messages(&night.pool, worker, "model.loaded").len(), 1);
    }
    let told = messages(&night.pool, WORKERS[0], "claim.report");
    let why = "No suitable tasks - Queue: [llm:";
    assert!(told.iter().any(|text| text.starts_with(why)), "it said why it was idle: {told:?}");
}

#[test]
fn a_brain_that_dies_in_the_night_costs_nothing() {
    let night = Night::begin([healthy(), healthy(), healthy()]);
    let ids = night.submit();
    night.pool.until_event("worker-worker-1", "model.loaded");
    let Night { brain, pool, _servers, workers } = night;
    let _ran = brain.kill9();
    let next = pool.brain(&["--no-spawn"]);
    let night = Night { brain: next, pool, _servers, workers };
    night.until_all_succeeded(&ids);
    let shares = night.shares(&ids);
    assert_eq!(shares.len(), 3, "{shares:?}");
    for worker in WORKERS {
        assert_eq!(messages(&night.pool, worker, "model.loading").len(), 1, "nobody loads twice");
    }
}

#[test]
fn a_worker_that_dies_in_its_load_costs_its_share_only() {
    let mut night = Night::begin([healthy(), healthy(), healthy()]);
    let ids = night.submit();
    night.pool.until_event("worker-worker-2", "model.loading");
    let _ran = night.workers.remove(2).kill9();
    night.until_all_succeeded(&ids);
    let shares = night.shares(&ids);
    assert_eq!(shares.keys().collect::<Vec<_>>(), [WORKERS[0], WORKERS[1]], "{shares:?}");
}

#[test]
fn a_server_that_refuses_to_load_costs_its_share_only() {
    let night = Night::begin([healthy(), json!({"load_fault": "die"}), healthy()]);
    let ids = night.submit();
    night.until_all_succeeded(&ids);
    let shares = night.shares(&ids);
    assert_eq!(shares.keys().collect::<Vec<_>>(), [WORKERS[0], WORKERS[2]], "{shares:?}");
    assert!(!messages(&night.pool, WORKERS[1], "model.load_failed").is_empty());
}
