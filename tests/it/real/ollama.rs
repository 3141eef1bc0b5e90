//! A real Ollama, where `$OLLAMA_BIN` names one: it answers the official clients as the stand-in
//! does, and a worker gets on with it. Skipped, which is said, where there is none.

use std::fs;

use queue::dir::layout::Layout;
use serde_json::json;
use tests::{Ollama, Pool};

use crate::kit::steps::{lines_of, quick};
use crate::real::clients::{recorded, seen_by_clients};
use crate::servers::models::{SOON, end_of, server, submit, turn};

#[test]
fn a_real_ollama_answers_the_official_clients_as_the_stand_in_does() {
    let pool = Pool::new();
    let Some(ollama) = Ollama::start(&pool) else { return };
    let Some(seen) = seen_by_clients(&pool, ollama.address()) else { return };
    assert_eq!(seen, recorded());
}

#[test]
fn a_worker_loads_asks_cancels_and_unloads_a_real_ollama() {
    let pool = quick(SOON);
    let Some(ollama) = Ollama::start(&pool) else { return };
    let _worker = pool.worker(&["--gpu", "0", "--ollama-url", ollama.address()]);
    pool.until_event("worker-worker-0", "server.up");
    let load = end_of(&pool, &turn(&pool, "load_llm", "tiny"));
    assert_eq!(load["outcome"], "succeeded", "{load}");
    let ask = |tokens: u64| {
        submit(
            &pool,
            json!({"class": "llm", "model": "tiny", "prompt": "hi",
                             "options": {"num_predict": tokens}}),
        )
    };
    let line = end_of(&pool, &ask(5));
    assert_eq!(
        (&line["outcome"], &line["answer"]["completion_tokens"]),
        (&json!("succeeded"), &json!(5)),
        "{line}"
    );
    let long = ask(1_000_000);
    let log = Layout::new(pool.dir()).run_log(long.parse().unwrap(), 1);
    pool.until_true("text to come", || fs::metadata(&log).is_ok_and(|meta| meta.len() > 0));
    pool.queue(&["cancel", &long]).success();
    assert_eq!(end_of(&pool, &long)["outcome"], "cancelled");
    assert_eq!(end_of(&pool, &ask(1))["outcome"], "succeeded");
    let missing = end_of(&pool, &turn(&pool, "load_llm", "nope"));
    assert_eq!(missing["cause"], "model_missing", "{missing}");
    let odd = submit(
        &pool,
        json!({"class": "llm", "model": "tiny", "prompt": "hi",
                                   "options": {"num_predict": "many"}}),
    );
    assert_eq!(end_of(&pool, &odd)["outcome"], "failed");
    assert_eq!(lines_of(&pool, &odd).len(), 1, "a 500 that will always be one");
    assert_eq!(end_of(&pool, &turn(&pool, "unload_llm", "tiny"))["outcome"], "succeeded");
    pool.until_true("the heartbeat to say so", || server(&pool)["models"] == json!([]));
}
