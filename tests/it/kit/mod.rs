//! What several of these tests do with a pool besides running programs in it: tasks that are
//! submitted through the library, and what became of them.

pub(super) mod disk;
pub(super) mod garbage;
pub(super) mod steps;

use std::fs;
use std::path::PathBuf;

use queue::dir::disk::place::Found;
use queue::dir::find::places;
use queue::dir::submit::one::Submitter;
use queue::dir::{Privacy, Rules};
use serde_json::{Value, json};
use shared::id::TaskId;
use shared::task::{Task, parse_spec};
use shared::time::Moment;
use tests::{Mark, Pool};

use crate::kit::steps::merge;

/// Thresholds that make waiting short.
pub(crate) const QUICK: &str = r#"
heartbeat_interval = "200ms"
idle_poll = "300ms"
grace_period = "2s"
shutdown_grace = "200ms"
retry_backoff_first = "50ms"
retry_backoff_max = "100ms"
restart_backoff_first = "50ms"
restart_backoff_max = "100ms"
monitor_interval = "1s"
reserve_size = "1MiB"
disk_low = "1MiB"
"#;

/// A pool with [`QUICK`] settings and these, which win.
pub(crate) fn quick_pool(more: &str) -> Pool {
    let pool = Pool::new();
    quicken(&pool, more);
    pool
}

/// Gives a pool [`QUICK`] settings and these, which win.
pub(crate) fn quicken(pool: &Pool, more: &str) {
    pool.write_toml(&merge(QUICK, more));
}

/// The pool as its own programs see it.
pub(crate) fn inside(pool: &Pool) -> queue::Pool {
    queue::Pool::create(&pool.dir(), Rules::default(), Privacy::Owner).unwrap()
}

/// A cpu task that runs the fake job with these words.
pub(crate) fn job(words: &[&str]) -> Value {
    let command: Vec<_> = ["fake-job"].iter().chain(words).collect();
    json!({"class": "cpu", "command": command})
}

/// The same on a GPU.
pub(crate) fn gpu_job(words: &[&str]) -> Value {
    with(job(words), "class", "script")
}

/// A task with one field more, or another value of it.
pub(crate) fn with(mut spec: Value, field: &str, value: impl Into<Value>) -> Value {
    spec[field] = value.into();
    spec
}

/// Submits a task that starts its job in the home folder.
pub(crate) fn submit(pool: &Pool, spec: Value) -> TaskId {
    submit_all(pool, [spec])[0]
}

/// Submits many, each on its own.
pub(crate) fn submit_all(pool: &Pool, specs: impl IntoIterator<Item = Value>) -> Vec<TaskId> {
    let mut submitter = Submitter::new(&inside(pool)).unwrap();
    let one = |spec| {
        let task = task(pool, spec);
        submitter.submit(&task).unwrap();
        ring(pool, &task);
        task.id
    };
    specs.into_iter().map(one).collect()
}

fn ring(pool: &Pool, task: &Task) {
    queue::dir::signal::doorbell::ring_class(inside(pool).layout(), task.class());
    queue::dir::signal::doorbell::ring_brain(inside(pool).layout());
}

/// A task as its submitter makes it.
pub(crate) fn task(pool: &Pool, spec: Value) -> Task {
    let home = pool.home();
    let spec = with(spec, "cwd", home.to_str().unwrap());
    let mut spec = parse_spec(spec.to_string().as_bytes()).unwrap();
    let now = Moment::now();
    if let Some(delay) = spec.delay.take() {
        spec.at = Some(now.plus_millis(i64::try_from(delay.0.as_millis()).unwrap()));
    }
    Task {
        id: TaskId::new(),
        batch_id: None,
        submitted_at: now,
        submitted_by: "ann@host".into(),
        correlation_id: "abc123def456".into(),
        spec,
    }
}

/// Where a task is. `None` once it has ended.
pub(crate) fn find(pool: &Pool, id: TaskId) -> Option<Found> {
    places::find(inside(pool).layout(), id).unwrap()
}

/// The state of a task and its counters, as `pending a2f0d1`.
pub(crate) fn place(pool: &Pool, id: TaskId) -> String {
    find(pool, id).map_or_else(
        || "gone".to_owned(),
        |found| {
            let stem = found.name.to_string();
            let counters = stem.rsplit('.').next().unwrap();
            format!("{} {counters}", found.place.state())
        },
    )
}

/// Waits until a task is in this state.
#[track_caller]
pub(crate) fn until_place(pool: &Pool, id: TaskId, wanted: &str) {
    pool.until_true(&format!("{} is {wanted}", id.short()), || place(pool, id) == wanted);
}

/// The ledger's lines about a task, by attempt. As every reader must, it skips torn lines.
pub(crate) fn history(pool: &Pool, id: TaskId) -> Vec<Value> {
    let plain = |file: &PathBuf| {
        fs::symlink_metadata(file).is_ok_and(|meta| meta.is_file() && meta.len() < 50 << 20)
    };
    let files = pool.files_in("ledger").into_iter().filter(plain);
    let read = |file| String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned() + "\n";
    let text: String = files.map(read).collect();
    let whole = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut lines: Vec<_> = whole.filter(|line| line["id"] == id.to_string()).collect();
    lines.sort_by_key(|line| line["attempt"].as_u64());
    lines
}

/// Outcome, cause and next of every attempt, as `["failed worker_died pending", …]`.
pub(crate) fn story(pool: &Pool, id: TaskId) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let next = |line: &Value| word(&line["next"]).split(':').next().unwrap().to_owned();
    let one = |line: &Value| {
        format!("{} {} {}", word(&line["outcome"]), word(&line["cause"]), next(line))
    };
    history(pool, id).iter().map(one).collect()
}

/// Waits until a task has succeeded and its file is gone.
#[track_caller]
pub(crate) fn until_succeeded(pool: &Pool, id: TaskId) {
    until_place(pool, id, "gone");
    let story = story(pool, id);
    assert_eq!(story.last().map(String::as_str), Some("succeeded - end"), "{story:?}");
}

/// Waits until a job has set its mark for this attempt of this task.
#[track_caller]
pub(crate) fn until_started(pool: &Pool, file: &str, id: TaskId, attempt: u32) -> Mark {
    let (task, attempt) = (id.to_string(), attempt.to_string());
    let is_it = |mark: &Mark| {
        mark.moment == tests::Moment::Start && mark.task == task && mark.attempt == attempt
    };
    pool.until(&format!("attempt {attempt} of {} to start", id.short()), || {
        pool.marks(file).into_iter().find(is_it)
    })
}

/// What `queue` tells of a task and of what it printed: for messages of tests that fail.
pub(crate) fn scene(pool: &Pool, id: TaskId) -> String {
    let id = id.to_string();
    format!("{}{}", pool.queue(&["show", &id]), pool.queue(&["output", &id]))
}

/// The attempts of a task that started, in order of time.
pub(crate) fn starts(pool: &Pool, file: &str, id: TaskId) -> Vec<String> {
    let marks = pool.marks(file).into_iter();
    let ours = marks.filter(|m| m.task == id.to_string() && m.moment == tests::Moment::Start);
    ours.map(|mark| mark.attempt).collect()
}

/// The processes of jobs that are alive, told by their program.
pub(crate) fn jobs_alive(pool: &Pool) -> Vec<u32> {
    let alive = pool.alive().into_iter();
    alive.filter(|one| one.command.contains("fake-job")).map(|one| one.pid).collect()
}

/// The bytes of a task's file, wherever it is.
pub(crate) fn content(pool: &Pool, id: TaskId) -> Vec<u8> {
    fs::read(find(pool, id).unwrap().path(inside(pool).layout())).unwrap()
}

/// Waits for a worker's first heartbeat.
#[track_caller]
pub(crate) fn until_alive(pool: &Pool, worker: &str) -> Value {
    pool.until(&format!("a heartbeat of {worker}"), || pool.heartbeat(worker))
}

/// Where the lock file of a worker is.
pub(crate) fn lock_file(pool: &Pool, worker: &str) -> PathBuf {
    pool.dir().join("locks/workers").join(format!("{worker}.lock"))
}
