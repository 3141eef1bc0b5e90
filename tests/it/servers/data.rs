//! What people give arrives as it was, and what servers say of it comes back as it was.

use serde_json::{Value, json};
use tests::{FakeOllama, Pool, Proc};

use super::models::{SOON, end_of, turn};
use crate::kit::steps::{ids, lines_of, quick, until_over};

fn start(settings: Value) -> (Pool, FakeOllama, Proc) {
    let pool = quick(SOON);
    let fake = FakeOllama::start(&pool, settings);
    let worker = pool.worker(&["--gpu", "0", "--ollama-url", fake.address()]);
    pool.until_event("worker-worker-0", "server.up");
    (pool, fake, worker)
}

/// A text of JSON, kept as it is.
fn submit(pool: &Pool, line: &str) -> String {
    let answer =
        pool.queue_with_input(&["submit", "--batch", "-", "--json"], line).success().json();
    ids(&answer).remove(0)
}

/// Names whose order means something: a model fills in a schema in its order.
const SCHEMA: &str = r#"{"type":"object","properties":{"reasoning":{"type":"string"},"answer":{"type":"number","minimum":0.30000000000000004}},"required":["reasoning","answer"],"additionalProperties":false}"#;

#[test]
fn names_keep_their_order_and_numbers_their_digits_on_the_way_to_the_server() {
    let (pool, fake, _worker) = start(json!({"models": {"tiny": {}}}));
    end_of(&pool, &turn(&pool, "load_llm", "tiny"));
    let options =
        r#"{"top_p":0.1234567890123456,"seed":9007199254740993,"num_ctx":2048,"min_p":5e-324}"#;
    let own = format!(r#"{{"model":"tiny","prompt":"hi","options":{options},"format":{SCHEMA}}}"#);
    until_over(&pool, &submit(&pool, &own));
    let body = fake.bodies("/api/generate").pop().unwrap();
    assert_eq!(body["format"].to_string(), SCHEMA);
    assert_eq!(body["options"].to_string(), options);
    let theirs = format!(
        r#"{{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{{"model":"tiny","messages":[{{"role":"user","content":"hi"}}],"response_format":{{"type":"json_schema","json_schema":{{"name":"n","schema":{SCHEMA}}}}}}}}}"#
    );
    let id = submit(&pool, &theirs);
    until_over(&pool, &id);
    let body = fake.bodies("/api/chat").pop().unwrap();
    assert_eq!(body["format"].to_string(), SCHEMA);
    // In history, and for who looks, as well.
    let shown = pool.queue(&["show", &id, "--json"]).success().json();
    let schema = shown["spec"]["request"]["body"].pointer("/response_format/json_schema/schema");
    assert_eq!(schema.unwrap().to_string(), SCHEMA);
    let line = &lines_of(&pool, &id)[0];
    assert_eq!(line["task"]["request"], shown["spec"]["request"], "{line}");
}

#[test]
fn what_a_server_said_of_a_request_that_it_refused_stands_among_the_errors() {
    let (pool, _fake, _worker) = start(json!({"models": {"tiny": {}}}));
    end_of(&pool, &turn(&pool, "load_llm", "tiny"));
    let line = r#"{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"model":"tiny","input":"hi"}}"#;
    let id = submit(&pool, line);
    let ended = until_over(&pool, &id);
    assert_eq!(ended["outcome"], "failed", "{ended}");
    let shown = pool.queue(&["show", &id, "--json"]).success().json();
    let batch = shown["batch_id"].as_str().unwrap().to_owned();
    pool.queue(&["results", &batch, "--errors", "errors.jsonl"]).code(100);
    let errors = std::fs::read_to_string(pool.at("errors.jsonl")).unwrap();
    let error: Value = serde_json::from_str(errors.trim()).unwrap();
    assert_eq!(error["response"]["status_code"], ended["refused"]["status"], "{error}");
    assert!(error["response"]["status_code"].as_u64().unwrap() >= 400, "{error}");
    assert!(error["response"]["body"].to_string().contains("embedding"), "{error}");
}

#[test]
fn embeddings_come_in_bytes_where_they_are_asked_for() {
    let (pool, _fake, _worker) = start(json!({"models": {"vec": {"embeds": true}}}));
    end_of(&pool, &turn(&pool, "load_llm", "vec"));
    let ask = |form: &str| {
        let line = format!(
            r#"{{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{{"model":"vec","input":["hi"],"encoding_format":"{form}"}}}}"#
        );
        let line = until_over(&pool, &submit(&pool, &line));
        line["answer"]["body"]["data"][0]["embedding"].clone()
    };
    let (numbers, bytes) = (ask("float"), ask("base64"));
    let count = numbers.as_array().unwrap().len();
    // Four bytes a number, in groups of three.
    assert_eq!(bytes.as_str().unwrap().len(), (count * 4).div_ceil(3) * 4);
}
