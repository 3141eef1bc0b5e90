//! A real llama-server as a router over a folder of models, through the real worker: it loads and
//! unloads when it is told to. Skipped where there is none (see `run.sh`).

use std::fs;

use serde_json::{Value, json};
use tests::{Pool, Proc, free_port, llama_models, llama_router};

use crate::kit::steps::quick;
use crate::servers::models::{SOON, end_of, server, submit, turn};

/// The router, with the models `tiny`, `other` and `corrupt`; its process and address.
fn router(pool: &Pool, most: &str) -> Option<(Proc, String)> {
    let program = llama_router()?;
    let (_server, kept) = llama_models()?;
    let models = pool.home().join("models");
    fs::create_dir(&models).unwrap();
    let whole = fs::read(kept.join("tiny.gguf")).unwrap();
    for (name, length) in [("tiny", whole.len()), ("other", whole.len()), ("corrupt", 200_000)] {
        fs::write(models.join(format!("{name}.gguf")), &whole[..length]).unwrap();
    }
    let port = free_port().to_string();
    let words = [
        "--models-dir",
        "models",
        "--models-max",
        most,
        "--no-models-autoload",
        "--host",
        "127.0.0.1",
        "--port",
        &port,
        "-t",
        "1",
        "-c",
        "512",
    ];
    let proc = pool.start(&mut pool.foreign(program.to_str().unwrap(), &words));
    Some((proc, format!("http://127.0.0.1:{port}")))
}

fn worker(pool: &Pool, address: &str) -> Proc {
    let worker = pool.worker(&["--gpu", "0", "--openai-url", address]);
    pool.until_event("worker-worker-0", "server.up");
    worker
}

fn models(pool: &Pool) -> Vec<String> {
    let held = server(pool)["models"].as_array().cloned().unwrap_or_default();
    held.iter().map(|one| one["model"].as_str().unwrap().to_owned()).collect()
}

fn ask(pool: &Pool, model: &str) -> Value {
    let id = submit(
        pool,
        json!({"class": "llm", "model": model, "prompt": "hi",
                                 "options": {"num_predict": 3}}),
    );
    end_of(pool, &id)
}

#[test]
fn a_real_router_loads_answers_and_unloads_as_it_is_told() {
    let pool = quick(SOON);
    let Some((_router, address)) = router(&pool, "2") else { return };
    let _worker = worker(&pool, &address);
    for model in ["tiny", "other"] {
        assert_eq!(end_of(&pool, &turn(&pool, "load_llm", model))["outcome"], "succeeded");
        let line = ask(&pool, model);
        assert_eq!(
            (&line["outcome"], &line["answer"]["completion_tokens"]),
            (&json!("succeeded"), &json!(3)),
            "{line}"
        );
        assert_eq!(line["answer"]["body"]["model"], model);
    }
    pool.until_true("both to be held", || models(&pool) == ["other", "tiny"]);
    // One that is there already is there.
    assert_eq!(end_of(&pool, &turn(&pool, "load_llm", "tiny"))["outcome"], "succeeded");
    for model in ["tiny", "other", "other"] {
        assert_eq!(end_of(&pool, &turn(&pool, "unload_llm", model))["outcome"], "succeeded");
    }
    pool.until_true("none to be held", || models(&pool).is_empty());
}

/// It fails within a look's length, so that nobody sees it loading; it is not waited for.
#[test]
fn a_real_router_says_that_a_model_is_corrupt_or_not_there() {
    let pool = quick(SOON);
    let Some((_router, address)) = router(&pool, "2") else { return };
    let _worker = worker(&pool, &address);
    for (model, cause, words) in [
        ("corrupt", "server_error", "ended with 1"),
        ("nope", "model_missing", "it has only corrupt, other, tiny"),
    ] {
        let line = end_of(&pool, &turn(&pool, "load_llm", model));
        assert_eq!((&line["outcome"], &line["cause"]), (&json!("failed"), &json!(cause)), "{line}");
        assert!(line["error_message"].as_str().unwrap().contains(words), "{line}");
    }
    pool.until_true("the worker to remember them", || {
        server(&pool)["failed_loads"].as_array().is_some_and(|loads| loads.len() == 2)
    });
    assert_eq!(end_of(&pool, &turn(&pool, "load_llm", "tiny"))["outcome"], "succeeded");
    assert_eq!(ask(&pool, "tiny")["outcome"], "succeeded");
}

/// With a brain it goes by what waits, and the router's limit is its own affair.
#[test]
fn a_brain_has_a_real_router_change_models_as_tasks_come() {
    let pool = quick(&format!("{SOON}\nmin_residency = \"0s\""));
    let Some((_router, address)) = router(&pool, "1") else { return };
    let _brain = pool.brain(&["--no-spawn"]);
    let _worker = worker(&pool, &address);
    for model in ["tiny", "other", "tiny"] {
        let line = ask(&pool, model);
        assert_eq!(line["outcome"], "succeeded", "{line}");
        assert_eq!(line["answer"]["body"]["model"], model);
    }
}
