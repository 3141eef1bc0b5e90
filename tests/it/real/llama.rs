//! The whole way with a real llama-server: from `queue submit` through a worker to the ledger and
//! `queue results`; and what happens when the server, the model or the prompt is no good. Skipped
//! where there is none (see `run.sh`).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use queue::dir::layout::Layout;
use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};
use tests::{Llama, Pool, Proc, Signal, free_port, llama_models};

use crate::commands::llm_cli::{request, submit_file, write_lines};
use crate::kit::steps::{ids, lines_of, quick};
use crate::servers::models::{SOON, end_of, server, submit, turn};

/// Long enough to be interrupted: most of a second, and more.
fn long(model: &str) -> Value {
    json!({"class": "llm", "model": model, "prompt": "hi", "options": {"num_predict": 800}})
}

/// More than there is room for: it ends when it is cancelled.
fn endless(model: &str) -> Value {
    json!({"class": "llm", "model": model, "prompt": "hi", "options": {"num_predict": 1_000_000}})
}

fn short(model: &str) -> Value {
    json!({"class": "llm", "model": model, "prompt": "hi", "options": {"num_predict": 2}})
}

/// Waits until the text of an answer comes.
#[track_caller]
fn until_answering(pool: &Pool, id: &str) {
    let log = Layout::new(pool.dir()).run_log(id.parse().unwrap(), 1);
    pool.until_true("text to come", || fs::metadata(&log).is_ok_and(|meta| meta.len() > 0));
}

/// A worker for a server that runs already.
fn beside(pool: &Pool, number: &str, llama: &Llama) -> Proc {
    let worker = pool.worker(&["--gpu", number, "--openai-url", llama.address()]);
    pool.until_event(&format!("worker-worker-{number}"), "server.up");
    worker
}

/// A worker that starts the server itself, for these models.
fn managing(pool: &Pool, program: &Path, models: &[(&str, &Path)]) -> Proc {
    let (port, command) = (free_port().to_string(), format!("{} -c 2048", program.display()));
    let mut words = vec!["--gpu".to_owned(), "0".to_owned(), "--managed".to_owned(), command];
    words.extend(["--ollama-port".to_owned(), port]);
    for (name, file) in models {
        words.extend(["--model-file".to_owned(), format!("{name}={}", file.display())]);
    }
    let worker = pool.worker(&words.iter().map(String::as_str).collect::<Vec<_>>());
    pool.until_event("worker-worker-0", "server.up");
    worker
}

#[test]
fn a_batch_of_chats_completions_and_embeddings_comes_back_as_openais_results() {
    let pool = quick(SOON);
    let Some(chats) = Llama::start(&pool, "tiny", &[]) else { return };
    let embeds = Llama::start(&pool, "tiny", &["--alias", "embed", "--embeddings"]).unwrap();
    let _workers = [beside(&pool, "0", &chats), beside(&pool, "1", &embeds)];
    let mut chat = request("a", "hi");
    chat["body"]["max_tokens"] = 3.into();
    let ask = |id: &str, url: &str, body: Value| json!({"custom_id": id, "method": "POST", "url": url, "body": body});
    let text =
        ask("b", "/v1/completions", json!({"model": "tiny", "prompt": "x", "max_tokens": 4}));
    let embed = ask("c", "/v1/embeddings", json!({"model": "embed", "input": ["one", "two"]}));
    let too_long = "word ".repeat(3000);
    let wrong = ask("d", "/v1/completions", json!({"model": "tiny", "prompt": too_long}));
    write_lines(&pool, "in.jsonl", &[chat, text, embed, wrong]);
    let answer = submit_file(&pool, &[]);
    for id in ids(&answer) {
        end_of(&pool, &id);
    }
    let batch = answer["batch_id"].as_str().unwrap();
    let ran = pool.queue(&["results", batch, "--errors", "errors.jsonl"]);
    let results: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let body = |index: usize| &results[index]["response"]["body"];
    assert_eq!(results.len(), 3, "{ran}");
    assert_eq!(body(0)["choices"][0]["finish_reason"], "length");
    assert_eq!(
        (&body(0)["object"], &body(0)["usage"]["completion_tokens"]),
        (&json!("chat.completion"), &json!(3))
    );
    assert_eq!(
        (&body(1)["object"], &body(1)["usage"]["completion_tokens"]),
        (&json!("text_completion"), &json!(4))
    );
    assert_eq!(body(1)["choices"][0]["text"].as_str().unwrap().len(), 4);
    assert_eq!(body(2)["data"].as_array().unwrap().len(), 2);
    assert_eq!(body(2)["data"][0]["embedding"].as_array().unwrap().len(), 64);
    // Not cut off silently, and not tried again: it would be as long each time.
    let errors = fs::read_to_string(pool.at("errors.jsonl")).unwrap();
    assert!(errors.contains("exceeds the available context size"), "{errors}");
    let failed = lines_of(&pool, &ids(&answer)[3]);
    assert_eq!((failed.len(), &failed[0]["next"]), (1, &json!("failed")), "{failed:?}");
}

#[test]
fn a_request_that_is_cancelled_in_mid_stream_frees_the_real_server() {
    let pool = quick(SOON);
    let Some(llama) = Llama::start(&pool, "slow", &[]) else { return };
    let _worker = beside(&pool, "0", &llama);
    let id = submit(&pool, endless("slow"));
    until_answering(&pool, &id);
    pool.queue(&["cancel", &id]).success();
    assert_eq!(end_of(&pool, &id)["outcome"], "cancelled");
    // It has one slot: only where that is free is there an answer.
    let next = submit(&pool, short("slow"));
    assert_eq!(end_of(&pool, &next)["outcome"], "succeeded");
}

/// With one slot the second answer would begin when the first has ended.
#[test]
fn a_real_server_that_batches_gives_as_many_answers_at_once_as_a_worker_has_slots() {
    let pool = quick(SOON);
    let Some(llama) = Llama::start(&pool, "slow", &["-np", "3", "-c", "98304"]) else { return };
    let worker = pool.worker(&["--gpu", "0", "--slots", "3", "--openai-url", llama.address()]);
    pool.until_event("worker-worker-0", "server.up");
    let asked: Vec<String> = (0..3).map(|_| submit(&pool, endless("slow"))).collect();
    asked.iter().for_each(|id| until_answering(&pool, id));
    assert!(asked.iter().all(|id| lines_of(&pool, id).is_empty()), "one waited for another");
    for id in &asked {
        pool.queue(&["cancel", id]).success();
        assert_eq!(end_of(&pool, id)["outcome"], "cancelled");
    }
    let next = submit(&pool, short("slow"));
    assert_eq!(end_of(&pool, &next)["outcome"], "succeeded");
    drop(worker);
}

/// The process of the server, below its worker.
fn server_pid(pool: &Pool) -> Option<u32> {
    let alive = pool.alive();
    alive.iter().find(|one| one.command.contains("llama_server.py")).map(|one| one.pid)
}

#[test]
fn a_real_server_killed_in_mid_stream_is_started_anew_and_the_task_runs_again() {
    let pool = quick(SOON);
    let Some((program, models)) = llama_models() else { return };
    let _worker = managing(&pool, &program, &[("slow", &models.join("slow.gguf"))]);
    assert_eq!(end_of(&pool, &turn(&pool, "load_llm", "slow"))["outcome"], "succeeded");
    let id = submit(&pool, long("slow"));
    until_answering(&pool, &id);
    let first = server_pid(&pool).unwrap();
    kill_process(Pid::from_raw(first.cast_signed()).unwrap(), Signal::KILL).unwrap();
    let line = pool.until("the attempt to end", || lines_of(&pool, &id).into_iter().next());
    assert_eq!((&line["cause"], &line["outcome"]), (&json!("server_error"), &json!("failed")));
    // The model that it was to hold is there again without anybody asking for it.
    let line = end_of(&pool, &id);
    assert_eq!((&line["outcome"], &line["attempt"]), (&json!("succeeded"), &json!(2)), "{line}");
    assert_eq!(line["answer"]["completion_tokens"], 800);
    assert!(server_pid(&pool).is_some_and(|pid| pid != first));
}

#[test]
fn a_corrupt_model_is_remembered_and_the_next_one_loads() {
    let pool = quick(SOON);
    let Some((program, models)) = llama_models() else { return };
    let tiny = models.join("tiny.gguf");
    let half = pool.home().join("half.gguf");
    let whole = fs::read(&tiny).unwrap();
    fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    let mut worker = managing(&pool, &program, &[("half", &half), ("tiny", &tiny)]);
    let waits = submit(&pool, short("half"));
    let line = end_of(&pool, &turn(&pool, "load_llm", "half"));
    assert_eq!((&line["outcome"], &line["cause"]), (&json!("failed"), &json!("server_error")));
    pool.until_true("the worker to remember it", || {
        server(&pool)["failed_loads"][0]["model"] == "half"
    });
    let why = pool.queue(&["why", &waits, "--json"]);
    assert!(why.stdout.contains("half"), "{why}");
    assert_eq!(end_of(&pool, &turn(&pool, "load_llm", "tiny"))["outcome"], "succeeded");
    assert_eq!(end_of(&pool, &submit(&pool, short("tiny")))["outcome"], "succeeded");
    worker.term();
    worker.end().success();
    assert_eq!(server_pid(&pool), None);
}

/// The real server, behind a gate: it takes as long to be there as the test likes.
fn slow_to_start(pool: &Pool, program: &Path) -> PathBuf {
    let script = pool.home().join("llama-server");
    let text = format!(
        "#!/bin/sh\nread -r go <{} && exec {} \"$@\"\n",
        pool.at("gate"),
        program.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    script
}

#[test]
fn a_load_that_takes_long_is_seen_cancelled_and_tried_again() {
    let pool = quick(SOON);
    let Some((program, models)) = llama_models() else { return };
    let gate = pool.fifo("gate");
    let script = slow_to_start(&pool, &program);
    let _worker = managing(&pool, &script, &[("tiny", &models.join("tiny.gguf"))]);
    let waits = submit(&pool, short("tiny"));
    let state = || server(&pool)["models"][0]["state"].clone();

    let load = turn(&pool, "load_llm", "tiny");
    let held = gate.until_reached();
    pool.until_true("the heartbeat to say so", || state() == "loading");
    pool.queue(&["cancel", &load]).success();
    assert_eq!(end_of(&pool, &load)["outcome"], "cancelled");
    pool.until_true("it to be ended", || server(&pool)["models"] == json!([]));
    drop(held);

    let load = turn(&pool, "load_llm", "tiny");
    let mut held = gate.until_reached();
    pool.until_true("the heartbeat to say so", || state() == "loading");
    assert!(lines_of(&pool, &waits).is_empty(), "nothing is asked of what is not there");
    held.say("go\n");
    assert_eq!(end_of(&pool, &load)["outcome"], "succeeded");
    assert_eq!(end_of(&pool, &waits)["outcome"], "succeeded");
}
