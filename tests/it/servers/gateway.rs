//! A gateway: one address, many models behind it, each question to one of them paid for. The
//! stand-in answers as LiteLLM's proxy does.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tests::{Pool, Proc, Scripted};

use crate::kit::steps::{quick, until_over};
use crate::servers::models::{SOON, server};

/// What was asked, in order: the request, and the model that it was for.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// What a model says when it is asked.
type Says = fn(model: &str) -> (u16, Value);

/// A gateway in front of fifteen models.
struct Gateway {
    script: Scripted,
    seen: Seen,
}

impl Gateway {
    fn start(says: Says) -> Self {
        let seen = Seen::default();
        let noted = Arc::clone(&seen);
        let script = Scripted::start(move |what, body| {
            let model = body["model"].as_str().unwrap_or_default();
            noted.lock().unwrap().push((what.to_owned(), model.to_owned()));
            let models = (0..15).map(|n| json!({"id": format!("m{n}"), "owned_by": "openai"}));
            match what {
                // It asks all fifteen.
                "GET /health" => (200, json!({"healthy_count": 15, "unhealthy_count": 0})),
                "GET /v1/models" | "GET /models" => {
                    (200, json!({"object": "list", "data": models.collect::<Vec<_>>()}))
                }
                "POST /v1/chat/completions" | "POST /v1/completions" => says(model),
                _ => (404, json!({"detail": "Not Found"})),
            }
        });
        Self { script, seen }
    }

    /// Which models were asked anything.
    fn asked(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let posts = seen.iter().filter(|(what, _model)| what.starts_with("POST"));
        posts.map(|(_what, model)| model.clone()).collect()
    }

    fn was_asked_for_its_health(&self) -> bool {
        self.seen.lock().unwrap().iter().any(|(what, _model)| what.starts_with("GET /health"))
    }

    fn looks(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(what, _model)| what == "GET /v1/models").count()
    }

    fn worker(&self, pool: &Pool) -> Proc {
        let worker = pool.worker(&["--gpu", "0", "--openai-url", &self.script.address()]);
        pool.until_event("worker-worker-0", "server.up");
        worker
    }
}

fn hello(_model: &str) -> (u16, Value) {
    let choice = json!({"index": 0, "text": "ho", "message": {"role": "assistant", "content": "ho"},
                        "finish_reason": "stop"});
    (200, json!({"model": "x", "choices": [choice]}))
}

fn prompt(pool: &Pool, model: &str) -> String {
    pool.queue(&["submit", "--model", model, "--prompt", "hi"]).id()
}

#[test]
fn no_model_of_a_gateway_is_asked_anything_because_a_list_names_it() {
    let pool = quick(SOON);
    let gateway = Gateway::start(hello);
    let _worker = gateway.worker(&pool);
    let before = gateway.looks();
    pool.until_true("some more looks", || gateway.looks() > before + 6);
    assert_eq!(gateway.asked(), [""; 0]);
    assert!(!gateway.was_asked_for_its_health());
    assert_eq!(until_over(&pool, &prompt(&pool, "m3"))["outcome"], "succeeded");
    assert_eq!(gateway.asked(), ["m3", "m3"], "a sign of life, and the prompt");
}

#[test]
fn a_model_that_fails_is_that_models_failure() {
    let pool = quick(SOON);
    let gateway = Gateway::start(|model| match model {
        "m7" => (500, json!({"error": {"message": "AnthropicException - no credit left"}})),
        model => hello(model),
    });
    let _worker = gateway.worker(&pool);
    let (dead, good) = (prompt(&pool, "m7"), prompt(&pool, "m1"));
    assert_eq!(until_over(&pool, &good)["outcome"], "succeeded");
    let asked = || gateway.asked().iter().filter(|model| *model == "m7").count();
    pool.until_true("it to be asked again", || asked() > 2);
    assert_eq!(server(&pool)["health"], "up");
    let why = pool.until("`why` to say so", || {
        let why = pool.queue(&["why", &dead, "--json"]).code(5).json();
        (why["reasons"][0]["code"] == "model.silent").then_some(why)
    });
    let text = why["reasons"][0]["text"].as_str().unwrap();
    assert!(text.contains("no credit left") && text.contains("status 500"), "{text}");
    assert_eq!(until_over(&pool, &prompt(&pool, "m2"))["outcome"], "succeeded");
}

/// What a gateway has no time for keeps nothing else from it.
#[test]
fn a_model_that_has_no_time_is_left_alone_and_others_are_asked() {
    let pool = quick(SOON);
    let gateway = Gateway::start(|model| match model {
        "m7" => (429, json!({"error": {"message": "Rate limit reached for m7"}})),
        model => hello(model),
    });
    let _worker = gateway.worker(&pool);
    let ids = [(); 4].map(|()| prompt(&pool, "m7"));
    for id in &ids {
        let why = pool.until("`why` to say so", || {
            let why = pool.queue(&["why", id, "--json"]).json();
            (why["reasons"][0]["code"] == "server.busy").then_some(why)
        });
        assert!(
            why["reasons"][0]["text"].as_str().unwrap().contains("Rate limit reached"),
            "{why}"
        );
    }
    assert_eq!(until_over(&pool, &prompt(&pool, "m1"))["outcome"], "succeeded");
    pool.until_event("worker-worker-0", "server.busy");
    let asked = gateway.asked().iter().filter(|model| *model == "m7").count();
    assert_eq!(asked, 3, "one for all that wait, after 1 s and after 2 s");
}
