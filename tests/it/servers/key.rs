//! Servers that ask for a key: sent with every request, shown nowhere, and what a wrong one means.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::{Value, json};
use shared::outcome::Cause;
use tests::{Asked, Llama, Pool, Scripted};
use worker::server::{Address, Again, Cancel, Key, OpenAi, Server};

use crate::kit::steps::{quick, until_over};
use crate::servers::ollama::{short, spec};

const KEY: &str = "sk-0123456789";

type Seen = Arc<Mutex<Vec<Asked>>>;

/// A server with one model that wants [`KEY`], and repeats every other one in its refusal.
fn server(seen: &Seen) -> Scripted {
    let seen = Arc::clone(seen);
    Scripted::start_asked(move |asked| {
        seen.lock().unwrap().push(asked.clone());
        if asked.what == "GET /health" {
            return (200, json!({"status": "ok"}));
        }
        match asked.authorization.as_deref() {
            Some(key) if key == format!("Bearer {KEY}") => answer(&asked.what),
            other => {
                let message = format!("Incorrect API key provided: {}", other.unwrap_or("none"));
                (401, json!({"error": {"message": message, "type": "invalid_request_error"}}))
            }
        }
    })
}

fn answer(what: &str) -> (u16, Value) {
    let choice =
        json!({"index": 0, "text": "ho", "message": {"role": "assistant", "content": "ho"}});
    match what {
        "GET /v1/models" => (200, json!({"data": [{"id": "tiny"}]})),
        "POST /v1/chat/completions" | "POST /v1/completions" => {
            (200, json!({"model": "tiny", "choices": [choice]}))
        }
        _ => (404, json!({"error": "no such path"})),
    }
}

fn client(server: &Scripted, key: Option<&str>) -> OpenAi {
    let address = Address::parse(&server.address()).unwrap();
    OpenAi::new(address, short()).with_key(key.map(|key| Key::parse(key).unwrap()))
}

#[test]
fn the_key_goes_with_every_request() {
    let seen = Seen::default();
    let server = server(&seen);
    let client = client(&server, Some(KEY));
    client.ping().unwrap();
    assert_eq!(client.known().unwrap(), ["tiny"]);
    assert_eq!(client.held().unwrap()[0].model, "tiny");
    client.canary("tiny", Duration::from_secs(5)).unwrap();
    let prompt = spec(json!({"model": "tiny", "prompt": "hi"}));
    let answer = client.ask(&prompt, &Cancel::default(), &mut Vec::new()).unwrap();
    assert_eq!(answer.text(), Some("ho"));
    let seen = seen.lock().unwrap();
    let asked: Vec<&str> = seen.iter().map(|asked| asked.what.as_str()).collect();
    for what in ["GET /v1/models", "POST /v1/completions", "POST /v1/chat/completions"] {
        assert!(asked.contains(&what), "{asked:?}");
    }
    let bearer = format!("Bearer {KEY}");
    assert!(seen.iter().all(|asked| asked.authorization.as_ref() == Some(&bearer)), "{seen:?}");
    assert!(!format!("{client:?}").contains(KEY), "{client:?}");
}

#[test]
fn a_wrong_key_and_none_are_no_use_to_try_again_and_say_what_to_do() {
    let seen = Seen::default();
    let server = server(&seen);
    let prompt = spec(json!({"model": "tiny", "prompt": "hi"}));
    for (key, wants) in [(None, "wants a key"), (Some("sk-wrong"), "wants another key")] {
        let client = client(&server, key);
        let asked = client.ask(&prompt, &Cancel::default(), &mut Vec::new()).unwrap_err();
        for failure in [asked, client.ping().unwrap_err(), client.held().unwrap_err()] {
            assert_eq!((failure.cause, failure.again), (Cause::Unauthorized, Again::Never));
            let message = failure.message;
            assert!(message.contains(wants) && message.contains("status 401"), "{message}");
            assert!(message.contains("$BRAINSTEM_API_KEY"), "{message}");
            assert!(!message.contains("sk-wrong"), "{message}");
        }
    }
}

/// What servers say in the middle of an answer, or instead of one.
fn repeating() -> [Value; 6] {
    let cut = format!("<html>{} Incorrect API key provided: {KEY}", "-".repeat(75));
    let far = format!("{}{KEY}", " ".repeat(470));
    [
        json!({"error": {"message": format!("bad key {KEY}")}}),
        json!({"error": {"at": "-".repeat(94), "key": KEY}}),
        json!(format!("data: {{\"error\": \"bad key {KEY}\"}}\n\n")),
        json!(format!("Incorrect API key provided: {KEY}\n")),
        json!(format!("data: {cut}\n\n")),
        json!(far),
    ]
}

#[test]
fn a_key_that_is_repeated_in_an_answer_is_not_shown_not_even_its_beginning() {
    let shows = |message: &str| message.contains(&KEY[..4]);
    for said in repeating() {
        let told = said.clone();
        let server = Scripted::start(move |what, _body| match what {
            "GET /health" => (200, json!({"status": "ok"})),
            _ => (200, told.clone()),
        });
        let client = client(&server, Some(KEY));
        let prompt = spec(json!({"model": "tiny", "prompt": "hi"}));
        let asked = client.ask(&prompt, &Cancel::default(), &mut Vec::new()).unwrap_err();
        assert!(!shows(&asked.message) && asked.message.contains("[the key]"), "{asked}");
        let canary = client.canary("tiny", Duration::from_secs(5)).unwrap_err();
        assert!(!shows(&canary.message), "{canary}");
        for failure in [client.known().err(), client.held().err(), client.ping().err()] {
            assert!(failure.is_none_or(|failure| !shows(&failure.message)), "{said}");
        }
    }
}

#[test]
fn a_key_that_is_repeated_in_an_answer_comes_into_no_file() {
    let pool = quick("server_poll = \"100ms\"\nmax_attempts = 1");
    pool.env("BRAINSTEM_API_KEY", KEY);
    let mut said = repeating().into_iter();
    let server = Scripted::start(move |what, _body| match what {
        "POST /v1/chat/completions" => (200, said.next().unwrap()),
        "GET /health" => (200, json!({"status": "ok"})),
        what => answer(what),
    });
    let _worker = pool.worker(&["--verbose", "--gpu", "0", "--openai-url", &server.address()]);
    for _ in repeating() {
        let id = pool.queue(&["submit", "--model", "tiny", "--prompt", "hi"]).id();
        let last = until_over(&pool, &id);
        assert!(last["error_message"].as_str().unwrap().contains("[the key]"), "{last}");
        assert!(crate::kit::steps::log_of(&pool, &id, 1).contains("[the key]"));
    }
    assert_eq!(holding(&pool, &KEY[..4]), Vec::<String>::new());
}

/// What a real server refuses, and what it tells everybody.
#[test]
fn a_real_llama_server_asks_for_its_key() {
    let pool = Pool::new();
    let Some(llama) = Llama::start(&pool, "tiny", &["--api-key", KEY]) else { return };
    let address = || Address::parse(llama.address()).unwrap();
    let with = OpenAi::new(address(), short()).with_key(Some(Key::parse(KEY).unwrap()));
    with.ping().unwrap();
    assert_eq!(with.held().unwrap()[0].model, "tiny");
    with.canary("tiny", Duration::from_secs(20)).unwrap();
    let without = OpenAi::new(address(), short());
    for failure in [without.ping(), without.canary("tiny", Duration::from_secs(20)).map(drop)] {
        let failure = failure.unwrap_err();
        assert_eq!((failure.cause, failure.again), (Cause::Unauthorized, Again::Never));
    }
}

/// Every file of the pool that holds a text.
fn holding(pool: &Pool, text: &str) -> Vec<String> {
    let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let files = pool.files_in("").into_iter().filter(|file| {
        let meta = std::fs::symlink_metadata(file);
        meta.is_ok_and(|meta| meta.is_file() && meta.len() < 1 << 20)
    });
    let files = files.filter(|file| std::fs::read(file).is_ok_and(|bytes| holds(&bytes)));
    files.map(|file| file.display().to_string()).collect()
}

#[test]
fn workers_of_the_brain_have_the_key_and_show_it_nowhere() {
    let pool = quick("server_poll = \"100ms\"");
    let server = server(&Seen::default());
    pool.env("BRAINSTEM_API_KEY", KEY);
    let address = server.address();
    let brain = pool.brain(&["--verbose", "--gpus", "0,1", "--openai-url", &address]);
    let id = pool.queue(&["submit", "--model", "tiny", "--prompt", "hi"]).id();
    assert_eq!(until_over(&pool, &id)["outcome"], "succeeded");
    let job = crate::kit::steps::submit(&pool, &["--class", "cpu"], &["env=BRAINSTEM_API_KEY"]);
    until_over(&pool, &job);
    assert_eq!(crate::kit::steps::log_of(&pool, &job, 1), "BRAINSTEM_API_KEY=-\n");
    assert_eq!(holding(&pool, KEY), Vec::<String>::new());
    for one in pool.alive() {
        assert!(!one.command.contains(KEY), "{}", one.command);
    }
    let config = pool.queue(&["config", "--explain"]).success();
    assert!(!config.stdout.contains(KEY) && config.stdout.contains("api_key_variable"), "{config}");
    assert!(!brain.stderr().contains(KEY));
}

/// A key that expires fails nothing: what runs then goes back, and waits until one is good again.
#[test]
fn a_key_that_is_withdrawn_and_given_back_fails_no_request() {
    let pool = quick("server_poll = \"100ms\"");
    let is_good = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&is_good);
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let server = Scripted::start_asked(move |asked| {
        if asked.what == "GET /health" {
            return (200, json!({"status": "ok"}));
        }
        if asked.what == "POST /v1/chat/completions" {
            // All three are on their way then. Later ones find the other end closed.
            let _closed = may_go_on.recv();
        }
        if still.load(Ordering::Relaxed) {
            answer(&asked.what)
        } else {
            (401, json!({"error": "no"}))
        }
    });
    let words = ["--verbose", "--gpu", "0", "--slots", "3", "--openai-url", &server.address()];
    let _worker = pool.worker(&words);
    pool.until_event("worker-worker-0", "server.up");
    let ids = [(); 3].map(|()| pool.queue(&["submit", "--model", "tiny", "--prompt", "hi"]).id());
    let asked =
        || pool.log("worker-worker-0").iter().filter(|l| l["event"] == "model.asked").count();
    pool.until_true("all three to be asked", || asked() == 3);
    is_good.store(false, Ordering::Relaxed);
    drop(go_on);
    pool.until_event("worker-worker-0", "server.down");
    let text = pool.until("`why` to say so", || {
        let why = pool.queue(&["why", &ids[0], "--json"]).json();
        let reasons = why["reasons"].as_array()?;
        let down = reasons.iter().find(|reason| reason["code"] == "server.down")?;
        down["text"].as_str().map(str::to_owned)
    });
    assert!(text.contains("status 401") && text.contains("$BRAINSTEM_API_KEY"), "{text}");
    is_good.store(true, Ordering::Relaxed);
    for id in &ids {
        assert_eq!(until_over(&pool, id)["outcome"], "succeeded");
        let ends: Vec<_> = crate::kit::steps::lines_of(&pool, id)
            .iter()
            .map(|line| (line["outcome"].clone(), line["cause"].clone()))
            .collect();
        let once = [(json!("returned"), json!("unauthorized")), (json!("succeeded"), Value::Null)];
        assert_eq!(ends, once, "nothing is asked while the key is not good");
    }
}

/// Nothing is burnt by a key that is missing: prompts wait, and `why` says for what.
#[test]
fn without_the_key_prompts_wait_and_are_told_why() {
    let pool = quick("server_poll = \"100ms\"");
    let server = server(&Seen::default());
    let _worker = pool.worker(&["--gpu", "0", "--openai-url", &server.address()]);
    pool.until_event("worker-worker-0", "server.down");
    let id = pool.queue(&["submit", "--model", "tiny", "--prompt", "hi"]).id();
    let why = pool.until("the heartbeat to say so", || {
        let why = pool.queue(&["why", &id, "--json"]).code(5).json();
        (why["reasons"][0]["code"] == "server.down").then_some(why)
    });
    let text = why["reasons"][0]["text"].as_str().unwrap();
    assert!(text.contains("status 401") && text.contains("$BRAINSTEM_API_KEY"), "{text}");
}

#[test]
fn a_key_file_that_others_read_is_refused() {
    let pool = Pool::new();
    std::fs::write(pool.at("key"), KEY).unwrap();
    pool.write_toml(&format!("api_key_file = \"{}\"", pool.at("key")));
    let ran = pool.worker(&["--cpu", "--openai-url", "http://127.0.0.1:9"]).end().code(2);
    assert!(ran.stderr.contains("chmod 600") && ran.stderr.contains(&pool.at("key")), "{ran}");
    assert!(!ran.stderr.contains(KEY), "{ran}");
}
