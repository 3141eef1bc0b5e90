//! Prompts on the command line, batches in OpenAI's format, templates, and models. What workers say
//! of their servers is written through the library, as a worker would.

use std::fs;

use queue::dir::presence::heartbeats;
use queue::dir::presence::lease::{Lease, this_process};
use queue::wire::heartbeat::Heartbeat;
use queue::wire::lease_record::Record;
use serde_json::{Value, json};
use shared::id::Incarnation;
use shared::time::Moment;
use tests::Pool;

use super::json::{fields_of, has, queue};
use crate::kit::steps::ids;
use crate::kit::{inside, quick_pool};

/// A living worker whose server knows these models and holds the first of them.
fn server(pool: &Pool, name: &str, known: &[&str]) -> Lease {
    let pool = inside(pool);
    let worker: shared::name::Name = name.parse().unwrap();
    let (process, life, now) = (this_process(), Incarnation::new(), Moment::now());
    let lease = Lease::try_take(&pool, &worker).unwrap().unwrap();
    let working = Record::of(worker, process.clone(), life.clone(), now);
    let record = Record { gpu: Some(0), ..working };
    lease.write(&record).unwrap();
    let held = known.iter().take(1).map(
        |model| json!({"model": model, "state": "loaded", "since": now, "size": 1000, "vram": 600}),
    );
    let held: Vec<Value> = held.collect();
    let beat = json!({
        "schema": queue::wire::heartbeat::SCHEMA, "worker": name, "process": process, "life": life,
        "version": "0", "started_at": now, "at": now, "seq": 1, "status": "idle",
        "ability": {
            "classes": ["llm", "resource"], "gpu": 0, "gpu_uuid": null, "gpu_memory": null,
            "gpu_slots": 1, "cpu_slots": 0, "paused": null, "draining": null,
            "server": {
                "kind": "ollama", "address": format!("http://127.0.0.1/{name}"),
                "loads": "on_request", "health": "up", "health_since": now, "models": held,
                "known": known,
                "failed_loads": [{"model": "huge", "cause": "oom", "message": "no room", "at": now}],
            },
        },
        "current": [], "gpu_reading": null,
        "claim": {"at": null, "result": "", "reasons": []},
        "completed": 0, "failed": 0, "lost_races": 0, "idle_since": now, "log_seq": 0,
    });
    let beat: Heartbeat = serde_json::from_value(beat).unwrap();
    heartbeats::write(&pool, &beat).unwrap();
    lease
}

/// The task file of a task.
fn spec(pool: &Pool, id: &str) -> Value {
    queue(pool, &["show", "--json", id])["spec"].clone()
}

#[test]
fn a_prompt_is_a_task_with_all_that_was_said_about_it() {
    let pool = quick_pool("");
    fs::write(pool.at("schema.json"), r#"{"type": "object"}"#).unwrap();
    let words = [
        "submit",
        "--model",
        "tiny",
        "--prompt",
        "Say hello",
        "--system",
        "Be short",
        "--option",
        "num_ctx=512",
        "--option",
        "stop=END",
        "--format",
        "schema.json",
        "--max-tokens",
        "9",
        "--temperature",
        "0.5",
        "--seed",
        "-3",
        "--max-wait",
        "5m",
        "--priority",
        "7",
    ];
    let id = pool.queue(&words).id();
    let read = spec(&pool, &id);
    let expected = json!({
        "class": "llm", "name": "Say hello", "model": "tiny", "prompt": "Say hello",
        "system": "Be short", "max_wait": 300, "format": {"type": "object"}, "priority": 7,
        "options": {"num_ctx": 512, "stop": "END", "num_predict": 9, "temperature": 0.5, "seed": -3},
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&read[field], value, "{field}");
    }
    assert!(read.get("cwd").is_none(), "a prompt runs nowhere: {read}");
    let shown = pool.queue(&["show", &id]).success();
    assert!(shown.stdout.contains("model      tiny\n"), "{shown}");
    let listed = pool.queue(&["ls"]).success();
    assert!(listed.stdout.contains("Say hello [tiny]"), "{listed}");
    assert_eq!(queue(&pool, &["ls", "--json"])["model"], "tiny");
}

#[test]
fn prompts_and_conversations_come_from_files_and_stdin() {
    let pool = quick_pool("");
    let from = |words: &[&str], input: &str| {
        let words = [&["submit", "--model", "tiny"], words].concat();
        spec(&pool, &pool.queue_with_input(&words, input).id())
    };
    assert_eq!(from(&["--prompt-file", "-"], "long text\n")["prompt"], "long text\n");
    let two = json!([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]);
    assert_eq!(from(&["--messages", "-"], &two.to_string())["messages"], two);
    let lines = format!("{}\n\n{}\n", two[0], two[1]);
    fs::write(pool.at("talk.jsonl"), lines).unwrap();
    assert_eq!(from(&["--messages", "talk.jsonl"], "")["messages"], two);
}

/// So that the brain finds a place for its model at once, and not with its next look.
#[test]
fn a_prompt_rings_for_the_brain_and_a_script_does_not() {
    let lines = [request("a", "hi"), request("b", "ho")];
    for (rings, words) in [
        (true, &["submit", "--model", "tiny", "--prompt", "hi"][..]),
        (true, &["submit", "--batch", "in.jsonl"]),
        (false, &["submit", "--", "true"]),
    ] {
        let pool = quick_pool("");
        write_lines(&pool, "in.jsonl", &lines);
        pool.queue(words).success();
        let bell = inside(&pool).layout().doorbells().join("brain");
        assert_eq!(fs::metadata(bell).is_ok(), rings, "{words:?}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_in_words() {
    let pool = quick_pool("");
    fs::write(pool.at("bad.json"), r#"{"type": "objekt"}"#).unwrap();
    fs::write(pool.at("list.json"), "[1]").unwrap();
    fs::write(pool.at("talk.jsonl"), "{\"role\": \"user\", \"content\": \"x\"}\n{\"role\": 3}\n")
        .unwrap();
    let prompt = ["--model", "tiny", "--prompt", "hi"];
    for (words, told) in [
        (&["--prompt", "hi"][..], "a prompt needs a model"),
        (&["--model", "tiny"], "--model is for prompts"),
        (&["--max-wait", "5m", "--", "true"], "--max-wait is for prompts"),
        (&["--model", "tiny", "--prompt", " "], "`prompt`: is empty"),
        (&[&prompt[..], &["--class", "script"]].concat(), "does not go with"),
        (&[&prompt[..], &["--class", "resource"]].concat(), "the brain makes them by itself"),
        (&[&prompt[..], &["--format", "bad.json"]].concat(), "did you mean `object`?"),
        (&[&prompt[..], &["--format", "list.json"]].concat(), "holds no JSON schema"),
        (&[&prompt[..], &["--format", "nowhere.json"]].concat(), "could not read `nowhere.json`"),
        (&[&prompt[..], &["--option", "num_ctx"]].concat(), "`num_ctx` is not NAME=VALUE"),
        (
            &[&prompt[..], &["--option", "seed=1", "--seed", "2"]].concat(),
            "the option `seed` is given twice",
        ),
        (&[&prompt[..], &["--temperature", "-1"]].concat(), "temperature"),
        (&["--model", "tiny", "--messages", "talk.jsonl"], "talk.jsonl:2: "),
        (&[&prompt[..], &["--", "true"]].concat(), "cannot be used with"),
    ] {
        let ran = pool.queue(&[&["submit"], words].concat()).code(2);
        assert!(ran.stderr.contains(told), "{words:?}: {ran}");
    }
    assert!(pool.files_in("pending").is_empty());
}

/// A request in OpenAI's batch format.
pub(crate) fn request(custom_id: &str, content: &str) -> Value {
    json!({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions",
           "body": {"model": "tiny", "messages": [{"role": "user", "content": content}]}})
}

pub(crate) fn write_lines(pool: &Pool, name: &str, lines: &[Value]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(pool.at(name), text).unwrap();
}

pub(crate) fn submit_file(pool: &Pool, words: &[&str]) -> Value {
    queue(pool, &[&["submit", "--json", "--batch", "in.jsonl"], words].concat())
}

#[test]
fn lines_in_openais_format_stand_beside_task_objects() {
    let pool = quick_pool("");
    let mut bare = request("c", "three");
    bare["body"].as_object_mut().unwrap().remove("model");
    let embed = json!({"custom_id": "d", "method": "POST", "url": "/v1/embeddings",
                       "body": {"model": "embed", "input": ["a", "b"]}});
    let plain = json!({"prompt": "two"});
    write_lines(&pool, "in.jsonl", &[request("a", "one"), plain, bare, embed]);
    let answer = submit_file(&pool, &["--model", "small"]);
    let specs: Vec<_> = ids(&answer).iter().map(|id| spec(&pool, id)).collect();
    let models: Vec<_> = specs.iter().map(|spec| spec["model"].as_str().unwrap()).collect();
    assert_eq!(models, ["tiny", "small", "small", "embed"]);
    assert_eq!(specs[0]["request"]["body"], request("a", "one")["body"], "passed on as it came");
    assert_eq!((&specs[0]["custom_id"], &specs[0]["name"]), (&json!("a"), &json!("one")));
    assert_eq!(specs[2]["request"]["body"]["model"], "small");
    let status = queue(&pool, &["models", "--json"]);
    let pending = |model: &str| {
        let models = status["models"].as_array().unwrap();
        models.iter().find(|one| one["model"] == model).unwrap()["pending"].clone()
    };
    assert_eq!((pending("small"), pending("tiny")), (json!(2), json!(1)));
}

#[test]
fn a_bad_request_is_told_with_file_line_and_field_and_nothing_is_submitted() {
    let pool = quick_pool("");
    let mut no_messages = request("b", "x");
    no_messages["body"].as_object_mut().unwrap().remove("messages");
    let mut wrong_url = request("c", "x");
    wrong_url["url"] = json!("/v1/images");
    let lines = [request("a", "x"), no_messages, wrong_url, request("a", "y")];
    write_lines(&pool, "in.jsonl", &lines);
    let ran = pool.queue(&["submit", "--batch", "in.jsonl"]).code(2);
    for told in [
        "in.jsonl:2:body.messages: is missing",
        "in.jsonl:3:url: `/v1/images` is none of",
        "in.jsonl:4:custom_id: `a` is that of line 1 too",
        "nothing was submitted",
    ] {
        assert!(ran.stderr.contains(told), "{told}: {ran}");
    }
    assert!(pool.files_in("pending").is_empty() && pool.files_in("publishing").is_empty());
}

#[test]
fn a_template_asks_about_every_row() {
    let pool = quick_pool("");
    fs::write(pool.at("rows.csv"), "id,title,text\n7,One,\"a, b\"\n8,Two,c\n").unwrap();
    let words = [
        "submit",
        "--json",
        "--model",
        "tiny",
        "--template",
        "{{{title}}}: {text}",
        "--rows",
        "rows.csv",
        "--system",
        "Be short",
        "--max-tokens",
        "5",
        "--label",
        "run=1",
    ];
    let answer = queue(&pool, &words);
    let specs: Vec<_> = ids(&answer).iter().map(|id| spec(&pool, id)).collect();
    let prompts: Vec<_> = specs.iter().map(|spec| spec["prompt"].as_str().unwrap()).collect();
    assert_eq!(prompts, ["{One}: a, b", "{Two}: c"]);
    assert_eq!((&specs[0]["custom_id"], &specs[1]["custom_id"]), (&json!("7"), &json!("8")));
    assert_eq!(specs[1]["options"]["num_predict"], 5);
    assert_eq!(
        (&specs[1]["system"], &specs[1]["labels"]["run"]),
        (&json!("Be short"), &json!("1"))
    );

    fs::write(pool.at("t.txt"), "Count to {n}").unwrap();
    write_lines(&pool, "rows.jsonl", &[json!({"n": 3}), json!({"m": 4})]);
    let words = ["submit", "--model", "tiny", "--template", "@t.txt", "--rows", "rows.jsonl"];
    let ran = pool.queue(&words).code(2);
    let told = "rows.jsonl:2:n: there is no column `n`; ";
    assert!(ran.stderr.contains(told) && ran.stderr.contains("there are m"), "{ran}");
    let words = ["submit", "--model", "tiny", "--template", "{titel}", "--rows", "rows.csv"];
    let ran = pool.queue(&words).code(2);
    let told = "did you mean `title`? there are id, title, text";
    assert!(ran.stderr.contains(told), "{ran}");
    let dry = [
        "submit",
        "--dry-run",
        "--model",
        "tiny",
        "--template",
        "Hi {title}",
        "--rows",
        "rows.csv",
    ];
    let ran = pool.queue(&dry).success();
    assert!(ran.stdout.contains("2 tasks well formed") && ran.stdout.contains("Hi One"), "{ran}");
    assert_eq!(pool.files_in("pending").len(), 2);
}

#[test]
fn a_dry_run_says_which_models_there_are() {
    let pool = quick_pool("");
    let dry =
        |model: &str| pool.queue(&["submit", "--dry-run", "--model", model, "--prompt", "hi"]);
    let ran = dry("tiny").success();
    assert!(ran.stdout.contains("would submit: llm task `hi` for tiny"), "{ran}");
    let _one = server(&pool, "worker-8", &["tiny:latest", "small:7b"]);
    let _two = server(&pool, "worker-9", &["embed"]);
    let ran = dry("tinny").code(6);
    let told = "no running worker's server knows the model `tinny`; did you mean `tiny`? \
                (there are: embed, small:7b, tiny:latest)";
    assert!(ran.stderr.contains(told), "{ran}");
    let known = dry("tiny");
    let read =
        queue(&pool, &["submit", "--json", "--dry-run", "--model", "tiny", "--prompt", "hi"]);
    has(&read, "why", &["verdict", "reasons", "task"]);
    assert_eq!(read["task"]["prompt"], "hi");
    assert!(known.stdout.contains("would submit: ") && !known.stderr.contains("knows"), "{known}");
    write_lines(
        &pool,
        "in.jsonl",
        &[json!({"model": "tiny", "prompt": "a"}), json!({"model": "nope", "prompt": "b"})],
    );
    let ran = pool.queue(&["submit", "--dry-run", "--batch", "in.jsonl"]).code(6);
    assert!(ran.stderr.contains("knows the model `nope`"), "{ran}");
    // To submit it all the same is no mistake: a model may be fetched later.
    let ran = pool.queue(&["submit", "--model", "nope", "--prompt", "hi"]).success();
    assert!(ran.stderr.contains("warning: ") && ran.stdout.trim().len() == 36, "{ran}");
}

#[test]
fn models_are_listed_with_who_holds_and_who_waits() {
    let pool = quick_pool("");
    let _one = server(&pool, "worker-8", &["tiny:latest", "small"]);
    let _two = server(&pool, "worker-9", &["tiny"]);
    for _ in 0..3 {
        pool.queue(&["submit", "--model", "tiny", "--prompt", "hi"]).success();
    }
    let answer = queue(&pool, &["models", "--json"]);
    has(&answer, "models", &["at", "models", "servers"]);
    let tiny = &answer["models"][0];
    let fields = ["model", "pending", "oldest_seconds", "workers", "known_by", "failed_loads"];
    fields_of(tiny, &fields);
    assert_eq!((&tiny["model"], &tiny["pending"]), (&json!("tiny"), &json!(3)), "{answer}");
    assert!(tiny["oldest_seconds"].is_number());
    assert_eq!(tiny["known_by"], json!(["worker-8", "worker-9"]), "`latest` may be left out");
    let holder = &tiny["workers"][0];
    fields_of(holder, &["worker", "server", "state", "since", "size", "vram"]);
    assert_eq!((&holder["worker"], &holder["state"]), (&json!("worker-8"), &json!("loaded")));
    let huge = answer["models"].as_array().unwrap().iter().find(|one| one["model"] == "huge");
    let failed = &huge.unwrap()["failed_loads"][0];
    assert_eq!((&failed["worker"], &failed["cause"]), (&json!("worker-8"), &json!("oom")));
    fields_of(&answer["servers"][0], &["worker", "address", "kind", "loads", "health"]);
    let shown = pool.queue(&["models"]).success();
    assert!(shown.stdout.contains("worker-8 loaded"), "{shown}");
    assert!(shown.stdout.contains("huge could not be loaded by worker-8"), "{shown}");
}
