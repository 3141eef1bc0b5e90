//! The stand-in for Ollama is as good as what the official clients make of it: they are put to work
//! on it, and see what they were seen to see of a real one.

use std::fs;

use serde_json::{Value, json};
use tests::{FakeOllama, Pool, client_python};

/// What the clients made of the answers of the server at this address. `None` where there are none.
pub(crate) fn seen_by_clients(pool: &Pool, address: &str) -> Option<Value> {
    let python = client_python()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/llm/clients.py");
    let mut command = pool.foreign(python.to_str().unwrap(), &[script, address]);
    // Nothing is written beside the script.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let ran = pool.start(&mut command).end().success();
    Some(serde_json::from_str(&ran.stdout).unwrap())
}

/// As a real Ollama 0.33 was seen to answer.
pub(crate) fn recorded() -> Value {
    let length = json!([true, "length", 3]);
    json!({
        "ollama": {
            "list": ["tiny:latest"], "load": "load", "ps": ["tiny:latest"],
            "generate": length, "chat": length, "show": "gguf",
            "refused": {
                "generate": ["ResponseError", 404, "model 'nope' not found (status code: 404)"],
                "show": ["ResponseError", 404, "model 'nope:latest' not found (status code: 404)"],
                "embed": ["ResponseError", 501],
                "option": ["ResponseError", 500],
                // A line inside an answer that began well.
                "pull": ["ResponseError", -1],
                "nobody": ["ConnectionError"],
            },
            "unload": "unload", "ps after": [],
        },
        "openai": {
            "list": ["tiny:latest"], "chat": ["length", 3], "stream": ["length"],
            "completion": ["text_completion", "length"], "refused": ["NotFoundError", 404],
        },
    })
}

#[test]
fn the_official_clients_see_an_ollama_in_the_stand_in() {
    let pool = Pool::new();
    let fake = FakeOllama::start(&pool, json!({"models": {"tiny": {}}}));
    let Some(seen) = seen_by_clients(&pool, fake.address()) else { return };
    assert_eq!(seen, recorded());
}

/// Each check of the script is one that a server can fail.
#[test]
fn the_official_clients_notice_a_stand_in_that_misbehaves() {
    let Some(python) = client_python() else { return };
    let pool = Pool::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/llm/clients.py");
    for fault in ["html", "no_done", "kill_runner"] {
        let name = format!("faulty-{fault}");
        let settings = json!({"models": {"tiny": {}}, "fault": fault});
        let fake = FakeOllama::named(&pool, &name, settings);
        let mut command = pool.foreign(python.to_str().unwrap(), &[script, fake.address()]);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let ran = pool.start(&mut command).end();
        let same = serde_json::from_str::<Value>(&ran.stdout).is_ok_and(|seen| seen == recorded());
        assert!(!same, "{fault}: {ran}");
    }
    let kept = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/llm")).unwrap();
    assert!(kept.flatten().all(|entry| entry.file_name() != "__pycache__"));
}
