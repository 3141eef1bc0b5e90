//! The worker's side of OpenAI-compatible servers, against a real llama-server, and against the
//! stand-in for Ollama, which speaks OpenAI's protocol too.

use std::fs;
use std::io::Write;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use shared::llm::{Answer, Loads};
use shared::outcome::Cause;
use shared::task::Spec;
use tests::{FakeOllama, Llama, Pool, Scripted, Signal, llama_models};
use worker::server::{Address, Again, Cancel, Failure, OpenAi, Server, Sink};

use crate::kit::steps::{log_of, quick, until_over};
use crate::servers::ollama::{GiveUpAtOnce, short, spec};

fn client(address: &str) -> OpenAi {
    OpenAi::new(Address::parse(address).unwrap(), short())
}

fn ask(server: &dyn Server, spec: &Spec) -> Result<(Answer, String), Failure> {
    let mut log = Vec::new();
    let answer = server.ask(spec, &Cancel::default(), &mut log)?;
    Ok((answer, String::from_utf8(log).unwrap()))
}

fn request(url: &str, mut body: Value) -> Spec {
    body["model"] = "tiny".into();
    spec(json!({"model": "tiny", "request": {"url": url, "body": body}}))
}

#[test]
fn a_real_llama_server_chats_and_completes() {
    let pool = Pool::new();
    let Some(llama) = Llama::start(&pool, "tiny", &[]) else { return };
    let server = client(llama.address());
    server.ping().unwrap();
    assert_eq!(server.loads(), Loads::Fixed);
    assert_eq!(server.known().unwrap(), ["tiny"]);
    assert_eq!(server.held().unwrap()[0].model, "tiny");
    server.load("tiny", &Default::default(), &Cancel::default()).unwrap();
    let missing = server.load("nope", &Default::default(), &Cancel::default()).unwrap_err();
    assert_eq!((missing.cause, missing.again), (Cause::ModelMissing, Again::Never));
    assert!(missing.message.contains("tiny"), "{missing}");
    server.canary("tiny", Duration::from_secs(20)).unwrap();

    let text =
        spec(json!({"model": "tiny", "prompt": "hi", "options": {"num_predict": 5, "seed": 1}}));
    let (answer, log) = ask(&server, &text).unwrap();
    assert_eq!((answer.text(), log.len()), (Some(log.as_str()), 5));
    assert_eq!(
        (answer.completion_tokens, &answer.body["object"]),
        (Some(5), &json!("chat.completion"))
    );
    assert!(answer.first_token_seconds.unwrap() <= answer.seconds);

    let messages = json!([{"role": "user", "content": "hi"}]);
    let body =
        json!({"model": "tiny", "messages": messages, "max_tokens": 3, "logprobs": true, "n": 1});
    let (answer, log) = ask(&server, &request("/v1/chat/completions", body)).unwrap();
    let choice = &answer.body["choices"][0];
    assert_eq!((choice["finish_reason"].as_str(), log.len()), (Some("length"), 3));
    assert_eq!(choice["logprobs"]["content"].as_array().unwrap().len(), 3);
    assert_eq!(choice["message"]["role"], "assistant");

    let body = json!({"model": "tiny", "prompt": "hi", "max_tokens": 4});
    let (answer, log) = ask(&server, &request("/v1/completions", body)).unwrap();
    assert_eq!((answer.text(), log.len()), (Some(log.as_str()), 4));
    assert_eq!(answer.body["object"], "text_completion");
    assert_eq!(answer.body["usage"]["completion_tokens"], 4);
}

#[test]
fn a_real_llama_server_refuses_with_reasons() {
    let pool = Pool::new();
    let Some(llama) = Llama::start(&pool, "tiny", &["-c", "512"]) else { return };
    let server = client(llama.address());
    let long = "x ".repeat(2000);
    for (body, words) in [
        (json!({"prompt": long}), "exceeds the available context size"),
        (json!({"prompt": "x", "max_tokens": "three"}), "max_tokens"),
    ] {
        let failure = ask(&server, &request("/v1/completions", body)).unwrap_err();
        assert_eq!((failure.cause, failure.again), (Cause::ServerError, Again::Never), "{failure}");
        assert!(failure.message.contains(words), "{failure}");
    }
    let failure = ask(&server, &request("/v1/embeddings", json!({"input": "x"}))).unwrap_err();
    assert_eq!(failure.again, Again::Never);
    assert!(failure.message.contains("does not support embeddings"), "{failure}");
}

#[test]
fn a_real_llama_server_embeds() {
    let pool = Pool::new();
    let Some(llama) = Llama::start(&pool, "tiny", &["--embeddings"]) else { return };
    let server = client(llama.address());
    server.canary("tiny", Duration::from_secs(20)).unwrap();
    let (answer, log) =
        ask(&server, &request("/v1/embeddings", json!({"input": ["a", "b"]}))).unwrap();
    let data = answer.body["data"].as_array().unwrap();
    assert_eq!((data.len(), log.as_str()), (2, ""));
    assert_eq!(data[0]["embedding"].as_array().unwrap().len(), 64);
}

#[test]
fn a_real_answer_is_given_up_and_the_server_serves_the_next() {
    let pool = Pool::new();
    let Some(llama) = Llama::start(&pool, "slow", &[]) else { return };
    let server = client(llama.address());
    let cancel = Cancel::default();
    let long = spec(json!({"model": "slow", "prompt": "hi", "options": {"num_predict": 2000}}));
    let failure = server.ask(&long, &cancel, &mut GiveUpAtOnce(cancel.clone())).unwrap_err();
    assert_eq!((failure.cause, failure.again), (Cause::Cancelled, Again::GivenUp), "{failure}");
    let short = spec(json!({"model": "slow", "prompt": "hi", "options": {"num_predict": 1}}));
    assert_eq!(ask(&server, &short).unwrap().0.completion_tokens, Some(1));
}

/// Kills a server as soon as the first text has come.
struct KillAtOnce<'a>(&'a Llama, bool);

impl Sink for KillAtOnce<'_> {}

impl Write for KillAtOnce<'_> {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        if !text.is_empty() && !self.1 {
            self.1 = true;
            self.0.process().signal(Signal::KILL);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_real_server_that_is_killed_in_the_middle_is_no_answer() {
    let pool = Pool::new();
    let Some(llama) = Llama::start(&pool, "slow", &[]) else { return };
    let server = client(llama.address());
    let long = spec(json!({"model": "slow", "prompt": "hi", "options": {"num_predict": 2000}}));
    let failure =
        server.ask(&long, &Cancel::default(), &mut KillAtOnce(&llama, false)).unwrap_err();
    assert_eq!((failure.cause, failure.again), (Cause::ServerError, Again::Maybe), "{failure}");
    assert!(server.ping().is_err());
}

#[test]
fn a_server_that_stands_still_is_given_up_by_its_silence() {
    let pool = Pool::new();
    let Some(llama) = Llama::start(&pool, "tiny", &[]) else { return };
    let server = client(llama.address());
    server.canary("tiny", Duration::from_secs(20)).unwrap();
    llama.process().stop();
    let failure = server.canary("tiny", Duration::from_millis(200)).unwrap_err();
    assert_eq!((failure.cause, failure.again), (Cause::Timeout, Again::Maybe), "{failure}");
    llama.process().cont();
    server.canary("tiny", Duration::from_secs(20)).unwrap();
}

#[test]
fn a_corrupt_model_ends_llama_server() {
    let pool = Pool::new();
    let Some((server, models)) = llama_models() else { return };
    let whole = fs::read(models.join("tiny.gguf")).unwrap();
    fs::write(pool.home().join("half.gguf"), &whole[..whole.len() / 2]).unwrap();
    let mut command = std::process::Command::new(server);
    command.current_dir(pool.home()).env("HOME", pool.home()).args([
        "-m",
        "half.gguf",
        "--port",
        "0",
    ]);
    let ran = pool.start(&mut command).end();
    let _ended = ran.code(1);
}

#[test]
fn several_requests_at_once_have_a_connection_each() {
    let pool = Pool::new();
    let fake = FakeOllama::start(
        &pool,
        json!({"models": {"tiny": {"token_seconds": 0.001}}, "parallel": 4}),
    );
    let server = client(fake.address());
    let prompt = spec(json!({"model": "tiny", "prompt": "hi", "options": {"num_predict": 3}}));
    thread::scope(|scope| {
        let asked: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| (0..5).map(|_| ask(&server, &prompt).unwrap().1).collect::<Vec<_>>())
            })
            .collect();
        let answers: Vec<String> = asked.into_iter().flat_map(|one| one.join().unwrap()).collect();
        assert_eq!(answers.len(), 40);
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    });
}

#[test]
fn the_errors_of_openais_protocol_are_understood() {
    let pool = Pool::new();
    let fake = FakeOllama::start(&pool, json!({"models": {"tiny": {}}}));
    let server = client(fake.address());
    server.ping().unwrap();
    let failure = ask(&server, &spec(json!({"model": "nope", "prompt": "hi"}))).unwrap_err();
    assert_eq!((failure.cause, failure.again), (Cause::ModelMissing, Again::Never));
    fake.set(json!({"models": {"tiny": {}}, "fault": "busy"}));
    let failure = ask(&server, &spec(json!({"model": "tiny", "prompt": "hi"}))).unwrap_err();
    assert_eq!(failure.again, Again::Later);
    fake.set(json!({"models": {"tiny": {}}, "fault": "kill_runner"}));
    let failure = ask(&server, &spec(json!({"model": "tiny", "prompt": "hi"}))).unwrap_err();
    assert_eq!((failure.cause, failure.again), (Cause::ServerError, Again::Maybe), "{failure}");
}

#[test]
fn a_prompt_has_a_log_when_its_answer_comes() {
    let pool = quick("");
    let (came, asked) = mpsc::channel();
    let (open, gate) = mpsc::channel();
    let server = Scripted::start(move |what, _body| match what {
        "GET /health" => (200, json!({"status": "ok"})),
        "GET /v1/models" => (200, json!({"data": [{"id": "tiny"}]})),
        "POST /v1/completions" => (200, json!({"choices": [{"index": 0, "text": "x"}]})),
        "POST /v1/chat/completions" => {
            came.send(()).unwrap();
            gate.recv().unwrap();
            let message = json!({"role": "assistant", "content": "ho"});
            (200, json!({"model": "tiny", "choices": [{"index": 0, "message": message}]}))
        }
        _other => (404, json!({"error": "no such path"})),
    });
    let _worker = pool.worker(&["--gpu", "0", "--openai-url", &server.address()]);
    let id = pool.queue(&["submit", "--prompt", "hi", "--model", "tiny"]).id();
    asked.recv().unwrap();
    let said = pool.queue(&["output", &id]).code(4).stderr;
    assert!(said.contains("has printed nothing yet: it is processing"), "{said}");
    open.send(()).unwrap();
    until_over(&pool, &id);
    assert_eq!(log_of(&pool, &id, 1), "ho");
    assert_eq!(pool.queue(&["output", &id]).success().stdout, "ho");
}
