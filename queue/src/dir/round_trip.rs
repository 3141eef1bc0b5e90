//! What submit accepts, every reader reads: any task, with any answer, goes through its file, a
//! heartbeat, the ledger, the look-ups, settling and reconciling, and comes back as it was.

use std::collections::BTreeSet;
use std::fs;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use shared::id::TaskId;
use shared::llm::Answer;
use shared::task::{MAX_DEPTH, MAX_TASK_BYTES, Spec, Task, depth_of, parse_line};
use shared::time::Moment;

use super::Pool;
use super::find::batch_ends::{BatchEnds, Reader, Slot};
use super::fixture::{claim, cursor, ledger, pool_at, scratch, sign, state};
use super::ledger::follow::Follower;
use super::ledger::search::history_of;
use super::lookup::{Standing, standing};
use super::presence::lease::Lease;
use super::recover::reconcile::reconcile;
use super::recover::settle::{Patience, Settler};
use super::submit::one::Submitter;
use crate::store::contract::line;
use crate::wire::fate::Fate;
use crate::wire::heartbeat::Run;
use crate::wire::ledger_line::Line;
use crate::wire::retry::Verdict;

/// Any text, also with control characters, quotes and what no keyboard has; none with a NUL, which
/// a command cannot carry.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,12}",
        any::<String>().prop_map(|text| text.chars().take(20).filter(|c| *c != '\0').collect()),
        Just("\u{feff}\u{2028}\u{7f}\u{1b}[31m\"\\\r\n\t\u{10ffff}".to_owned()),
        Just(r#"{"schema":"brainstem.ledger/1","id":""#.to_owned()),
        Just(r#"","next":"end","ended_at":"x"#.to_owned()),
    ]
}

/// Numbers that are written as they are read: whole ones of any size, and decimals.
fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (any::<i32>(), 0..4)
            .prop_map(|(digits, point)| { json!(f64::from(digits) / 10_f64.powi(point)) }),
        Just(json!(1e300)),
        Just(json!(-5e-300)),
    ]
}

/// Any JSON, wide or deep: also around the depth at which it is refused, and beyond what any reader
/// bears.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number(),
        text().prop_map(Value::from),
    ];
    let wide = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(text(), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    let levels = prop_oneof![
        3 => 0..8_usize,
        3 => MAX_DEPTH - 10..MAX_DEPTH + 3,
        1 => 120..140_usize,
    ];
    (wide, levels, any::<bool>()).prop_map(|(mut value, levels, list)| {
        for _level in 0..levels {
            value = if list { json!([value]) } else { json!({ "a": value }) };
        }
        value
    })
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)) => Map::from_iter([("x".to_owned(), other)]),
    }
}

/// What a task may do, in every form in which it may come.
fn payload() -> impl Strategy<Value = Value> {
    let messages = text().prop_map(|text| json!([{"role": "user", "content": text}]));
    prop_oneof![
        text().prop_map(|text| json!({"shell": format!("echo {text}")})),
        proptest::collection::vec(text(), 0..3)
            .prop_map(|rest| json!({"command": ([vec!["prog".to_owned()], rest].concat())})),
        (text(), anything(), anything()).prop_map(|(text, options, properties)| json!({
            "model": "m", "prompt": format!("p{text}"), "options": fields(options),
            "format": {"type": "object", "default": properties},
        })),
        (messages, anything()).prop_map(|(messages, extra)| json!({
            "model": "m", "request": {"url": "/v1/chat/completions",
                "body": {"model": "m", "messages": messages, "extra": extra}},
        })),
        (text(), anything()).prop_map(|(text, extra)| json!({
            "custom_id": format!("c{text}"), "method": "POST", "url": "/v1/completions",
            "body": {"model": "m", "prompt": format!("p{text}"), "extra": extra},
        })),
    ]
}

/// A line of a batch file: what it does, and what else people say of it.
fn batch_line() -> impl Strategy<Value = Value> {
    let map = || proptest::collection::btree_map("[a-z]{1,5}", text(), 0..3);
    let more =
        (proptest::option::of(text()), map(), map(), proptest::option::of(text()), 0..=10_u8);
    (payload(), more).prop_map(|(mut line, (name, labels, env, user, priority))| {
        if line.get("method").is_none() {
            let said = [
                ("name", json!(name.map(|name| format!("n{name}")))),
                ("labels", json!(labels)),
                ("env", json!(env)),
                ("user", json!(user.map(|user| format!("u{user}")))),
                ("priority", json!(priority)),
            ];
            for (field, value) in said.into_iter().filter(|(_field, value)| !value.is_null()) {
                line[field] = value;
            }
        }
        line
    })
}

/// The task, if submit takes it.
fn accepted(line: &Value) -> Option<Task> {
    let text = line.to_string();
    let spec: Spec = parse_line(text.as_bytes(), None).ok()?;
    let task = Task {
        id: TaskId::new(),
        batch_id: None,
        submitted_at: Moment::now(),
        submitted_by: "ann@host".into(),
        correlation_id: "c0ffee".into(),
        spec,
    };
    (task.to_bytes().len() as u64 <= MAX_TASK_BYTES).then_some(task)
}

/// As a worker takes one from a server: none that is nested deeper than that.
fn answer(body: Value) -> Option<Answer> {
    (depth_of(&body) <= MAX_DEPTH).then(|| Answer {
        model: "m".into(),
        body,
        prompt_tokens: None,
        completion_tokens: Some(7),
        load_seconds: None,
        first_token_seconds: None,
        seconds: 0.25,
        writing_seconds: None,
        flaw: None,
    })
}

/// A heartbeat while it runs.
fn heartbeat_bears(task: &Task) {
    let run = Run {
        task_id: task.id,
        attempt: 1,
        class: task.class(),
        name: task.name(),
        gpu_memory: None,
        started_at: None,
        pgid: None,
        last_output_age_seconds: None,
        quiet_seconds: None,
        evidence: Map::new(),
        peak_vram_bytes: None,
        kept: None,
        log: None,
    };
    let text = serde_json::to_vec(&run).unwrap();
    assert_eq!(serde_json::from_slice::<Run>(&text).unwrap(), run);
}

/// All who look for ended tasks find this one, whole; also those who are not ours and read it
/// inside of an answer to `--json`.
fn history_bears(pool: &Pool, expected: &Line) {
    let told = json!({"tasks": [{"attempts": [expected]}]}).to_string();
    let told: Value = serde_json::from_str(&told).expect("any reader of JSON reads that");
    assert_eq!(told["tasks"][0]["attempts"][0], json!(expected));
    let (layout, id) = (pool.layout(), expected.id);
    let history = history_of(layout, id).unwrap();
    assert_eq!((&history.lines[..], &history.damaged[..]), (&[expected.clone()][..], &[][..]));
    let mut follower = Follower::from_start();
    let briefs = follower.poll(layout).unwrap();
    assert_eq!(briefs.iter().map(|brief| brief.id).collect::<Vec<_>>(), [id]);
    assert_eq!((follower.torn, follower.take_damaged()), (0, Vec::new()));
    let ends = BatchEnds::of(layout, vec![id]).unwrap();
    let Slot::Ended(end) = ends.slot(0) else { panic!("{:?}", ends.slot(0)) };
    assert_eq!(end.outcome, expected.outcome);
    ends.all_was_read().unwrap();
    assert_eq!(Reader::default().line(&ends, &end).unwrap(), *expected);
    let Some(Standing::Ended(found)) = standing(layout, id).unwrap() else { panic!("{id}") };
    assert_eq!(*found, *expected);
}

/// Who looks after the pool after a death or a power cut, with the line written and not carried out.
#[derive(Clone, Copy, Debug)]
enum Recovers {
    Settler,
    Reconciler,
}

fn goes_round(task: &Task, answer: Option<Answer>, recovers: Recovers) {
    let home = scratch();
    let pool = pool_at(&home.path().join("pool"));
    Submitter::new(&pool).unwrap().submit(task).unwrap();
    let writer = ledger(&pool, "worker-1");
    let lease = Lease::try_take(&pool, &"worker-1".parse().unwrap()).unwrap().unwrap();
    sign(&lease, &writer);
    let claim = claim(&mut cursor(&pool, "worker-1")).expect("every worker can read it");
    assert_eq!(claim.task(), task);
    heartbeat_bears(task);
    let mut end = line(task, claim.name(), Verdict::Succeeded);
    (end.answer, end.error_message) = (answer, task.spec.user.clone());
    writer.append(&end).unwrap();
    drop((claim, lease));
    match recovers {
        Recovers::Settler => {
            let lease = Lease::try_take(&pool, &"worker-1".parse().unwrap()).unwrap().unwrap();
            let patience = Patience { grace: Default::default(), give_up: Default::default() };
            let brain = ledger(&pool, "brain");
            let settler = Settler::new(&pool, &brain, patience);
            let fates = settler.settle(&lease).unwrap().fates;
            assert!(matches!(fates[..], [(_, Ok(Fate::Finished(_)))]), "{fates:?}");
        }
        Recovers::Reconciler => assert_eq!(reconcile(&pool).unwrap().moved, 1),
    }
    assert_eq!(state(&pool, task.id), None, "it has ended, and is nowhere any more");
    assert!(fs::read_dir(pool.layout().rejected()).unwrap().next().is_none());
    history_bears(&pool, &end);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn what_submit_accepts_every_reader_reads(
        line in batch_line(),
        body in anything(),
        recovers in prop_oneof![Just(Recovers::Settler), Just(Recovers::Reconciler)],
    ) {
        if let Some(task) = accepted(&line) {
            let again = Task::parse(&task.to_bytes()).unwrap();
            prop_assert_eq!(&again, &task);
            goes_round(&task, answer(body), recovers);
        }
    }
}

/// The deepest that is taken, by every door, with the deepest answer: nothing that is wrapped around
/// it is too much.
#[test]
fn the_deepest_task_that_is_accepted_is_read_by_all() {
    let tower = |levels: usize| (1..levels).fold(json!({}), |inner, _level| json!({ "a": inner }));
    let deepest = |field: &str, make: &dyn Fn(Value) -> Value| {
        let taken = (1..MAX_DEPTH + 20).filter(|levels| accepted(&make(tower(*levels))).is_some());
        let levels: BTreeSet<usize> = taken.collect();
        let last = *levels.last().unwrap();
        assert_eq!(levels.len(), last, "{field}: all up to the last");
        let task = accepted(&make(tower(last))).unwrap();
        let whole = serde_json::to_value(&task).unwrap();
        assert_eq!(depth_of(&whole), MAX_DEPTH, "{field}");
        task
    };
    let tasks = [
        deepest("format", &|x| json!({"model": "m", "prompt": "p", "format": {"default": x}})),
        deepest("options", &|x| json!({"model": "m", "prompt": "p", "options": {"x": x}})),
        deepest("request", &|x| {
            json!({"model": "m", "request": {"url": "/v1/completions",
            "body": {"model": "m", "prompt": "p", "x": x}}})
        }),
        deepest("body", &|x| {
            json!({"custom_id": "c", "method": "POST", "url": "/v1/completions",
            "body": {"model": "m", "prompt": "p", "x": x}})
        }),
    ];
    for task in tasks {
        for recovers in [Recovers::Settler, Recovers::Reconciler] {
            goes_round(&task, answer(tower(MAX_DEPTH)), recovers);
        }
    }
}
