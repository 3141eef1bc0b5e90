//! Steps that many tests take: submit this, wait for that, look what became of it.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use shared::task::TaskName;
use tests::Pool;

/// Settings under which nothing is waited for longer than a test has patience.
pub(crate) const QUICK: &str = r#"
idle_poll = "200ms"
poll_without_notify = "200ms"
heartbeat_interval = "500ms"
grace_period = "300ms"
retry_backoff_first = "50ms"
retry_backoff_max = "100ms"
reserve_size = "1MiB"
"#;

/// A pool that does everything soon; `more` are further settings, or other values of these.
pub(crate) fn quick(more: &str) -> Pool {
    let pool = Pool::new();
    pool.write_toml(&settings(more));
    pool
}

/// [`QUICK`], changed and completed by `more`.
pub(crate) fn settings(more: &str) -> String {
    merge(QUICK, more)
}

/// Settings, changed and completed by `more`.
pub(crate) fn merge(settings: &str, more: &str) -> String {
    let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let changed: Vec<_> = more.lines().map(key).collect();
    let kept = settings.lines().filter(|line| !changed.contains(&key(line)));
    // Tables come last in TOML.
    kept.chain(more.lines()).map(|line| format!("{line}\n")).collect()
}

/// `queue submit OPTIONS -- fake-job WORDS`; its id.
pub(crate) fn submit(pool: &Pool, options: &[&str], words: &[&str]) -> String {
    let job = ["--", "fake-job"];
    let args: Vec<_> = [&["submit"], options, &job, words].concat();
    pool.queue(&args).id()
}

/// Submits task objects as one batch; what `queue submit --json` answered.
pub(crate) fn submit_batch(pool: &Pool, tasks: &[Value]) -> Value {
    let file = pool.home().join("batch.jsonl");
    let lines: String = tasks.iter().map(|task| format!("{task}\n")).collect();
    fs::write(&file, lines).unwrap();
    pool.queue(&["submit", "--json", "--batch", "batch.jsonl"]).success().json()
}

/// The ids in such an answer.
pub(crate) fn ids(answer: &Value) -> Vec<String> {
    let ids = answer["ids"].as_array().unwrap();
    ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// `queue show --json ID`
pub(crate) fn show(pool: &Pool, id: &str) -> Value {
    pool.queue(&["show", "--json", id]).success().json()
}

/// The ledger lines of one task, by attempt.
pub(crate) fn lines_of(pool: &Pool, id: &str) -> Vec<Value> {
    let mut lines = pool.ledger();
    lines.retain(|line| line["id"] == id);
    lines.sort_by_key(|line| line["attempt"].as_u64());
    lines
}

/// Waits until a task is over, however it ended; its last ledger line.
#[track_caller]
pub(crate) fn until_over(pool: &Pool, id: &str) -> Value {
    pool.until(&format!("the end of {id}"), || {
        let last = lines_of(pool, id).pop()?;
        let is_last = matches!(last["next"].as_str(), Some("end" | "failed"));
        // The line is written first, then carried out.
        (is_last && file_of(pool, "processing", id).is_none()).then_some(last)
    })
}

/// Waits until a task is in the hands of a worker, and its job runs.
#[track_caller]
pub(crate) fn until_running(pool: &Pool, worker: &str, id: &str) -> Value {
    pool.until(&format!("{id} in the heartbeat of {worker}"), || {
        let heartbeat = pool.heartbeat(worker)?;
        let current = heartbeat["current"].as_array()?;
        let is_it = |run: &&Value| run["task_id"] == id && !run["pgid"].is_null();
        current.iter().find(is_it).cloned()
    })
}

/// What the job of an attempt printed.
pub(crate) fn log_of(pool: &Pool, id: &str, attempt: u32) -> String {
    let name = format!("{id}.a{attempt}.log");
    let file = pool.files_in("runs").into_iter().find(|file| file.ends_with(&name)).unwrap();
    String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned()
}

/// The messages that a worker said at a level, in order.
pub(crate) fn messages(pool: &Pool, worker: &str, event: &str) -> Vec<String> {
    let log = pool.log(&format!("worker-{worker}"));
    let lines = log.iter().filter(|line| line["event"] == event);
    lines.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
}

/// Waits for a sentence in the log of a worker.
#[track_caller]
pub(crate) fn until_said(pool: &Pool, worker: &str, sentence: &str) -> Value {
    let log = format!("worker-{worker}");
    pool.until(&format!("`{sentence}` said by {worker}"), || {
        pool.news(&log)
            .into_iter()
            .find(|line| line["message"].as_str().is_some_and(|message| message.contains(sentence)))
    })
}

/// Waits until a worker is ready for work.
#[track_caller]
pub(crate) fn until_up(pool: &Pool, worker: &str) {
    pool.until_event(&format!("worker-{worker}"), "worker.starting");
}

/// The file of a task, if it is in this place of the pool.
pub(crate) fn file_of(pool: &Pool, place: &str, id: &str) -> Option<PathBuf> {
    let is_it = |file: &PathBuf| {
        let name = file.file_name().and_then(|name| name.to_str());
        let name = name.and_then(|name| TaskName::from_file_name(name).ok());
        name.is_some_and(|name| name.id.to_string() == id)
    };
    pool.files_in(place).into_iter().find(is_it)
}
