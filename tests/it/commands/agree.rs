//! Commands that tell of the same task say the same of it, whatever has become of it meanwhile.

use serde_json::{Value, json};
use tests::Pool;

use crate::kit::steps::{ids, quick, show, submit_batch, until_over};

/// Fails until `flag` is there.
fn once_there(pool: &Pool, flag: &str) -> Value {
    json!({"shell": format!("test -e '{}'", pool.at(flag)), "class": "cpu", "max_attempts": 1})
}

fn good() -> Value {
    json!({"command": ["fake-job"], "class": "cpu"})
}

/// What `queue ls` shows of a batch, as `id state` lines.
fn listed(pool: &Pool, batch: &str) -> Vec<(String, String)> {
    let lines = pool.queue(&["ls", "--batch", batch, "--json"]).success().json_lines();
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    lines.iter().map(|line| (text(line, "id"), text(line, "state"))).collect()
}

#[test]
fn a_batch_whose_failed_task_was_retried_and_succeeded_is_a_success() {
    let pool = quick("");
    let mut tasks = vec![good(); 39];
    tasks.insert(7, once_there(&pool, "flag"));
    let answer = submit_batch(&pool, &tasks);
    let (batch, ids) = (answer["batch_id"].as_str().unwrap(), ids(&answer));
    let _worker = pool.worker(&["--cpu"]);
    pool.queue(&["wait", batch]).code(100);
    assert_eq!(show(&pool, &ids[7])["state"], "failed");
    std::fs::write(pool.at("flag"), "").unwrap();
    pool.queue(&["retry", &ids[7]]).success();
    pool.queue(&["wait", batch]).success();
    pool.queue(&["wait", &ids[7]]).success();
    let listed = listed(&pool, batch);
    assert_eq!(listed.len(), 40, "each once: {listed:?}");
    assert!(listed.iter().all(|(_id, state)| state == "succeeded"), "{listed:?}");
}

#[test]
fn who_waits_already_hears_of_the_second_chance() {
    let pool = quick("");
    let gate = pool.fifo("gate");
    let held = json!({"command": ["fake-job", gate.word()], "class": "cpu"});
    let answer = submit_batch(&pool, &[held, once_there(&pool, "flag")]);
    let (batch, ids) = (answer["batch_id"].as_str().unwrap(), ids(&answer));
    let mut waiting = pool.start(&mut pool.command("queue", &["wait", batch]));
    let _worker = pool.worker(&["--cpu", "--cpu-slots", "2"]);
    let job = gate.until_reached();
    assert_eq!(until_over(&pool, &ids[1])["outcome"], "failed");
    pool.until_true("it to lie with those that failed", || {
        show(&pool, &ids[1])["state"] == "failed" && !pool.files_in("failed").is_empty()
    });
    std::fs::write(pool.at("flag"), "").unwrap();
    pool.queue(&["retry", &ids[1]]).success();
    pool.until_true("its second chance to be used", || {
        show(&pool, &ids[1])["state"] == "succeeded"
    });
    job.release();
    waiting.end().success();
}

#[test]
fn after_wait_nothing_says_that_the_task_runs() {
    let pool = quick("");
    let _worker = pool.worker(&["--cpu", "--name", "w"]);
    for _task in 0..10 {
        let answer = submit_batch(&pool, &[good()]);
        let (batch, id) = (answer["batch_id"].as_str().unwrap(), &ids(&answer)[0]);
        pool.queue(&["wait", batch]).success();
        assert_eq!(show(&pool, id)["state"], "succeeded");
        let why = pool.queue(&["why", id, "--json"]).success().json();
        assert_eq!(why["verdict"], "gone", "{why}");
        assert_eq!(listed(&pool, batch), [(id.clone(), "succeeded".to_owned())]);
        let workers = pool.queue(&["workers", "--json"]).success().json();
        assert_eq!(workers["workers"][0]["current"], json!([]), "{workers}");
        assert_eq!(workers["workers"][0]["status"], "idle", "{workers}");
    }
}

#[test]
fn who_waits_is_told_of_what_a_person_holds() {
    let pool = quick("");
    let answer = submit_batch(&pool, &[good(), json!({"command": ["fake-job"], "hold": true})]);
    let (batch, ids) = (answer["batch_id"].as_str().unwrap(), ids(&answer));
    let mut waiting = pool.start(&mut pool.command("queue", &["wait", batch]));
    let short = &ids[1][ids[1].len() - 8..];
    let told = format!(
        "1 task that this waits for is held by a person, {short} for one: `queue release {short}`"
    );
    pool.until_true("it to be told", || waiting.stderr().contains(&told));
    pool.queue(&["release", short]).success();
    let _worker = pool.worker(&["--gpu", "0"]);
    waiting.end().success();
}

#[test]
fn why_of_a_batch_tells_of_its_first_task_that_has_not_ended() {
    let pool = quick("");
    let gate = pool.fifo("gate");
    let held = json!({"command": ["fake-job", gate.word()], "class": "cpu"});
    let answer = submit_batch(&pool, &[good(), held]);
    let (batch, ids) = (answer["batch_id"].as_str().unwrap(), ids(&answer));
    let _worker = pool.worker(&["--cpu", "--name", "w", "--cpu-slots", "2"]);
    let job = gate.until_reached();
    until_over(&pool, &ids[0]);
    let why = pool.queue(&["why", batch, "--json"]).success().json();
    assert_eq!((&why["subject"]["kind"], &why["verdict"]), (&json!("batch"), &json!("running")));
    let text = why["text"].as_str().unwrap();
    assert!(
        text.starts_with("1 of 2 tasks have not ended; ") && text.contains("w runs it"),
        "{text}"
    );
    job.release();
    pool.queue(&["wait", batch]).success();
    let why = pool.queue(&["why", batch, "--json"]).success().json();
    assert_eq!(
        (&why["text"], &why["verdict"]),
        (&json!("all have ended: 2 of 2 tasks succeeded"), &json!("gone"))
    );
    let none = pool.queue(&["why", "night"]).code(4);
    assert!(
        none.stderr.contains("no task, batch, worker, GPU or model is called `night`"),
        "{none}"
    );
}

/// A limit that a dead worker's task uses up, and nobody to settle it.
#[test]
fn who_uses_up_a_limit_is_told_and_what_frees_it() {
    let pool = quick("");
    let dead = pool.worker(&["--cpu", "--name", "dead", "--cpu-slots", "1"]);
    crate::kit::steps::until_up(&pool, "dead");
    pool.queue(&["limit", "label=room:1", "1"]).success();
    let label = ["--class", "cpu", "--label", "room=1"];
    let first = crate::kit::steps::submit(&pool, &label, &["hang"]);
    crate::kit::steps::until_running(&pool, "dead", &first);
    drop(dead.kill9());
    let _living = pool.worker(&["--cpu", "--name", "living"]);
    let second = crate::kit::steps::submit(&pool, &label, &["say=x"]);
    let reason = || {
        let why = pool.queue(&["why", &second, "--json"]).code(5).json();
        let reasons = why["reasons"].as_array().unwrap().clone();
        reasons.into_iter().find(|reason| reason["code"] == "limit.reached")
    };
    let reason = pool.until("the limit to be named", reason);
    let short = &first[first.len() - 8..];
    assert!(
        reason["text"].as_str().unwrap().contains(&format!("{short} of dead, which is dead")),
        "{reason}"
    );
    assert_eq!(reason["fix"], format!("queue settle {short}"));
    pool.queue(&["settle", &first]).success();
    assert_eq!(until_over(&pool, &second)["outcome"], "succeeded");
}

/// Somebody removes the file of a task that has not ended: no command waits for it or turns in a
/// circle, and each says what has happened.
#[test]
fn a_task_whose_file_was_removed_is_said_to_be_gone() {
    let pool = quick("retry_backoff_first = \"1h\"\nretry_backoff_max = \"1h\"\n");
    let answer = submit_batch(&pool, &[json!({"shell": "exit 1", "class": "cpu"}), good()]);
    let (batch, ids) = (answer["batch_id"].as_str().unwrap(), ids(&answer));
    let _worker = pool.worker(&["--cpu"]);
    let delayed = || {
        let files = pool.files_in("delayed");
        files.into_iter().find(|path| path.to_string_lossy().contains(&ids[0]))
    };
    pool.until_true("it to wait for its next attempt", || delayed().is_some());
    std::fs::remove_file(delayed().unwrap()).unwrap();
    for verb in ["hold", "release", "retry"] {
        let told = pool.queue(&[verb, &ids[0]]).code(4);
        assert!(told.stderr.contains("its file is gone"), "{told}");
    }
    let cancelled = pool.queue(&["cancel", batch]).code(4);
    assert!(cancelled.stdout.contains("its file is gone"), "{cancelled}");
    let waited = pool.queue(&["wait", batch]).code(100);
    assert!(waited.stderr.contains("its file is gone"), "{waited}");
}
