//! Answers that were cut, and answers that are empty: told apart from whole ones wherever they are
//! shown, and failures for who wants none such.

use serde_json::{Value, json};
use tests::{FakeOllama, Pool, Proc};

use super::models::SOON;
use crate::kit::steps::{ids, lines_of, quick, submit_batch};

/// A server with a model that says something, and one that says nothing; and a worker.
fn start(more: &str) -> (Pool, FakeOllama, Proc) {
    let pool = quick(&format!("{SOON}\n{more}"));
    let models = json!({"models": {"tiny": {"tokens": 8}, "mute": {"tokens": 0}}});
    let fake = FakeOllama::start(&pool, models);
    let worker = pool.worker(&["--gpu", "0", "--ollama-url", fake.address()]);
    pool.until_event("worker-worker-0", "server.up");
    (pool, fake, worker)
}

fn prompts() -> Vec<Value> {
    let ask = |model: &str, id: &str, options: Value| json!({"model": model, "prompt": "say ok", "custom_id": id, "options": options});
    vec![
        ask("tiny", "cut", json!({"num_predict": 2})),
        ask("mute", "empty", json!({})),
        ask("tiny", "fine", json!({})),
    ]
}

fn load(pool: &Pool) {
    for model in ["tiny", "mute"] {
        super::models::end_of(pool, &super::models::turn(pool, "load_llm", model));
    }
}

#[test]
fn what_an_answer_lacks_is_told_everywhere() {
    let (pool, _fake, _worker) = start("");
    load(&pool);
    let answer = submit_batch(&pool, &prompts());
    let (batch, ids) = (answer["batch_id"].as_str().unwrap(), ids(&answer));
    let waited = pool.queue(&["wait", batch]).success();
    assert!(waited.stderr.contains("3 succeeded (answers: 1 cut, 1 empty)"), "{waited}");
    let waited = pool.queue(&["wait", batch, "--json"]).success().json();
    assert_eq!(waited["flaws"], json!({"cut": 1, "empty": 1}));
    let listed = pool.queue(&["ls", "--batch", batch, "--json"]).success().json_lines();
    let flaw = |id: &str| {
        let line = listed.iter().find(|line| line["id"] == id).unwrap();
        line["flaw"].clone()
    };
    assert_eq!(
        [flaw(&ids[0]), flaw(&ids[1]), flaw(&ids[2])],
        [json!("cut"), json!("empty"), Value::Null]
    );
    let listed = pool.queue(&["ls", "--batch", batch]).success().stdout;
    assert!(listed.contains(", cut]") && listed.contains(", empty]"), "{listed}");
    let shown = pool.queue(&["show", &ids[0]]).success().stdout;
    assert!(shown.contains(", cut"), "{shown}");
    for form in ["openai", "jsonl", "csv", "text"] {
        let ran = pool.queue(&["results", batch, "--format", form]).success();
        assert!(ran.stderr.contains(" cut: the answer was cut at its limit of tokens"), "{ran}");
        assert!(ran.stderr.contains("3 succeeded (answers: 1 cut, 1 empty), 0 did not"), "{ran}");
    }
    let lines = pool.queue(&["results", batch, "--format", "jsonl"]).success().json_lines();
    let flaws: Vec<_> = lines.iter().map(|line| line["flaw"].clone()).collect();
    assert_eq!(flaws, [json!("cut"), json!("empty"), Value::Null]);
}

#[test]
fn who_wants_complete_answers_only_gets_failures() {
    for (setting, flag) in [("", Some("--complete-only")), ("complete_only = true", None)] {
        let (pool, _fake, _worker) = start(setting);
        load(&pool);
        let lines: String = prompts().iter().map(|prompt| format!("{prompt}\n")).collect();
        let mut words = vec!["submit", "--batch", "-", "--json"];
        words.extend(flag);
        let answer = pool.queue_with_input(&words, &lines).success().json();
        let (batch, ids) = (answer["batch_id"].as_str().unwrap(), ids(&answer));
        pool.queue(&["wait", batch]).code(100);
        let ends = |id: &str| {
            let all = lines_of(&pool, id);
            let last = all.last().unwrap().clone();
            (all.len(), last["outcome"].clone(), last["error_message"].clone())
        };
        let cut = (1, json!("failed"), json!("the answer was cut at its limit of tokens"));
        assert_eq!(ends(&ids[0]), cut, "it would be cut again");
        assert_eq!(ends(&ids[1]), (3, json!("failed"), json!("the answer is empty")));
        assert_eq!(ends(&ids[2]), (1, json!("succeeded"), Value::Null));
    }
}
