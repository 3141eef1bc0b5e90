//! What became of a batch: results in every form, batches that are submitted again under their
//! key, answers streamed into a file. The answers are written through the library, as a worker
//! would.

use std::fs;

use queue::dir::find::places;
use queue::dir::ledger::append::Ledger;
use queue::dir::ledger::carry_out;
use queue::wire::ledger_line::{Line, Writer};
use queue::wire::retry::{Policy, Verdict, next};
use serde_json::{Value, json};
use shared::id::TaskId;
use shared::llm::Answer;
use shared::outcome::Cause;
use shared::time::Moment;
use tests::{Mark, Pool};

use crate::commands::json::{fields_of, has};
use crate::commands::llm_cli::{request, submit_file, write_lines};
use crate::kit::steps::ids;
use crate::kit::{inside, quick_pool};

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
        carry_out::carry_out(&self.pool, &path, &task, &line).unwrap();
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
                writing_seconds: None,
                flaw: None,
            });
        });
    }

    fn refuse(&self, id: &str) {
        self.end(id, Verdict::Refused(Cause::ModelMissing), |line| {
            line.error_message = Some("model 'tiny' not found".into());
        });
    }
}

/// Four requests, of which 1 failed, 3 has not ended, and 2 came before 0.
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
    let (answer, _ender) = half_done(&pool);
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
    let shown = pool.queue(&["show", &answer["ids"][0].as_str().unwrap()[28..]]).success();
    let told = "7 tokens read, 11 written, 1.5s, 10.0 tokens/s, first token after 0.5s";
    assert!(shown.stdout.contains(told) && shown.stdout.contains("an a"), "{shown}");
    let listed = pool.queue(&["ls", "--state", "succeeded"]).success();
    assert!(listed.stdout.contains("[tiny: 11 tokens in 1.5s]"), "{listed}");
    for (words, told) in [
        (&["results", "nothing"][..], "no batch has this key"),
        (&["results", "00000000"], "no batch has this key"),
    ] {
        let ran = pool.queue(words).code(4);
        assert!(ran.stderr.contains(told), "{ran}");
    }
}

#[test]
fn a_batch_is_waited_for_and_listed_by_its_key() {
    let pool = quick_pool("");
    let (answer, ender) = half_done(&pool);
    let listed = pool.queue(&["ls", "--json", "--batch", "night"]).success().json_lines();
    assert_eq!(custom_ids(&listed), ["d", "b", "c", "a"]);
    let one = pool.queue(&["show", "night"]).code(4);
    assert!(one.stderr.contains("is a batch of 4 tasks; name one task"), "{one}");
    let late = pool.queue(&["wait", "--json", "night", "--timeout", "0s"]).code(75).json();
    assert_eq!((&late["open"], &late["succeeded"]), (&json!(1), &json!(2)), "{late}");
    ender.answer(&ids(&answer)[3], "a d");
    let over = pool.queue_with_input(&["wait", "--json", "-"], "night").code(100).json();
    assert_eq!((&over["open"], &over["succeeded"]), (&json!(0), &json!(3)), "{over}");
    let none = pool.queue(&["wait", "days"]).code(4);
    assert!(none.stderr.contains("no batch has this key"), "{none}");
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
