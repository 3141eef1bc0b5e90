//! The JSON that scripts rely on, field by field, and the exit codes: what section 17 of the
//! design promises, asked of real programs.

use serde_json::{Value, json};
use tests::{FakeGpu, Pool};

use crate::kit::*;

/// Insists that an object names its schema and has these fields; more are allowed.
#[track_caller]
pub(crate) fn has(value: &Value, schema: &str, fields: &[&str]) {
    assert_eq!(value["schema"], format!("brainstem.{schema}/1"), "{value}");
    fields_of(value, fields);
}

#[track_caller]
pub(crate) fn fields_of(value: &Value, fields: &[&str]) {
    let object = value.as_object().unwrap_or_else(|| panic!("no object: {value}"));
    for field in fields {
        assert!(object.contains_key(*field), "`{field}` is missing in {value}");
    }
}

/// `2026-02-07T20:45:30.123Z`
#[track_caller]
fn is_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z");
}

pub(crate) fn queue(pool: &Pool, words: &[&str]) -> Value {
    pool.queue(words).success().json()
}

const CPU: [&str; 4] = ["submit", "--class", "cpu", "--"];

pub(crate) fn submit_words(pool: &Pool, words: &[&str]) -> String {
    pool.queue(&[&CPU[..], &["fake-job"], words].concat()).id()
}

#[test]
fn submit() {
    let pool = quick_pool("");
    let answer = queue(&pool, &["submit", "--json", "--key", "k", "--class", "cpu", "--", "true"]);
    has(&answer, "submit", &["ids", "batch_id", "existing"]);
    let id = answer["ids"][0].as_str().unwrap().to_owned();
    assert_eq!((id.len(), answer["ids"].as_array().unwrap().len()), (36, 1));
    assert_eq!((&answer["batch_id"], &answer["existing"]), (&Value::Null, &json!(false)));
    let again = queue(&pool, &["submit", "--json", "--key", "k", "--class", "cpu", "--", "true"]);
    assert_eq!((&again["ids"], &again["existing"]), (&answer["ids"], &json!(true)));
    // People get the id and nothing else on stdout.
    let plain = pool.queue(&["submit", "--class", "cpu", "--", "true"]).success();
    assert_eq!(plain.stdout.trim().len(), 36, "{plain}");
    let lines = "{\"class\": \"cpu\", \"command\": [\"true\"], \"name\": \"a\"}\n\
                 {\"class\": \"cpu\", \"shell\": \"true\", \"after\": [\"a\"]}\n";
    let batch = pool.queue_with_input(&["submit", "--json", "--batch", "-"], lines);
    let batch = batch.success().json();
    assert_eq!(batch["ids"].as_array().unwrap().len(), 2);
    assert_eq!(batch["batch_id"].as_str().unwrap().len(), 36);
}

#[test]
fn status() {
    let pool = quick_pool("");
    let first = submit_words(&pool, &["say=x"]);
    let status = queue(&pool, &["status", "--json"]);
    has(&status, "status", &["counts", "lanes", "workers", "brain", "stuck", "warnings"]);
    let counts = json!({
        "pending": 1, "processing": 0, "delayed": 0, "waiting": 0, "held": 0, "failed": 0,
        "complete": 0, "cancelled": 0, "rejected": 0,
    });
    assert_eq!(status["counts"], counts);
    let lane = &status["lanes"][0];
    fields_of(lane, &["lane", "class", "model", "priority_max", "pending", "oldest_seconds"]);
    assert_eq!((&lane["class"], &lane["model"]), (&json!("cpu"), &Value::Null));
    assert_eq!((&lane["priority_max"], &lane["pending"]), (&json!(5), &json!(1)));
    assert!(lane["oldest_seconds"].as_f64().unwrap() >= 0.0);
    let brain = json!({"alive": false, "pid": null, "since": null, "standby": null});
    assert_eq!(status["brain"], brain, "unknown is null, never 0");
    assert_eq!((&status["workers"], &status["stuck"]), (&json!([]), &json!([])));

    let brain = pool.brain(&["--no-spawn"]);
    let _worker = pool.worker(&["--cpu", "--name", "w"]);
    pool.queue(&["wait", &first]).success();
    let failed =
        pool.queue(&["submit", "--class", "cpu", "--max-attempts", "1", "--", "false"]).id();
    pool.queue(&["wait", &failed]).code(100);
    let status = pool.until("a brain in the status", || {
        let status = queue(&pool, &["status", "--json"]);
        (status["brain"]["since"].is_string()).then_some(status)
    });
    assert_eq!(status["brain"]["alive"], true);
    assert_eq!(status["brain"]["pid"], brain.pid());
    is_time(&status["brain"]["since"]);
    assert_eq!(
        (&status["counts"]["complete"], &status["counts"]["failed"]),
        (&json!(1), &json!(1))
    );
}

#[test]
fn ls_and_show() {
    let pool = quick_pool("");
    let first_eight =
        ["id", "state", "class", "name", "priority", "lane", "submitted_at", "attempt"];
    let words =
        ["submit", "--class", "cpu", "--name", "n", "--priority", "7", "--max-attempts", "1"];
    let id = pool.queue(&[&words[..], &["--", "fake-job", "say=x", "exit=3"]].concat()).id();
    let lines = pool.queue(&["ls", "--json"]).success().json_lines();
    assert_eq!(lines.len(), 1);
    has(&lines[0], "ls", &first_eight);
    assert_eq!(lines[0]["id"], id);
    assert_eq!((&lines[0]["state"], &lines[0]["name"]), (&json!("pending"), &json!("n")));
    assert_eq!((&lines[0]["priority"], &lines[0]["attempt"]), (&json!(7), &json!(1)));
    is_time(&lines[0]["submitted_at"]);

    let _worker = pool.worker(&["--cpu", "--name", "w"]);
    pool.queue(&["wait", &id]).code(100);
    // Any unique end of an id will do.
    let show = queue(&pool, &["show", "--json", &id[28..]]);
    has(&show, "show", &first_eight);
    fields_of(&show, &["spec", "attempts"]);
    assert_eq!((&show["id"], &show["state"]), (&json!(id), &json!("failed")));
    assert_eq!(show["spec"]["command"], json!(["fake-job", "say=x", "exit=3"]));
    let attempt = &show["attempts"][0];
    fields_of(
        attempt,
        &[
            "attempt",
            "worker",
            "gpu_uuid",
            "started_at",
            "ended_at",
            "outcome",
            "cause",
            "exit_code",
            "signal",
            "error_message",
            "log_path",
            "peak_vram_bytes",
            "diagnostics_path",
        ],
    );
    assert_eq!((&attempt["attempt"], &attempt["worker"]), (&json!(1), &json!("w")));
    assert_eq!((&attempt["outcome"], &attempt["cause"]), (&json!("failed"), &json!("exit_code")));
    assert_eq!((&attempt["exit_code"], &attempt["signal"]), (&json!(3), &Value::Null));
    assert_eq!((&attempt["gpu_uuid"], &attempt["peak_vram_bytes"]), (&Value::Null, &Value::Null));
    is_time(&attempt["started_at"]);
    is_time(&attempt["ended_at"]);
    let log = std::fs::read_to_string(attempt["log_path"].as_str().unwrap()).unwrap();
    assert_eq!(log, "x\n");
    assert_eq!(queue(&pool, &["ls", "--json", "--state", "failed"])["id"], id);
    assert_eq!(pool.queue(&["ls", "--state", "held", "--json"]).success().stdout, "");
}

const WORKER: [&str; 15] = [
    "name",
    "host",
    "pid",
    "gpu",
    "gpu_uuid",
    "alive",
    "status",
    "heartbeat_age_seconds",
    "idle_seconds",
    "current",
    "models",
    "completed",
    "failed",
    "lost_races",
    "claim",
];

#[test]
fn workers() {
    let pool = quick_pool("heartbeat_warn = \"1s\"\n");
    pool.fake_gpus(&[FakeGpu::new("GPU-a"), FakeGpu::new("GPU-b")]);
    let worker = pool.worker(&["--gpu", "1"]);
    let gate = pool.fifo("gate");
    let id = submit_words(&pool, &["mark=runs", &gate.word()]);
    let seen = |pool: &Pool| queue(pool, &["workers", "--json"])["workers"][0].clone();
    let busy = pool.until("a started task in `workers`", || {
        let worker = seen(&pool);
        worker["current"][0]["started_at"].is_string().then_some(worker)
    });
    fields_of(&busy, &WORKER);
    assert_eq!((&busy["name"], &busy["pid"]), (&json!("worker-1"), &json!(worker.pid())));
    assert_eq!((&busy["gpu"], &busy["gpu_uuid"]), (&json!(1), &json!("GPU-b")));
    assert_eq!((&busy["alive"], &busy["status"]), (&json!(true), &json!("processing")));
    assert!(busy["heartbeat_age_seconds"].as_f64().is_some());
    assert_eq!((&busy["idle_seconds"], &busy["models"]), (&Value::Null, &json!([])));
    let current = &busy["current"][0];
    fields_of(
        current,
        &["task_id", "attempt", "class", "name", "started_at", "last_output_age_seconds"],
    );
    assert_eq!((&current["task_id"], &current["attempt"]), (&json!(id), &json!(1)));
    assert_eq!(current["class"], "cpu");
    fields_of(&busy["claim"], &["at", "result", "reasons"]);

    worker.stop();
    let hung = pool.until("a hung worker", || {
        let worker = seen(&pool);
        (worker["status"] == "hung").then_some(worker)
    });
    assert_eq!(hung["alive"], true, "hung is not dead");
    worker.cont();
    gate.release();
    pool.queue(&["wait", &id]).success();
    let idle = pool.until("an idle worker", || {
        let worker = seen(&pool);
        (worker["status"] == "idle" && worker["completed"] == 1).then_some(worker)
    });
    assert!(idle["idle_seconds"].as_f64().is_some());
    assert_eq!(idle["current"], json!([]));
    worker.kill9();
    let dead = seen(&pool);
    assert_eq!((&dead["alive"], &dead["name"]), (&json!(false), &json!("worker-1")));
}

/// `queue workers --json` names its schema too.
#[test]
fn workers_of_an_empty_pool_are_an_empty_list() {
    let pool = quick_pool("");
    inside(&pool);
    let none = queue(&pool, &["workers", "--json"]);
    has(&none, "workers", &["workers"]);
    assert_eq!(none["workers"], json!([]));
    assert_eq!(pool.queue(&["ls", "--json"]).success().stdout, "", "an empty ls exits 0");
}

#[test]
fn gpus() {
    let pool = quick_pool("");
    inside(&pool);
    let mut busy = FakeGpu::new("GPU-b");
    busy.used_mib = "3000".into();
    busy.utilization = "-".into();
    busy.temperature = "!".into();
    busy.processes = vec![(std::process::id(), 2000)];
    pool.fake_gpus(&[FakeGpu::new("GPU-a"), busy]);
    let _worker = pool.worker(&["--gpu", "1"]);
    until_alive(&pool, "worker-1");
    let answer = queue(&pool, &["gpus", "--json"]);
    has(&answer, "gpus", &["gpus"]);
    let (a, b) = (&answer["gpus"][0], &answer["gpus"][1]);
    for gpu in [a, b] {
        fields_of(
            gpu,
            &[
                "index",
                "uuid",
                "name",
                "memory_total",
                "memory_used",
                "utilization",
                "temperature",
                "power_watts",
                "throttle",
                "worker",
                "processes",
            ],
        );
    }
    assert_eq!((&a["index"], &a["uuid"]), (&json!(0), &json!("GPU-a")));
    assert_eq!((&a["memory_used"], &a["worker"]), (&json!(0), &Value::Null));
    assert_eq!(
        (&b["memory_total"], &b["memory_used"]),
        (&json!(12288_u64 << 20), &json!(3000_u64 << 20))
    );
    assert_eq!((&b["utilization"], &b["temperature"]), (&Value::Null, &Value::Null));
    assert_eq!(b["worker"], "worker-1");
    let process = json!({"pid": std::process::id(), "memory": 2000_u64 << 20, "task_id": null});
    assert_eq!(b["processes"], json!([process]));
}

#[test]
fn gpus_of_a_machine_without_any() {
    let pool = quick_pool("");
    inside(&pool);
    let answer = queue(&pool, &["gpus", "--json"]);
    assert_eq!(answer["gpus"], json!([]));
}

#[track_caller]
fn why(pool: &Pool, words: &[&str], code: i32) -> Value {
    let ran = pool.queue(&[&["why", "--json"], words].concat()).code(code);
    let answer = ran.json();
    has(&answer, "why", &["subject", "at", "verdict", "reasons"]);
    is_time(&answer["at"]);
    fields_of(&answer["subject"], &["kind", "id"]);
    for reason in answer["reasons"].as_array().unwrap() {
        let fields = ["code", "text", "evidence", "since", "worker", "lane", "count", "fix"];
        fields_of(reason, &fields);
        assert!(reason["evidence"].is_object(), "{reason}");
    }
    answer
}

fn codes(answer: &Value) -> Vec<&str> {
    answer["reasons"].as_array().unwrap().iter().map(|r| r["code"].as_str().unwrap()).collect()
}

#[test]
fn why_not_with_its_exit_codes() {
    let pool = quick_pool("");
    let id = submit_words(&pool, &["say=x"]);
    // Nobody takes it, and nobody is there to start somebody: waiting alone does not help.
    let nobody = why(&pool, &[&id], 5);
    assert_eq!(nobody["subject"], json!({"kind": "task", "id": id}));
    assert_eq!(nobody["verdict"], "blocked");
    assert!(codes(&nobody).contains(&"class.no_worker"), "{nobody}");
    let held = pool.queue(&["submit", "--class", "cpu", "--hold", "--", "true"]).id();
    assert!(codes(&why(&pool, &[&held], 5)).contains(&"held.person"));
    let after = pool.queue(&["submit", "--class", "cpu", "--after", &held, "--", "true"]).id();
    assert!(codes(&why(&pool, &[&after], 5)).contains(&"waiting.dependency"));

    pool.fake_gpus(&[FakeGpu::new("GPU-a")]);
    let _worker = pool.worker(&["--gpu", "0"]);
    pool.queue(&["wait", &id]).success();
    // Its end is recorded before it is carried out.
    until_place(&pool, id.parse().unwrap(), "gone");
    let gone = why(&pool, &[&id], 0);
    assert_eq!(gone["verdict"], "gone", "{gone}");
    // How it ended is told, and the command that helps.
    let failed = ["submit", "--class", "cpu", "--max-attempts", "1", "--", "fake-job", "exit=3"];
    let failed = pool.queue(&failed).id();
    pool.queue(&["wait", &failed]).code(100);
    until_place(&pool, failed.parse().unwrap(), "failed a1f1d0");
    let gone = why(&pool, &[&failed], 0);
    assert_eq!(gone["verdict"], "gone", "{gone}");
    let again = format!("`queue retry {}` gives it another chance", &failed[28..]);
    let how = format!("it failed after 1 attempt (exit_code): exit code 3; {again}");
    assert_eq!(gone["text"], how);
    // More memory than any GPU here has.
    let big = pool.queue(&["submit", "--gpu-mem", "99GiB", "--", "true"]).id();
    let impossible = why(&pool, &[&big], 6);
    assert_eq!(impossible["verdict"], "impossible");
    let gate = pool.fifo("gate");
    let running = submit_words(&pool, &["mark=runs", &gate.word()]);
    let held = gate.until_reached();
    // The heartbeat names it from the claim on; since when it runs, once it does.
    pool.until_true("the worker to say so", || {
        let run = &pool.heartbeat("worker-0").unwrap()["current"][0];
        run["task_id"] == running && run["started_at"].is_string()
    });
    let answer = why(&pool, &[&running], 0);
    assert_eq!(answer["verdict"], "running", "{answer}");
    // Behind it: the worker's cpu slot is taken, by whom and since when.
    let next = submit_words(&pool, &["say=x"]);
    let busy = why(&pool, &[&next], 5);
    let reason = busy["reasons"].as_array().unwrap().iter().find(|r| r["code"] == "worker.busy");
    let reason = reason.unwrap_or_else(|| panic!("{busy}"));
    assert_eq!(
        (&reason["worker"], &reason["evidence"]["task_id"]),
        (&json!("worker-0"), &json!(running))
    );
    is_time(&reason["since"]);
    assert_eq!(why(&pool, &["worker-0"], 0)["subject"]["kind"], "worker");
    pool.queue(&["pause"]).success();
    assert!(codes(&why(&pool, &[&next], 5)).contains(&"paused"));
    pool.queue(&["resume"]).success();
    held.release();
    pool.queue(&["wait", &next]).success();
    // The whole pool.
    let whole = pool.queue(&["why", "--json"]).json();
    has(&whole, "why", &["subject", "at", "verdict", "reasons"]);
    assert_eq!(whole["subject"]["kind"], "pool");
}

#[test]
fn doctor() {
    let pool = quick_pool("");
    inside(&pool);
    let answer = queue(&pool, &["doctor", "--json"]);
    has(&answer, "doctor", &["checks"]);
    let checks = answer["checks"].as_array().unwrap();
    for check in checks {
        fields_of(check, &["name", "ok", "detail", "fix"]);
        assert_eq!(check["ok"], true, "{check}");
    }
    let names: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    for name in ["locks", "rename", "notification", "disk", "gpu", "clock"] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    quicken(&pool, "disk_low = \"900TiB\"\n");
    let ran = pool.queue(&["doctor", "--json"]);
    assert_ne!(ran.status.code(), Some(0), "{ran}");
    let answer = ran.json();
    let disk = answer["checks"].as_array().unwrap().iter().find(|c| c["name"] == "disk").unwrap();
    assert_eq!(disk["ok"], false);
    assert!(disk["fix"].is_string());
}

/// The log is JSON lines that carry what section 7 of the design names.
#[test]
fn log_lines() {
    let pool = quick_pool("");
    let mut worker = pool.worker(&["--cpu", "--name", "w"]);
    let id = submit_words(&pool, &["say=x"]);
    pool.queue(&["wait", &id]).success();
    worker.term();
    worker.end().success();
    let lines = pool.log("worker-w");
    let mut seqs = Vec::new();
    for line in &lines {
        fields_of(line, &["timestamp", "level", "logger", "message", "event", "source", "seq"]);
        is_time(&line["timestamp"]);
        fields_of(&line["source"], &["file", "line"]);
        assert_eq!(line["worker_id"], "w");
        seqs.push(line["seq"].as_u64().unwrap());
    }
    let expected: Vec<_> = (seqs[0]..seqs[0] + seqs.len() as u64).collect();
    assert_eq!(seqs, expected, "nothing is missing");
    let claimed = lines.iter().find(|line| line["event"] == "claim.won").unwrap();
    assert_eq!((&claimed["task_id"], &claimed["attempt"]), (&json!(id), &json!(1)));
    assert!(claimed["correlation_id"].is_string());
    let submitted = pool.log("queue");
    let submitted = submitted.iter().find(|line| line["event"] == "task.submitted").unwrap();
    assert_eq!(submitted["task_id"], id);
    assert_eq!(submitted["correlation_id"], claimed["correlation_id"], "it follows the task");
}
