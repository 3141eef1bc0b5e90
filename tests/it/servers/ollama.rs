//! The worker's side of Ollama, against the stand-in for it.

use std::io::Write;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use shared::llm::{HeldState, Loads};
use shared::outcome::Cause;
use shared::task::{Spec, parse_spec};
use tests::{FakeOllama, Pool, Signal};
use worker::server::{Address, Again, Cancel, Failure, Limits, Ollama, Server, Sink};

/// Limits in which what never ends is given up soon.
pub(crate) fn short() -> Limits {
    Limits { answer: 4 * 1024 * 1024, ..Limits::default() }
}

fn client(fake: &FakeOllama) -> Ollama {
    Ollama::new(Address::parse(fake.address()).unwrap(), short())
}

pub(crate) fn spec(spec: Value) -> Spec {
    parse_spec(spec.to_string().as_bytes()).unwrap()
}

fn hi() -> Spec {
    spec(json!({"model": "tiny", "prompt": "hi", "options": {"num_predict": 3}}))
}

fn ask(server: &dyn Server, spec: &Spec) -> Result<(shared::llm::Answer, String), Failure> {
    let mut log = Vec::new();
    let answer = server.ask(spec, &Cancel::default(), &mut log)?;
    Ok((answer, String::from_utf8(log).unwrap()))
}

/// Gives a call up as soon as the first text has come.
pub(crate) struct GiveUpAtOnce(pub(crate) Cancel);

impl Sink for GiveUpAtOnce {}

impl Write for GiveUpAtOnce {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        if !text.is_empty() {
            let cancel = self.0.clone();
            thread::spawn(move || cancel.give_up());
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_model_is_loaded_asked_and_unloaded() {
    let pool = Pool::new();
    let fake = FakeOllama::start(&pool, json!({"models": {"tiny": {"size": 100, "vram": 60}}}));
    let server = client(&fake);
    server.ping().unwrap();
    assert_eq!(server.loads(), Loads::OnRequest);
    assert_eq!(server.known().unwrap(), ["tiny:latest"]);
    assert_eq!(server.held().unwrap(), []);
    let options = json!({"num_ctx": 512, "num_thread": 1});
    server.load("tiny", options.as_object().unwrap(), &Cancel::default()).unwrap();
    let held = server.held().unwrap();
    assert_eq!((held[0].model.as_str(), held[0].state), ("tiny:latest", HeldState::Unproven));
    assert_eq!(held[0].size.map(|size| size.0), Some(100));
    assert_eq!(held[0].vram.map(|size| size.0), Some(60));
    server.canary("tiny", Duration::from_secs(20)).unwrap();

    let (answer, log) = ask(&server, &hi()).unwrap();
    assert_eq!(answer.text(), Some(log.as_str()));
    assert_eq!(answer.completion_tokens, Some(3));
    assert_eq!(answer.body["choices"][0]["finish_reason"], "length");
    // Neither the canary nor the prompt made it load anew.
    assert_eq!(answer.load_seconds, Some(0.0));
    for body in fake.bodies("/api/generate") {
        assert_eq!(body["keep_alive"], -1, "{body}");
        assert_eq!(
            (&body["options"]["num_ctx"], &body["options"]["num_thread"]),
            (&json!(512), &json!(1))
        );
    }

    server.unload("tiny", &Cancel::default()).unwrap();
    assert_eq!(server.held().unwrap(), []);
    // One that is gone is gone already.
    server.unload("tiny", &Cancel::default()).unwrap();
    server.unload("nobody", &Cancel::default()).unwrap();
}

#[test]
fn every_shape_of_a_question_has_its_answer() {
    let pool = Pool::new();
    let models = json!({"tiny": {"tokens": 2}, "embed": {"embeds": true}});
    let fake = FakeOllama::start(&pool, json!({"models": models}));
    let server = client(&fake);
    let messages = json!([{"role": "user", "content": "hi"}]);
    let chat = spec(json!({"model": "tiny", "messages": messages, "system": "s"}));
    let (answer, log) = ask(&server, &chat).unwrap();
    assert_eq!(
        (&answer.body["object"], answer.text()),
        (&json!("chat.completion"), Some(log.as_str()))
    );
    assert_eq!(answer.body["choices"][0]["finish_reason"], "stop");

    let request = |model: &str, url: &str, body: Value| {
        spec(json!({"model": model, "request": {"url": url, "body": body}}))
    };
    let body = json!({"model": "tiny", "messages": messages, "max_tokens": 1});
    let (answer, _log) = ask(&server, &request("tiny", "/v1/chat/completions", body)).unwrap();
    assert_eq!(answer.body["usage"]["completion_tokens"], 1);
    let body = json!({"model": "tiny", "prompt": "hi"});
    let (answer, _log) = ask(&server, &request("tiny", "/v1/completions", body)).unwrap();
    assert_eq!(answer.body["object"], "text_completion");

    let body = json!({"model": "embed", "input": ["a", "b"]});
    let (answer, log) = ask(&server, &request("embed", "/v1/embeddings", body)).unwrap();
    assert_eq!((answer.body["data"].as_array().unwrap().len(), log.as_str()), (2, ""));
    // A model that only embeds is loaded and proven all the same.
    server.load("embed", &Default::default(), &Cancel::default()).unwrap();
    server.canary("embed", Duration::from_secs(20)).unwrap();
    server.unload("embed", &Cancel::default()).unwrap();
}

#[test]
fn what_is_asked_in_vain_says_why() {
    let pool = Pool::new();
    let settings = |more: Value| {
        let models = json!({"tiny": {"context": 16}, "corrupt": {"load_fault": "die"},
                            "large": {"load_fault": "oom"}, "slow": {"load_fault": "stall"}});
        let mut settings = json!({"models": models});
        settings["fault"] = more;
        settings
    };
    let fake = FakeOllama::start(&pool, settings(Value::Null));
    let server = client(&fake);
    let load =
        |model: &str| server.load(model, &Default::default(), &Cancel::default()).unwrap_err();
    let told = |failure: &Failure| (failure.cause, failure.again);
    assert_eq!(told(&load("nope")), (Cause::ModelMissing, Again::Never));
    assert_eq!(told(&load("corrupt")), (Cause::ServerError, Again::Maybe));
    assert_eq!(told(&load("large")), (Cause::Oom, Again::Maybe));
    assert_eq!(told(&load("slow")), (Cause::Timeout, Again::Maybe));

    let long = "a long prompt ".repeat(40);
    let failure = ask(&server, &spec(json!({"model": "tiny", "prompt": long}))).unwrap_err();
    assert_eq!(told(&failure), (Cause::ServerError, Again::Never));
    assert!(failure.message.contains("exceeds the available context size"), "{failure}");
    let odd = spec(json!({"model": "tiny", "prompt": "x", "options": {"num_predict": "all"}}));
    let failure = ask(&server, &odd).unwrap_err();
    assert_eq!(told(&failure), (Cause::ServerError, Again::Never));
    assert!(failure.message.starts_with(fake.address()), "{failure}");

    fake.set(settings(json!("busy")));
    assert_eq!(told(&ask(&server, &hi()).unwrap_err()), (Cause::ServerError, Again::Later));
}

#[test]
fn what_is_no_answer_is_an_error_with_the_address_and_what_came() {
    let pool = Pool::new();
    let fake = FakeOllama::start(&pool, json!({"models": {"tiny": {}}}));
    let server = client(&fake);
    for (fault, words) in [
        ("html", "not JSON: `<html><body>It works!"),
        ("half_line", "in the middle of a line: `{\"model\":\"tiny\""),
        ("no_done", "the answer has no end"),
        ("cut", "broke off"),
        ("long_line", "a line of more than 1048576 bytes, which begins `{\"response\":\"xxx"),
        ("endless", "more than 4194304 bytes"),
        ("kill_runner", "unexpected EOF"),
    ] {
        fake.set(json!({"models": {"tiny": {}}, "fault": fault}));
        let plain = spec(json!({"model": "tiny", "prompt": "hi"}));
        let failure = ask(&server, &plain).unwrap_err();
        assert_eq!((failure.cause, failure.again), (Cause::ServerError, Again::Maybe), "{fault}");
        assert!(failure.message.contains(words), "{fault}: {failure}");
        assert!(failure.message.starts_with(fake.address()), "{fault}: {failure}");
    }
    fake.set(json!({"models": {"tiny": {}}, "fault": "bad_utf8"}));
    assert_eq!(ask(&server, &hi()).unwrap().1, "a\u{fffd}\u{fffd}b");
    // None of it left anything behind.
    fake.set(json!({"models": {"tiny": {}}}));
    ask(&server, &hi()).unwrap();
}

#[test]
fn a_dead_runner_is_still_listed_and_is_replaced_by_the_next_request() {
    let pool = Pool::new();
    let fake = FakeOllama::start(&pool, json!({"models": {"tiny": {}}, "fault": "kill_runner"}));
    let server = client(&fake);
    server.load("tiny", &Default::default(), &Cancel::default()).unwrap();
    ask(&server, &spec(json!({"model": "tiny", "prompt": "hi"}))).unwrap_err();
    assert_eq!(server.held().unwrap().len(), 1);
    fake.set(json!({"models": {"tiny": {}}}));
    let (answer, _log) = ask(&server, &hi()).unwrap();
    assert!(answer.load_seconds > Some(0.0), "{answer:?}");
}

#[test]
fn an_answer_is_given_up_from_another_thread_and_the_server_is_free_again() {
    let pool = Pool::new();
    let settings = json!({"models": {"tiny": {"tokens": 1_000_000, "token_seconds": 0.01}}});
    let fake = FakeOllama::start(&pool, settings);
    let server = client(&fake);
    let cancel = Cancel::default();
    let long = spec(json!({"model": "tiny", "prompt": "hi"}));
    let failure = server.ask(&long, &cancel, &mut GiveUpAtOnce(cancel.clone())).unwrap_err();
    assert_eq!((failure.cause, failure.again), (Cause::Cancelled, Again::GivenUp), "{failure}");
    // One request at a time is served: this one would wait for ever.
    ask(&server, &hi()).unwrap();
    // What was given up stays so.
    let failure = server.ask(&hi(), &cancel, &mut Vec::new()).unwrap_err();
    assert_eq!(failure.again, Again::GivenUp);
}

#[test]
fn a_load_that_is_given_up_does_not_happen() {
    let pool = Pool::new();
    let fake = FakeOllama::start(&pool, json!({"models": {"tiny": {"load_seconds": 1000.0}}}));
    let server = client(&fake);
    let cancel = Cancel::default();
    thread::scope(|scope| {
        let load = scope.spawn(|| server.load("tiny", &Default::default(), &cancel));
        pool.until_true("the load to begin", || fake.bodies("/api/generate").len() == 1);
        cancel.give_up();
        assert_eq!(load.join().unwrap().unwrap_err().again, Again::GivenUp);
    });
    assert_eq!(server.held().unwrap(), []);
}

#[test]
fn a_wedged_server_answers_pings_and_no_canary() {
    let pool = Pool::new();
    let fake = FakeOllama::start(&pool, json!({"models": {"tiny": {}}, "fault": "wedge"}));
    let server = client(&fake);
    server.load("tiny", &Default::default(), &Cancel::default()).unwrap();
    server.ping().unwrap();
    let failure = server.canary("tiny", Duration::from_millis(200)).unwrap_err();
    assert_eq!(failure.cause, Cause::Timeout);
    assert!(failure.message.contains("nothing came for 0.2 s"), "{failure}");
}

#[test]
fn a_server_that_is_gone_or_comes_back_is_noticed() {
    let pool = Pool::new();
    let fake = FakeOllama::start(
        &pool,
        json!({"models": {"tiny": {"tokens": 1_000_000, "token_seconds": 0.01}}}),
    );
    let server = client(&fake);
    server.ping().unwrap();
    // Killed in the middle of an answer.
    struct KillAtOnce<'a>(&'a FakeOllama);
    impl Sink for KillAtOnce<'_> {}

    impl Write for KillAtOnce<'_> {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            if !text.is_empty() && self.0.process().pid() > 0 {
                self.0.process().signal(Signal::KILL);
            }
            Ok(text.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let long = spec(json!({"model": "tiny", "prompt": "hi"}));
    let failure = server.ask(&long, &Cancel::default(), &mut KillAtOnce(&fake)).unwrap_err();
    assert_eq!((failure.cause, failure.again), (Cause::ServerError, Again::Maybe), "{failure}");
    let failure = server.ping().unwrap_err();
    assert_eq!((failure.cause, failure.again), (Cause::ServerError, Again::Maybe));
    assert!(failure.message.starts_with(fake.address()), "{failure}");
}
