//! Prompts on the command line, batches in OpenAI's format, templates, batches that are submitted
//! again, results, and models. The answers are written through the library, as a worker would.

use std::fs;

use queue::dir::history::Ledger;
use queue::dir::lease::{Lease, Process, Record, Role};
use queue::dir::{finish, places};
use queue::heartbeat::{self, Heartbeat};
use queue::ledger::{Line, Writer};
use queue::retry::{Policy, Verdict, next};
use serde_json::{Value, json};
use shared::id::{Incarnation, TaskId};
use shared::llm::Answer;
use shared::outcome::Cause;
use shared::time::Moment;
use tests::{Mark, Pool};

use crate::json::{fields_of, has, queue};
use crate::kit::{inside, quick_pool};
use crate::steps::ids;

/// The ending of tasks, as by a worker.
struct Ender {
    pool: queue::Pool,
    ledger: Ledger,
}

impl Ender {
    fn new(pool: &Pool) -> Self {
        let pool = inside(pool);
        let writer = Writer::new("worker-9".parse().unwrap());
        let ledger = Ledger::new(pool.layout().clone(), writer);
        Self { pool, ledger }
    }

    fn end(&self, id: &str, verdict: Verdict, change: impl FnOnce(&mut Line)) {
        let id: TaskId = id.parse().unwrap();
        let found = places::find(self.pool.layout(), id).unwrap().unwrap();
        let task = found.read(self.pool.layout()).unwrap().unwrap();
        let follows = next(found.name, verdict, &Policy::default(), Moment::now(), 0.0);
        let mut line = Line::new(task.clone(), found.name, verdict, follows);
        change(&mut line);
        self.ledger.append(&line).unwrap();
        let path = found.path(self.pool.layout());
        finish::carry_out(&self.pool, &path, &task, &line).unwrap();
    }

    fn answer(&self, id: &str, text: &str) {
        self.end(id, Verdict::Succeeded, |line| {
            line.answer = Some(Answer {
                model: "tiny:latest".into(),
                body: json!({"object": "chat.completion", "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": text}}]}),
                prompt_tokens: Some(7),
                completion_tokens: Some(11),
                load_seconds: Some(0.0),
                first_token_seconds: Some(0.5),
                seconds: 1.5,
            });
        });
    }

    fn refuse(&self, id: &str) {
        self.end(id, Verdict::Refused(Cause::ModelMissing), |line| {
            line.error_message = Some("model 'tiny' not found".into());
        });
    }
}

/// A living worker whose server knows these models and holds the first of them.
fn server(pool: &Pool, name: &str, known: &[&str]) -> Lease {
    let pool = inside(pool);
    let worker: shared::name::Name = name.parse().unwrap();
    let (process, life, now) = (Process::current(), Incarnation::new(), Moment::now());
    let lease = Lease::try_take(&pool, &worker).unwrap().unwrap();
    let record = Record {
        worker,
        role: Role::Working,
        process: process.clone(),
        life: life.clone(),
        gpu: Some(0),
        writers: Vec::new(),
        since: now,
    };
    lease.write(&record).unwrap();
    let held: Vec<_> = known.iter().take(1).map(
        |model| json!({"model": model, "state": "loaded", "since": now, "size": 1000, "vram": 600}),
    );
    let held: Vec<Value> = held.collect();
    let beat = json!({
        "schema": heartbeat::SCHEMA, "worker": name, "process": process, "life": life,
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
    heartbeat::write(&pool, &beat).unwrap();
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
        "system": "Be short", "max_wait": "5m", "format": {"type": "object"}, "priority": 7,
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
fn request(custom_id: &str, content: &str) -> Value {
    json!({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions",
           "body": {"model": "tiny", "messages": [{"role": "user", "content": content}]}})
}

fn write_lines(pool: &Pool, name: &str, lines: &[Value]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(pool.at(name), text).unwrap();
}

fn submit_file(pool: &Pool, words: &[&str]) -> Value {
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
    let told = "no running worker's server knows the model `tinny`; did you mean `tiny:latest`? \
                (there are: embed, small:7b, tiny:latest)";
    assert!(ran.stderr.contains(told), "{ran}");
    let known = dry("tiny");
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

/// Five requests, of which 1 failed, 3 has not ended, and 2 came before 0.
fn half_done(pool: &Pool) -> (Value, Ender) {
    let lines = ["a", "b", "c", "d"].map(|id| request(id, &format!("about {id}")));
    write_lines(pool, "in.jsonl", &lines);
    let answer = submit_file(pool, &["--key", "night"]);
    let (ids, ender) = (ids(&answer), Ender::new(pool));
    ender.answer(&ids[2], "see, a \"c\"");
    ender.refuse(&ids[1]);
    ender.answer(&ids[0], "an a");
    (answer, ender)
}

fn custom_ids(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["custom_id"].as_str().unwrap()).collect()
}

#[test]
fn results_come_in_openais_format_with_failures_apart() {
    let pool = quick_pool("");
    let (answer, ender) = half_done(&pool);
    let batch = answer["batch_id"].as_str().unwrap();
    let ran = pool.queue(&["results", &batch[28..]]).code(75);
    let lines = ran.json_lines();
    assert_eq!(custom_ids(&lines), ["a", "c"], "in the order of the file");
    for line in &lines {
        fields_of(line, &["id", "custom_id", "response", "error"]);
        assert!(line["id"].as_str().unwrap().starts_with("batch_req_"));
        assert_eq!((&line["error"], &line["response"]["status_code"]), (&Value::Null, &json!(200)));
        assert_eq!(line["response"]["body"]["object"], "chat.completion");
    }
    assert!(ran.stderr.contains(" b failed (model_missing): model 'tiny' not found"), "{ran}");
    assert!(ran.stderr.contains("4 tasks: 2 succeeded, 1 did not, 1 not ended"), "{ran}");

    ender.answer(&ids(&answer)[3], "a d");
    let files =
        ["results", "night", "-o", "out.jsonl", "--errors", "bad.jsonl", "--order", "completed"];
    let ran = pool.queue(&files).code(100);
    assert_eq!(ran.stdout, "");
    let read = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(pool.at(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let done = read("out.jsonl");
    assert_eq!(custom_ids(&done).last(), Some(&"d"), "the last one to end");
    assert_eq!(done.len(), 3);
    let error = &read("bad.jsonl")[0];
    assert_eq!((&error["custom_id"], &error["response"]), (&json!("b"), &Value::Null));
    assert_eq!(error["error"]["code"], "model_missing");
}

#[test]
fn results_are_objects_tables_and_text_too() {
    let pool = quick_pool("");
    let (_answer, _ender) = half_done(&pool);
    let ran = pool.queue(&["results", "--json", "night"]).code(75);
    let lines = ran.json_lines();
    assert_eq!(custom_ids(&lines), ["a", "b", "c"]);
    has(&lines[0], "result", &["id", "name", "state", "model", "text", "seconds", "log_path"]);
    assert_eq!((&lines[0]["text"], &lines[1]["cause"]), (&json!("an a"), &json!("model_missing")));
    let table = pool.queue(&["results", "night", "--format", "csv"]).code(75).stdout;
    let rows: Vec<_> = table.lines().collect();
    assert!(rows[0].starts_with("custom_id,id,name,state,"), "{table}");
    assert!(rows.len() == 4 && rows[3].contains(r#","see, a ""c""",7,11,1.5,"#), "{table}");
    let text = pool.queue(&["results", "night", "--format", "text"]).code(75).stdout;
    assert_eq!(text, "an a\nsee, a \"c\"\n");
    let shown = pool.queue(&["show", &_answer["ids"][0].as_str().unwrap()[28..]]).success();
    let told = "7 tokens read, 11 written, 1.5s, 10.0 tokens/s, first token after 0.5s";
    assert!(shown.stdout.contains(told) && shown.stdout.contains("an a"), "{shown}");
    let listed = pool.queue(&["ls", "--state", "succeeded"]).success();
    assert!(listed.stdout.contains("[tiny: 11 tokens in 1.5s]"), "{listed}");
    for (words, told) in [
        (&["results", "nothing"][..], "no batch `nothing`"),
        (&["results", "00000000"], "no batch `00000000`"),
    ] {
        let ran = pool.queue(words).code(4);
        assert!(ran.stderr.contains(told), "{ran}");
    }
}

#[test]
fn results_wait_for_the_end_and_keep_the_order_of_the_file() {
    let pool = quick_pool("");
    let (answer, ender) = half_done(&pool);
    let words = ["results", "night", "--wait", "--format", "text"];
    let mut waits = pool.start(&mut pool.command("queue", &words));
    pool.until_true("the first answers", || waits.stdout().contains("see, a"));
    assert!(waits.is_running());
    ender.answer(&ids(&answer)[3], "a d");
    let ran = waits.end().code(100);
    assert_eq!(ran.stdout, "an a\nsee, a \"c\"\na d\n");
    let lines = ["e", "f"].map(|id| request(id, id));
    write_lines(&pool, "in.jsonl", &lines);
    let answer = submit_file(&pool, &[]);
    let batch = answer["batch_id"].as_str().unwrap();
    let words = ["results", batch, "--wait", "--order", "completed", "--format", "text"];
    let waits = pool.start(&mut pool.command("queue", &words));
    ender.answer(&ids(&answer)[1], "f comes first");
    pool.until_true("the second one", || waits.stdout().contains("f comes first"));
    ender.answer(&ids(&answer)[0], "then e");
    let mut waits = waits;
    assert_eq!(waits.end().success().stdout, "f comes first\nthen e\n");
}

#[test]
fn the_same_batch_again_runs_only_what_is_missing() {
    let pool = quick_pool("");
    let (first, ender) = half_done(&pool);
    let old = ids(&first);
    // In another order, one changed, one new, one left out; and one without a name twice.
    let again = [
        request("e", "new"),
        request("b", "about b"),
        request("a", "changed"),
        request("d", "about d"),
    ];
    write_lines(&pool, "in.jsonl", &again);
    let second = submit_file(&pool, &["--key", "night"]);
    let new = ids(&second);
    assert_eq!((&new[2], &new[3]), (&old[0], &old[3]), "one is done, one on its way");
    assert!(!old.contains(&new[0]) && !old.contains(&new[1]), "one is new, one had failed");
    assert_eq!((&second["existing"], &second["new"]), (&json!(false), &json!(2)));
    assert_eq!(pool.files_in("pending").len(), 3);
    for (id, text) in [(&new[0], "an e"), (&new[1], "now a b"), (&new[3], "a d")] {
        ender.answer(id, text);
    }
    // The key stands for all that was ever submitted under it.
    let ran = pool.queue(&["results", "night", "--format", "text"]).success();
    assert_eq!(ran.stdout, "an e\nnow a b\nan a\na d\nsee, a \"c\"\n");
    let third = submit_file(&pool, &["--key", "night"]);
    assert_eq!((&third["existing"], &third["new"]), (&json!(true), &json!(0)));
    assert_eq!((ids(&third), &third["batch_id"]), (new, &second["batch_id"]));
    assert!(pool.files_in("pending").is_empty());
    // A line without a name is known by all that it says; the second equal one is another task.
    let plain = json!({"model": "tiny", "prompt": "x"});
    write_lines(&pool, "in.jsonl", &[plain.clone(), plain.clone()]);
    let one = ids(&submit_file(&pool, &["--key", "plain"]));
    write_lines(&pool, "in.jsonl", &[plain.clone(), plain.clone(), plain]);
    let two = ids(&submit_file(&pool, &["--key", "plain"]));
    assert!(two[..2] == one[..] && !one.contains(&two[2]), "{one:?} {two:?}");
    // A key of one task is no key of a batch.
    pool.queue(&["submit", "--key", "single", "--class", "cpu", "--", "true"]).success();
    let ran = pool.queue(&["submit", "--batch", "in.jsonl", "--key", "single"]).code(2);
    assert!(ran.stderr.contains("the key `single` is that of one task"), "{ran}");
}

#[test]
fn results_of_commands_tell_exit_code_and_log() {
    let pool = quick_pool("");
    let job = |words: &[&str]| {
        let command: Vec<_> = ["fake-job"].iter().chain(words).collect();
        json!({"class": "cpu", "command": command, "max_attempts": 1, "name": words[0]})
    };
    write_lines(&pool, "in.jsonl", &[job(&["say=x"]), job(&["exit=3"])]);
    let answer = submit_file(&pool, &[]);
    let _worker = pool.worker(&["--cpu", "--name", "w"]);
    let batch = answer["batch_id"].as_str().unwrap();
    let ran = pool.queue(&["results", batch, "--wait"]).code(100);
    let lines = ran.json_lines();
    let codes: Vec<_> = lines.iter().map(|line| line["exit_code"].as_i64().unwrap()).collect();
    assert_eq!(codes, [0, 3]);
    let log = lines[0]["log_path"].as_str().unwrap();
    assert_eq!(fs::read_to_string(log).unwrap(), "x\n");
    let text = pool.queue(&["results", batch, "--format", "text"]).code(100).stdout;
    assert!(text.contains(&format!(" exit 0 {log} say=x\n")), "{text}");
    let ran = pool.queue(&["results", batch, "--format", "openai"]).code(100);
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("1 task asked no model"), "{ran}");
}

/// The run log streams as it comes; the file has what the last attempt printed and no more. Here a
/// command prints: it does not matter who writes the log.
#[test]
fn what_a_task_prints_is_streamed_into_a_file_until_it_has_ended() {
    let pool = quick_pool("");
    let _worker = pool.worker(&["--cpu", "--name", "w"]);
    let gate = pool.fifo("gate");
    let words = [
        "submit",
        "--class",
        "cpu",
        "--stream-to",
        "out.txt",
        "--",
        "fake-job",
        "say=first",
        "mark=runs",
        &gate.word(),
        "say=second",
    ];
    let mut streams = pool.start(&mut pool.command("queue", &words));
    let held = gate.until_reached();
    let text = || fs::read_to_string(pool.at("out.txt")).unwrap_or_default();
    pool.until_true("the first words", || text().contains("first"));
    assert!(streams.is_running() && streams.stdout().trim().len() == 36);
    held.release();
    streams.end().success();
    assert_eq!(text(), "first\nsecond\n");
    let words = [
        "submit",
        "--class",
        "cpu",
        "--max-attempts",
        "2",
        "--stream-to",
        "out.txt",
        "--",
        "fake-job",
        "mark=tries",
        "say=again",
        "exit=3",
    ];
    let ran = pool.queue(&words).code(100);
    assert!(ran.stderr.contains(" failed"), "{ran}");
    assert_eq!(text(), "again\n", "only the last attempt's");
    let tries: Vec<Mark> = pool.marks("tries");
    assert_eq!(tries.iter().filter(|mark| mark.moment == tests::Moment::Start).count(), 2);
    let ran = pool.queue(&["submit", "--stream-to", "no/dir/f", "--class", "cpu", "--", "true"]);
    assert!(ran.code(1).stderr.contains("could not write `no/dir/f`"));
}
