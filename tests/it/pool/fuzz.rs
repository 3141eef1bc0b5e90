//! Whatever is written where the pool expects something: it is read or refused, nothing panics,
//! nothing waits for it, and the good tasks beside it run, once.
//!
//! `FUZZ_ROUNDS` makes it last longer, `FUZZ_SEED` does one row of random numbers again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use fastrand::Rng;
use proptest::prelude::*;
use queue::dir::layout::{self, Layout};
use queue::dir::presence::heartbeats;
use queue::dir::signal::control::Message;
use queue::wire::brain_state::{BrainRecord, BrainState};
use queue::wire::heartbeat::Heartbeat;
use queue::wire::lane::{LaneName, Requirements};
use queue::wire::lease_record::Record;
use queue::wire::ledger_line::{Brief, Line};
use queue::wire::retry::{self, Policy, Verdict};
use serde::de::DeserializeOwned;
use serde_json::json;
use shared::id::{BatchId, TaskId};
use shared::name::Name;
use shared::outcome::{Cause, Next};
use shared::quantity::{Bytes, Span};
use shared::settings::{Flags, Settings};
use shared::task::{Task, TaskName, parse_spec};
use shared::time::Moment;
use tests::{Pool, Proc};

use crate::kit::garbage::{drop_at, name, spoiled};
use crate::kit::*;

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// Random numbers whose beginning is said where a test fails.
fn random() -> Rng {
    let seed = number("FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("FUZZ_SEED={seed}");
    Rng::with_seed(seed)
}

// --- parsers ---

/// One true example of everything that is read from a pool, taken from a pool that has worked.
struct Examples {
    task: Vec<u8>,
    lane: Vec<u8>,
    heartbeat: Vec<u8>,
    record: Vec<u8>,
    line: Vec<u8>,
    state: Vec<u8>,
    message: Vec<u8>,
}

const TOML: &[u8] = b"heartbeat_interval = \"20s\"\ndisk_low = \"64MiB\"\nlog_keep = 3\n\
    [stall_timeout]\nscript = \"600s\"\n[limits]\n\"user=ann\" = 2\n";

impl Examples {
    fn new() -> Self {
        let pool = quick_pool("");
        let brain = pool.brain(&["--no-spawn"]);
        let worker = pool.worker(&["--cpu", "--name", "w"]);
        let spec = json!({"class": "cpu", "command": ["fake-job", "exit=3"], "name": "n",
            "env": {"A": "b"}, "labels": {"x": "y"}, "timeout": "30m",
            "priority": 3, "max_attempts": 2, "user": "ann", "stdin": "text"});
        let id = submit(&pool, spec);
        until_place(&pool, id, "failed a2f2d0");
        pool.until_true("the brain's state", || pool.dir().join("brain/state.json").is_file());
        let first = |place: &str| fs::read(&pool.files_in(place)[0]).unwrap();
        let ledger = first("ledger");
        let line = ledger.split(|byte| *byte == b'\n').next().unwrap().to_vec();
        let message = json!({"verb": "cancel", "task": TaskName::first(id).to_string(), "by": "a",
            "at": "2026-02-07T20:45:30.123Z", "why": "b"});
        let examples = Self {
            task: first("failed"),
            lane: first("lanes"),
            heartbeat: first("workers"),
            record: first("locks/workers"),
            line,
            state: fs::read(pool.dir().join("brain/state.json")).unwrap(),
            message: message.to_string().into_bytes(),
        };
        drop((brain, worker));
        examples
    }

    fn all(&self) -> [&[u8]; 8] {
        let Self { task, lane, heartbeat, record, line, state, message } = self;
        [task, lane, heartbeat, record, line, state, message, TOML]
    }
}

/// Reads it as everything that it might be, and makes use of what comes out.
fn read_as_everything(bytes: &[u8]) {
    fn json<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
        serde_json::from_slice(bytes).ok()
    }
    if let Ok(task) = Task::parse(bytes) {
        let _ = task.spec.check();
        let requirements = Requirements::of(&task, &["user=ann".to_owned()]);
        assert!(requirements.lane().to_string().parse::<LaneName>().is_ok());
        let _ = queue::store::start::start_of(&task);
        let _ = task.spec.payload();
    }
    let _ = parse_spec(bytes);
    let _ = json::<Requirements>(bytes).map(|lane| lane.lane());
    let _ = json::<Heartbeat>(bytes).map(|beat| heartbeats::age(&beat, Moment::now()));
    let _ = (json::<Record>(bytes), json::<BrainRecord>(bytes));
    let _ = json::<Line>(bytes).map(|line| line.to_bytes());
    let _ = json::<Brief>(bytes).map(|brief| brief.end_of_task());
    let _ = json::<BrainState>(bytes);
    let _ = json::<Message>(bytes).map(|message| message.about());
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Settings::read(Path::new("pool.toml"), text, |_| None, &Flags::new());
        read_as_words(text);
    }
}

fn read_as_words(text: &str) {
    let layout = Layout::new("/p");
    let _ = text.parse::<Span>().map(|span| span.to_string().parse::<Span>().unwrap());
    let _ = text.parse::<Bytes>().map(|bytes| bytes.to_string().parse::<Bytes>().unwrap());
    let _ = text.parse::<Moment>().map(|at| {
        let name = TaskName::first(TaskId::new());
        let _ = layout.delayed_task(at, name);
        (at.local(), at.day(), at.plus_millis(i64::MAX), Moment::now().seconds_since(at))
    });
    let _ = text.parse::<TaskId>().map(|id| (id.segment(), id.short(), id.unix_millis()));
    let _ = (text.parse::<BatchId>(), text.parse::<Next>());
    let _ = text.parse::<LaneName>();
    let _ = text.parse::<Name>().map(|name| layout.worker_lock(&name));
    let _ = layout::Segment::parse(text).map(|segment| assert_eq!(segment.dir_name(), text));
    let _ = layout::parse_priority(text);
    for named in [text.parse::<TaskName>(), TaskName::from_file_name(text)] {
        let Ok(named) = named else { continue };
        for verdict in [
            Verdict::Failed(Cause::ExitCode),
            Verdict::NotReady(Cause::ExitCode),
            Verdict::WorkerDied,
        ] {
            let end = retry::next(named, verdict, &Policy::default(), Moment::now(), 0.5);
            assert!(end.next_name.attempt >= named.attempt);
        }
        assert_eq!(named.retried().failures, 0);
    }
}

#[test]
fn nothing_that_is_read_makes_a_parser_panic() {
    let mut random = random();
    let examples = Examples::new();
    for example in examples.all() {
        read_as_everything(example);
        for _try in 0..number("FUZZ_ROUNDS").unwrap_or(1) * 400 {
            read_as_everything(&spoiled(example, &mut random));
        }
    }
    let id = TaskId::new();
    for right in [
        &format!("{id}.a3f1d1.json"),
        &id.to_string(),
        "0194c3f2a.17",
        "cpu-c7e4c87d5c47",
        "1h 30m",
        "1.5 GiB",
        "2026-02-07T20:45:30.123Z",
        "delayed:2026-02-07T20:45:30.123Z",
        "05",
    ] {
        read_as_words(right);
        for _try in 0..number("FUZZ_ROUNDS").unwrap_or(1) * 400 {
            let word = spoiled(right.as_bytes(), &mut random);
            read_as_words(&String::from_utf8_lossy(&word));
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "\\PC{0,60}") {
        read_as_words(&text);
    }

    #[test]
    fn no_counters_make_a_name_overflow(attempt: u32, failures: u32, deaths: u32) {
        read_as_words(&format!("{}.a{attempt}f{failures}d{deaths}", TaskId::new()));
    }
}

/// The lines of a batch go through the program.
#[test]
fn no_batch_makes_queue_submit_panic_and_a_refused_one_leaves_nothing() {
    let mut random = random();
    let pool = quick_pool("");
    inside(&pool);
    let right = json!({"class": "cpu", "command": ["true"], "name": "a", "after": [], "in": "2h",
        "timeout": "1h", "labels": {"a": "b"}});
    for round in 0..number("FUZZ_ROUNDS").unwrap_or(1) * 12 {
        let text = [
            right.to_string().as_bytes(),
            b"\n",
            &spoiled(right.to_string().as_bytes(), &mut random),
        ]
        .concat();
        fs::write(pool.home().join("batch"), &text).unwrap();
        let before = pool.files_in("delayed").len();
        let ran = pool.queue(&["submit", "--batch", "batch", "--key", &format!("k{round}")]);
        assert!(!ran.stderr.contains("panic"), "{ran}\n{}", String::from_utf8_lossy(&text));
        assert!(ran.status.code().is_some(), "{ran}");
        if !ran.status.success() {
            assert_eq!(pool.files_in("delayed").len(), before, "{ran}");
            assert!(ran.stdout.is_empty(), "{ran}");
        }
    }
}

// --- directories ---

/// Where in a pool somebody may drop something, what is named how there, and what it holds.
fn spots(pool: &Pool, examples: &Examples, random: &mut Rng) -> Vec<(PathBuf, String, Vec<u8>)> {
    let (root, id) = (pool.dir(), TaskId::new());
    let task = format!("{id}.a{}f{}d0.json", random.u32(1..4), random.u32(0..2));
    let segment = layout::Segment::single(id).dir_name();
    let second = ["0", "1", "99999999999", "-5"][random.usize(..4)];
    let lanes = fs::read_dir(root.join("lanes")).unwrap();
    let lane = lanes.filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()));
    let lane = lane.min().unwrap_or("cpu-c7e4c87d5c47".to_owned());
    let Examples { task: spec, lane: needs, heartbeat, record, line, state, message } = examples;
    let life = "0123456789ab";
    let places: Vec<(String, &str, &[u8])> = vec![
        ("pending".into(), &lane, b""),
        (format!("pending/{lane}"), "05", b""),
        (format!("pending/{lane}/05"), &segment, b""),
        (format!("pending/{lane}/05/{segment}"), &task, spec),
        ("pending/cpu-000000000000/10/0194c3f2a.0".into(), &task, spec),
        ("lanes".into(), "cpu-0123456789ab.json", needs),
        ("processing".into(), "w", b""),
        ("processing/w".into(), &task, spec),
        ("processing/ghost".into(), &task, spec),
        (format!("delayed/{second}"), &task, spec),
        ("delayed".into(), second, b""),
        (format!("waiting/{segment}"), &task, spec),
        ("waiting".into(), &segment, b""),
        (format!("held/{segment}"), &task, spec),
        (format!("failed/{segment}"), &task, spec),
        ("ending/cancel".into(), &task, spec),
        ("ending/dependency".into(), &task, spec),
        ("ending".into(), "cancel", b""),
        ("control/w".into(), "cancel-x.json", message),
        ("control/+pool".into(), "pause.json", b"{"),
        ("control".into(), "ghost", message),
        ("keys".into(), "0123456789abcdef0123456789abcdef", message),
        ("publishing".into(), "01a210ea-b715-7394-a128-cbe7e5c2efc8", spec),
        ("publishing/01a210ea-b715-7394-a128-cbe7e5c2efc8/held".into(), &segment, spec),
        ("incoming".into(), life, b""),
        (format!("incoming/{life}"), &task, spec),
        ("workers".into(), "ghost.json", heartbeat),
        ("locks".into(), "brain.lock.old", record),
        ("locks/workers".into(), "ghost.lock", record),
        ("locks/limits/user=ann".into(), "0.lock", b""),
        ("ledger/2026-11-25".into(), "w.0123456789ab.0.jsonl", line),
        ("ledger".into(), "2026-11-25", b""),
        ("brain".into(), "decisions.jsonl.1", state),
        ("doorbells".into(), "class-script", b""),
        ("rejected".into(), &task, spec),
    ];
    let full = |(dir, name, right): (String, &str, &[u8])| {
        (root.join(dir), name.to_owned(), right.to_vec())
    };
    places.into_iter().map(full).collect()
}

fn litter(pool: &Pool, examples: &Examples, random: &mut Rng) {
    for (dir, right, content) in spots(pool, examples, random) {
        // Something dropped earlier may stand where the folder should be.
        if fs::create_dir_all(&dir).is_err() {
            continue;
        }
        let path = dir.join(name(&right, random));
        // Where a directory of this name is needed, only a person can say what is to become of
        // what stands there instead.
        let needed = ["", "pending", "delayed", "waiting"].map(|place| pool.dir().join(place));
        let is_needed = path.file_name().is_some_and(|name| name == right.as_str())
            && (needed.contains(&dir) || dir.starts_with(pool.dir().join("pending")));
        if content.is_empty() && is_needed {
            continue;
        }
        match drop_at(&path, &content, random) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
            _landed => {}
        }
    }
}

/// Good tasks of every kind.
fn good_ones(pool: &Pool) -> Vec<TaskId> {
    let good = || job(&["mark=runs"]);
    let first = submit(pool, good());
    let mut all = vec![first];
    all.push(submit(pool, with(good(), "after", json!([first.to_string()]))));
    all.push(submit(pool, with(good(), "in", "1s")));
    let held = submit(pool, with(good(), "hold", true));
    pool.queue(&["release", &held.to_string()]).success();
    all.push(held);
    all
}

#[track_caller]
fn still_well(pool: &Pool, programs: &mut [Proc]) {
    for words in [
        &["status", "--json"][..],
        &["ls", "--json"],
        &["workers", "--json"],
        &["why", "--json"],
        &["status"],
        &["ls", "--state", "failed"],
        &["doctor"],
    ] {
        let ran = pool.queue(words);
        assert!(!ran.stderr.contains("panicked") && ran.status.code() != Some(101), "{ran}");
        assert!(ran.status.success() || words[0] == "doctor" || words[0] == "why", "{ran}");
    }
    for program in programs {
        assert!(program.is_running(), "{}", program.stderr());
        let said = program.stderr();
        let panicked = ["Panic in thread", "it panicked", "panicked at"];
        assert!(!panicked.iter().any(|words| said.contains(words)), "{said}");
    }
}

#[test]
fn whatever_lies_about_in_a_pool_nothing_panics_and_the_good_tasks_run_once() {
    let mut random = random();
    let examples = Examples::new();
    let pool =
        quick_pool("poison_deaths = 2\ngrace_period = \"50ms\"\n[limits]\n\"user=ann\" = 1\n");
    let mut good = good_ones(&pool);
    litter(&pool, &examples, &mut random);
    let mut programs = vec![
        pool.brain(&["--no-spawn"]),
        pool.worker(&["--cpu", "--name", "w", "--cpu-slots", "4"]),
    ];
    for _round in 0..number("FUZZ_ROUNDS").unwrap_or(1) * 3 {
        litter(&pool, &examples, &mut random);
        let new = good_ones(&pool);
        for id in &new {
            pool.queue(&["show", "--json", &id.to_string()]).success();
        }
        let _ = pool.queue(&["why", "--json", &new[0].to_string()]);
        good.extend(new);
        still_well(&pool, &mut programs);
        for id in &good {
            let done = || story(&pool, *id) == ["succeeded - end"];
            pool.until_true(&format!("{id} to end"), done);
        }
    }
    let marks = pool.marks("runs");
    for id in &good {
        assert_eq!(starts(&pool, "runs", *id), ["1"], "{marks:?}");
    }
    let known: BTreeSet<_> = good.iter().collect();
    assert_eq!(known.len(), good.len());
}

/// A key's file may hold anything: it says which task was submitted, or nothing.
#[test]
fn whatever_a_key_says_the_task_is_submitted_once() {
    let mut random = random();
    let pool = quick_pool("");
    let words = ["submit", "--class", "cpu", "--key", "k", "--", "true"];
    let first = pool.queue(&words).id();
    let file = pool.files_in("keys").remove(0);
    let right = fs::read(&file).unwrap();
    for _round in 0..number("FUZZ_ROUNDS").unwrap_or(1) * 6 {
        fs::write(&file, spoiled(&right, &mut random)).unwrap();
        let ran = pool.queue(&words);
        assert!(!ran.stderr.contains("panic") && ran.status.success(), "{ran}");
    }
    fs::write(&file, right).unwrap();
    assert_eq!(pool.queue(&words).id(), first);
}
