//! The servers that load by words of their own, as their manuals and sources have them: llama-server
//! as a router, llama-swap, vLLM with sleep mode.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use shared::llm::{HeldState, Loads};
use shared::outcome::Cause;
use tests::Scripted;
use worker::server::{Address, Again, Cancel, OpenAi, Server};

use crate::servers::ollama::short;

/// What was asked, in order.
type Asked = Arc<Mutex<Vec<String>>>;

fn client(server: &Scripted) -> OpenAi {
    OpenAi::new(Address::parse(&server.address()).unwrap(), short())
}

fn load(server: &OpenAi, model: &str) -> Result<(), worker::server::Failure> {
    server.load(model, &Default::default(), &Cancel::default())
}

fn held(server: &OpenAi) -> Vec<(String, HeldState)> {
    server.held().unwrap().into_iter().map(|held| (held.model, held.state)).collect()
}

fn error(status: u16, message: &str) -> (u16, Value) {
    (
        status,
        json!({"error": {"code": status, "message": message, "type": "invalid_request_error"}}),
    )
}

/// A router: a load takes two looks; `b` never gets there, and `c` was seen by nobody to try.
fn router(looks: &mut u32, value: &mut &'static str, what: &str, body: &Value) -> (u16, Value) {
    match what {
        "GET /health" => (200, json!({"status": "ok"})),
        "GET /models" | "GET /v1/models" => {
            *looks += 1;
            if *value == "loading" && *looks > 2 {
                *value = "loaded";
            }
            let failed = json!({"value": "unloaded", "failed": true, "exit_code": 1});
            let models = json!([
                {"id": "a", "status": {"value": *value}},
                {"id": "c", "status": failed},
                {"id": "b", "status": if *looks == 1 && *value == "b" { json!({"value": "loading"}) } else { failed }},
            ]);
            (200, json!({"data": models, "object": "list"}))
        }
        "POST /models/load" if body["model"] == "a" && *value == "loaded" => {
            error(400, "model is already running")
        }
        "POST /models/load" if body["model"] == "a" => {
            (*looks, *value) = (0, "loading");
            (200, json!({"success": true}))
        }
        "POST /models/load" if body["model"] == "b" => {
            (*looks, *value) = (0, "b");
            (200, json!({"success": true}))
        }
        "POST /models/load" if body["model"] == "c" => (200, json!({"success": true})),
        "POST /models/load" => error(404, "File Not Found"),
        "POST /models/unload" if *value == "loaded" => {
            *value = "unloaded";
            (200, json!({"success": true}))
        }
        "POST /models/unload" => error(400, "model is not running"),
        _ => error(404, "File Not Found"),
    }
}

#[test]
fn a_router_of_llama_server_loads_and_unloads() {
    let (mut looks, mut value) = (0, "unloaded");
    let router_looks = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&router_looks);
    let script = Scripted::start(move |what, body| {
        if body["model"] == "c" {
            counted.store(0, Ordering::Relaxed);
        }
        counted.fetch_add(1, Ordering::Relaxed);
        router(&mut looks, &mut value, what, body)
    });
    let server = client(&script);
    assert_eq!(server.loads(), Loads::Fixed);
    server.ping().unwrap();
    assert_eq!(server.loads(), Loads::OnRequest);
    assert_eq!(server.known().unwrap(), ["a", "c", "b"]);
    assert_eq!(held(&server), []);
    load(&server, "a").unwrap();
    assert_eq!(held(&server), [("a".to_owned(), HeldState::Unproven)]);
    load(&server, "a").unwrap();
    server.unload("a", &Cancel::default()).unwrap();
    server.unload("a", &Cancel::default()).unwrap();
    assert_eq!(held(&server), []);
    let missing = load(&server, "d").unwrap_err();
    assert_eq!((missing.cause, missing.again), (Cause::ModelMissing, Again::Never));
    let failed = load(&server, "b").unwrap_err();
    assert_eq!((failed.cause, failed.again), (Cause::ServerError, Again::Maybe));
    assert!(failed.message.contains("ended with 1"), "{failed}");
    let failed = load(&server, "c").unwrap_err();
    assert_eq!((failed.cause, failed.again), (Cause::ServerError, Again::Maybe));
    // It says so itself: nobody waits in case that something comes of it.
    assert!(router_looks.load(Ordering::Relaxed) < 20);
}

#[test]
fn llama_swap_loads_by_being_asked_for_the_model() {
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let mut running: Option<&str> = None;
    let script = Scripted::start(move |what, _body| {
        if what != "GET /running" {
            seen.lock().unwrap().push(what.to_owned());
        }
        match what {
            "GET /health" => (200, json!("OK")),
            "GET /v1/models" => (200, json!({"data": [{"id": "org/a:7b"}]})),
            "GET /running" => {
                let one = |model| json!([{"model": model, "state": "ready"}]);
                (200, json!({"running": running.map_or(json!([]), one)}))
            }
            "GET /upstream/org/a:7b/health" => {
                running = Some("org/a:7b");
                (200, json!({"status": "ok"}))
            }
            "POST /api/models/unload/org/a:7b" => {
                running = None;
                (200, Value::Null)
            }
            _ => error(404, "not found"),
        }
    });
    let server = client(&script);
    server.ping().unwrap();
    assert_eq!(server.loads(), Loads::OnRequest);
    load(&server, "org/a:7b").unwrap();
    assert_eq!(held(&server), [("org/a:7b".to_owned(), HeldState::Unproven)]);
    server.unload("org/a:7b", &Cancel::default()).unwrap();
    assert_eq!(held(&server), []);
    assert!(load(&server, "nope").is_err());
    let asked = asked.lock().unwrap();
    assert!(asked.contains(&"POST /api/models/unload/org/a:7b".to_owned()), "{asked:?}");
}

#[test]
fn vllm_with_sleep_mode_is_put_to_sleep_and_woken() {
    let mut is_sleeping = false;
    let script = Scripted::start(move |what, _body| match what {
        "GET /health" => (200, Value::Null),
        "GET /v1/models" => (200, json!({"data": [{"id": "a"}]})),
        "GET /is_sleeping" => (200, json!({"is_sleeping": is_sleeping})),
        "POST /sleep?level=1" => {
            is_sleeping = true;
            (200, Value::Null)
        }
        "POST /wake_up" => {
            is_sleeping = false;
            (200, Value::Null)
        }
        _ => error(404, "Not Found"),
    });
    let server = client(&script);
    server.ping().unwrap();
    assert_eq!(server.loads(), Loads::OnRequest);
    assert_eq!(held(&server), [("a".to_owned(), HeldState::Unproven)]);
    server.unload("a", &Cancel::default()).unwrap();
    assert_eq!(held(&server), []);
    load(&server, "a").unwrap();
    assert_eq!(held(&server), [("a".to_owned(), HeldState::Unproven)]);
    assert_eq!(load(&server, "b").unwrap_err().cause, Cause::ModelMissing);
}

#[test]
fn a_server_that_still_loads_answers_and_holds_nothing_yet() {
    let mut looks = 0;
    let script = Scripted::start(move |what, _body| match what {
        "GET /health" => {
            looks += 1;
            let loading = json!({"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}});
            if looks < 3 { (503, loading) } else { (200, json!({"status": "ok"})) }
        }
        "GET /v1/models" => (200, json!({"data": [{"id": "a", "owned_by": "llamacpp"}]})),
        _ => error(404, "File Not Found"),
    });
    let server = client(&script);
    server.ping().unwrap();
    assert_eq!(held(&server), []);
    assert_eq!(held(&server), [("a".to_owned(), HeldState::Unproven)]);
    assert_eq!(server.loads(), Loads::Fixed);
    // It holds what it was started with, and says so.
    let failure = server.unload("a", &Cancel::default()).unwrap_err();
    assert_eq!(failure.again, Again::Never);
    server.unload("b", &Cancel::default()).unwrap();
}

#[test]
fn a_dead_server_behind_a_living_server_is_down() {
    let script = Scripted::start(|what, _body| match what {
        "GET /health" => (503, Value::Null),
        // The list is as it was.
        "GET /v1/models" => (200, json!({"data": [{"id": "a", "owned_by": "vllm"}]})),
        "GET /running" | "GET /models" | "GET /is_sleeping" => (404, Value::Null),
        _ => (500, json!({"error": {"message": "EngineCore encountered an issue"}})),
    });
    let server = client(&script);
    assert!(server.ping().is_err() && server.held().is_err());
    let failure = server.canary("a", Duration::from_secs(20)).unwrap_err();
    assert_eq!((failure.cause, failure.again), (Cause::ServerError, Again::Maybe));
}
