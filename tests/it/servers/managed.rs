//! Servers that the worker starts itself: the stand-in for Ollama, and a real llama-server.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use shared::llm::HeldState;
use shared::outcome::Cause;
use tests::{FakeOllama, Pool, Scripted, Signal, free_port, llama_models};
use worker::server::{Again, Cancel, Key, Limits, Managed, Program, Server, Start};

use crate::servers::ollama::{short, spec};

/// How a server of this house is started.
fn start(pool: &Pool, program: PathBuf, settings: Value) -> Start {
    let file = pool.home().join("settings.json");
    fs::write(&file, settings.to_string()).unwrap();
    Start {
        program,
        port: free_port(),
        gpu: None,
        key: None,
        env: vec![("FAKE_OLLAMA".into(), file.into()), ("HOME".into(), pool.home().into())],
        log: pool.home().join("server.log"),
        mark: pool.at("worker-1"),
        grace: Duration::from_secs(10),
    }
}

fn ollama(pool: &Pool, settings: Value) -> Managed {
    let start = start(pool, tests::program("fake-ollama"), settings);
    let server = Managed::start(Program::Ollama, start, short()).unwrap();
    pool.until_true("our server to answer", || server.ping().is_ok());
    server
}

fn llama(pool: &Pool, program: PathBuf, models: &[(&str, PathBuf)]) -> Managed {
    llama_as(start(pool, program, Value::Null), models, &["-c", "512"])
}

fn llama_as(start: Start, models: &[(&str, PathBuf)], words: &[&str]) -> Managed {
    let models: BTreeMap<_, _> =
        models.iter().map(|(name, file)| ((*name).to_owned(), file.clone())).collect();
    let words = words.iter().map(Into::into).collect();
    let limits = Limits { load: Duration::from_secs(60), ..short() };
    Managed::start(Program::LlamaServer { models, words }, start, limits).unwrap()
}

fn tiny() -> shared::task::Spec {
    spec(json!({"model": "tiny", "prompt": "hi", "options": {"num_predict": 2}}))
}

/// The processes of the stand-in, its models' ones too.
fn running(pool: &Pool) -> usize {
    pool.alive().iter().filter(|one| one.command.contains("fake-ollama")).count()
}

#[test]
fn our_ollama_is_started_asked_and_ended_with_all_that_it_started() {
    let pool = Pool::new();
    let server = ollama(&pool, json!({"models": {"tiny": {}}}));
    server.load("tiny", &Default::default(), &Cancel::default()).unwrap();
    server.ask(&tiny(), &Cancel::default(), &mut Vec::new()).unwrap();
    assert_eq!(running(&pool), 2);
    server.end();
    assert_eq!(running(&pool), 0);
    let log = fs::read_to_string(pool.home().join("server.log")).unwrap();
    assert!(log.contains("Listening on 127.0.0.1:"), "{log}");
}

#[test]
fn our_ollama_comes_back_and_leaves_no_orphans() {
    let pool = Pool::new();
    let server = ollama(&pool, json!({"models": {"tiny": {}}}));
    server.load("tiny", &Default::default(), &Cancel::default()).unwrap();
    let first = server.pid().unwrap();
    let raw = rustix::process::Pid::from_raw(first.cast_signed()).unwrap();
    rustix::process::kill_process(raw, Signal::KILL).unwrap();
    pool.until_true("another server to be started", || {
        server.pid().is_some_and(|pid| pid != first)
    });
    pool.until_true("it to answer", || server.ping().is_ok());
    // The model's process was the first one's.
    assert_eq!(server.held().unwrap(), []);
    assert_eq!(running(&pool), 1);
    // One that hangs is started anew at once.
    let second = server.pid();
    assert!(server.restart());
    assert_ne!(server.pid(), second);
    pool.until_true("it to answer again", || server.ping().is_ok());
}

#[test]
fn what_a_killed_worker_left_behind_is_ended_first() {
    let pool = Pool::new();
    let mut command = pool.command("fake-ollama", &["serve"]);
    command.env("BRAINSTEM_MODEL_SERVER", pool.at("worker-1")).env("OLLAMA_HOST", "127.0.0.1:0");
    let mut left_over = pool.start(&mut command);
    let other = FakeOllama::start(&pool, json!({"models": {}}));
    let server = ollama(&pool, json!({"models": {}}));
    let _killed = left_over.end().signalled(Signal::KILL);
    assert!(other.into_process().is_running());
    drop(server);
}

#[test]
fn a_program_that_cannot_run_is_said_by_the_ping() {
    let pool = Pool::new();
    let start = start(&pool, "/no/such/ollama".into(), Value::Null);
    let server = Managed::start(Program::Ollama, start, short()).unwrap();
    let failure = server.ping().unwrap_err();
    assert!(failure.message.contains("could not start `/no/such/ollama`"), "{failure}");
}

#[test]
fn another_program_at_our_port_is_not_our_server() {
    let pool = Pool::new();
    let other = FakeOllama::start(&pool, json!({"models": {"tiny": {}}}));
    let mut start = start(&pool, tests::program("fake-ollama"), Value::Null);
    start.port = other.address().rsplit(':').next().unwrap().parse().unwrap();
    let server = Managed::start(Program::Ollama, start, short()).unwrap();
    let words = pool.until("our server to end", || server.ping().err());
    assert!(words.message.contains("bind: "), "{words}");
}

/// Our server runs and wants a key: looking again would not help, and the first look says so.
fn wants_a_key(server: &Managed) {
    let failure = server.load("tiny", &Default::default(), &Cancel::default()).unwrap_err();
    assert_eq!((failure.cause, failure.again), (Cause::Unauthorized, Again::Never), "{failure}");
    assert!(failure.message.contains("$BRAINSTEM_API_KEY"), "{failure}");
    assert_eq!((server.held().unwrap(), server.pid()), (vec![], None));
    server.end();
}

#[test]
fn a_llama_server_of_ours_that_wants_a_key_fails_its_load_at_once() {
    let pool = Pool::new();
    let refuses = Scripted::start(|what, _body| match what {
        "GET /health" => (200, json!({"status": "ok"})),
        _ => (401, json!({"error": {"message": "Invalid API Key"}})),
    });
    // Stands for the process, while the script answers at its port.
    let program = pool.home().join("llama-server");
    let job = tests::program("fake-job");
    fs::write(&program, format!("#!/bin/sh\nexec '{}' hang\n", job.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let port = refuses.address().rsplit(':').next().unwrap().parse().unwrap();
    let start = Start { port, ..start(&pool, program, Value::Null) };
    wants_a_key(&llama_as(start, &[("tiny", "/tiny.gguf".into())], &[]));
}

#[test]
fn a_real_llama_server_of_ours_with_a_key_is_loaded_by_who_has_it() {
    let pool = Pool::new();
    let Some((program, models)) = llama_models() else { return };
    let key = "sk-0123456789";
    let server = |given: Option<&str>| {
        let start = start(&pool, program.clone(), Value::Null);
        let start = Start { key: given.map(|key| Key::parse(key).unwrap()), ..start };
        llama_as(start, &[("tiny", models.join("tiny.gguf"))], &["--api-key", key])
    };
    wants_a_key(&server(None));
    wants_a_key(&server(Some("sk-wrong")));
    let server = server(Some(key));
    server.load("tiny", &Default::default(), &Cancel::default()).unwrap();
    server.canary("tiny", Duration::from_secs(20)).unwrap();
    server.end();
}

#[test]
fn our_llama_server_loads_by_being_started_and_unloads_by_being_ended() {
    let pool = Pool::new();
    let Some((program, models)) = llama_models() else { return };
    let file = |name: &str| models.join(name);
    let corrupt = pool.home().join("corrupt.gguf");
    let whole = fs::read(file("tiny.gguf")).unwrap();
    fs::write(&corrupt, &whole[..whole.len() / 2]).unwrap();
    let list = [("tiny", file("tiny.gguf")), ("slow", file("slow.gguf")), ("corrupt", corrupt)];
    let server = llama(&pool, program, &list);
    server.ping().unwrap();
    assert_eq!(server.known().unwrap(), ["corrupt", "slow", "tiny"]);
    assert_eq!((server.held().unwrap(), server.pid()), (vec![], None));
    let load = |model: &str| server.load(model, &Default::default(), &Cancel::default());
    let held = || server.held().unwrap().into_iter().map(|held| (held.model, held.state));
    let held = || held().collect::<Vec<_>>();

    load("tiny").unwrap();
    assert_eq!(held(), [("tiny".to_owned(), HeldState::Unproven)]);
    server.canary("tiny", Duration::from_secs(20)).unwrap();
    let answer = server.ask(&tiny(), &Cancel::default(), &mut Vec::new()).unwrap();
    assert_eq!(answer.completion_tokens, Some(2));
    // It would answer with whatever it has.
    let other = spec(json!({"model": "slow", "prompt": "hi"}));
    let failure = server.ask(&other, &Cancel::default(), &mut Vec::new()).unwrap_err();
    assert_eq!(failure.again, Again::Later);

    load("slow").unwrap();
    assert_eq!(held(), [("slow".to_owned(), HeldState::Unproven)]);
    server.unload("slow", &Cancel::default()).unwrap();
    assert_eq!((held(), server.pid()), (vec![], None));

    let failure = load("corrupt").unwrap_err();
    assert_eq!((failure.cause, failure.again), (Cause::ServerError, Again::Maybe));
    assert!(
        failure.message.contains("corrupt.gguf") || failure.message.contains("error"),
        "{failure}"
    );
    assert_eq!((held(), server.pid()), (vec![], None));
    assert_eq!(load("nope").unwrap_err().cause, Cause::ModelMissing);

    let cancel = Cancel::default();
    cancel.give_up();
    let failure = server.load("slow", &Default::default(), &cancel).unwrap_err();
    assert_eq!((failure.again, server.pid()), (Again::GivenUp, None));
    server.end();
}
