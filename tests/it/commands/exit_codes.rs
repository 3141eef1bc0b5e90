//! Exit codes and error objects, and what is told about settings, completions and manual pages:
//! the rest of what scripts rely on besides `json.rs`.

use serde_json::{Value, json};
use tests::{Pool, Ran};

use crate::commands::json::{fields_of, has, queue, submit_words};
use crate::kit::*;

/// The error object on stderr.
#[track_caller]
fn refused(ran: Ran, code: i32) -> String {
    let ran = ran.code(code);
    assert_eq!(ran.stdout, "", "{ran}");
    let error: Value = serde_json::from_str(ran.stderr.trim()).unwrap_or_else(|_| panic!("{ran}"));
    has(&error, "error", &["error", "code"]);
    assert_eq!(error["code"], code, "{ran}");
    error["error"].as_str().unwrap().to_owned()
}

/// 0: all succeeded; 100: some did not; 75: not within the time.
#[test]
fn wait_and_its_exit_codes() {
    let pool = quick_pool("");
    let _worker = pool.worker(&["--cpu", "--name", "w", "--cpu-slots", "2"]);
    let good = submit_words(&pool, &["say=x"]);
    let words = ["submit", "--class", "cpu", "--max-attempts", "1", "--", "false"];
    let bad = pool.queue(&words).id();
    pool.queue(&["wait", &good]).success();
    let answer = pool.queue(&["wait", "--json", &good, &bad]).code(100).json();
    has(&answer, "wait", &["tasks", "succeeded", "failed", "cancelled"]);
    assert_eq!((&answer["succeeded"], &answer["failed"]), (&json!(1), &json!(1)));
    let gate = pool.fifo("gate");
    let open = submit_words(&pool, &["mark=runs", &gate.word()]);
    pool.queue(&["wait", "--timeout", "100ms", &open]).code(75);
    let waiting = pool.start(&mut pool.command("queue", &["wait", &open]));
    pool.queue(&["cancel", &open]).success();
    let mut waiting = waiting;
    waiting.end().code(100);
    let ids = format!("{good}\n{good}\n");
    pool.queue_with_input(&["wait", "-"], &ids).success();
    pool.queue(&["wait", "00000000"]).code(4);
}

#[test]
fn exit_codes_and_error_objects() {
    let pool = quick_pool("");
    // 3: no pool yet; looking makes none.
    for words in
        [&["ls"][..], &["status"], &["show", "x"], &["workers"], &["why"], &["cancel", "x"]]
    {
        let text = refused(pool.queue(&[words, &["--json"]].concat()), 3);
        assert!(text.starts_with("there is no pool at `"), "{text}");
    }
    assert!(!pool.dir().join("pending").is_dir());
    // 2: usage.
    let near = refused(pool.queue(&["submit", "--json", "--clas", "cpu", "--", "true"]), 2);
    assert!(near.contains("--class"), "{near}");
    refused(
        pool.queue(&["submit", "--json", "--priority", "11", "--class", "cpu", "--", "true"]),
        2,
    );
    refused(pool.queue(&["nonsense", "--json"]), 2);
    let bad = "{\"class\": \"cpu\", \"command\": [\"true\"]}\n{\"command\": [\"true\"], \"pirority\": 3}\n";
    let text = refused(pool.queue_with_input(&["submit", "--json", "--batch", "-"], bad), 2);
    assert!(text.contains(":2:pirority:") && text.contains("`priority`"), "{text}");
    assert!(text.contains("nothing was submitted"), "{text}");
    // 4: nothing matched. 0: there is a pool now, and an empty list is an answer.
    inside(&pool);
    refused(pool.queue(&["show", "--json", "00000000"]), 4);
    refused(pool.queue(&["why", "--json", "00000000"]), 4);
    pool.queue(&["ls", "--json"]).success();
    // Settings: an unknown one is named with its neighbour.
    pool.write_toml("stuck_aftr = \"1s\"\n");
    let text = refused(pool.queue(&["status", "--json"]), 2);
    assert!(text.contains("pool.toml:1") && text.contains("`stuck_after`"), "{text}");
    // 2 also for the other programs.
    pool.write_toml("");
    pool.worker(&[]).end().code(2);
    pool.brain(&[]).end().code(2);
}

#[test]
fn config_tells_where_each_value_came_from() {
    let pool = Pool::new();
    pool.write_toml("# mine\nstuck_after = \"7s\"\n");
    pool.env("HEARTBEAT_INTERVAL", "11");
    let text = pool.queue(&["config", "--explain"]).success().stdout;
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("stuck_after = \"7s\"").ends_with("pool.toml:2"), "{text}");
    assert!(line("heartbeat_interval = \"11s\"").ends_with("env HEARTBEAT_INTERVAL"), "{text}");
    assert!(line("monitor_interval = \"30s\"").ends_with("default"), "{text}");
    let answer = queue(&pool, &["config", "--explain", "--json"]);
    has(&answer, "config", &["settings"]);
    for row in answer["settings"].as_array().unwrap() {
        fields_of(row, &["name", "value", "origin"]);
    }
}

#[test]
fn completions_and_manual_pages_are_generated() {
    let pool = Pool::new();
    let bash = pool.queue(&["completions", "bash"]).success().stdout;
    assert!(bash.contains("_queue()") && bash.contains("submit"), "{}", bash.len());
    let man = pool.queue(&["man"]).success().stdout;
    assert!(man.contains(".TH queue 1"), "{}", &man[..200.min(man.len())]);
    let pages = pool.at("pages");
    pool.queue(&["man", &pages]).success();
    assert!(std::path::Path::new(&pages).join("queue-submit.1").is_file());
}

/// Passed over, it would mean another pool.
#[test]
fn a_variable_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt as _;
    let pool = Pool::new();
    let name = std::ffi::OsString::from_vec(b"/tmp/bad\xff".to_vec());
    for program in ["queue", "worker", "brain"] {
        let args: &[&str] = if program == "queue" { &["ls"] } else { &["--cpu"] };
        let mut command = pool.command(program, args);
        command.env("BRAINSTEM_POOL", &name);
        let ran = pool.start(&mut command).end().code(2);
        assert!(ran.stderr.contains("BRAINSTEM_POOL is not UTF-8"), "{ran}");
    }
}
