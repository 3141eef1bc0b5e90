//! Verdicts about pools in which everything but the processes is real: leases are held by the
//! test, and heartbeats are written by it.

use std::path::Path;

use shared::gpu::GpuFault;
use shared::id::{Incarnation, TaskId};
use shared::llm::{Health, HeldModel, HeldState, Loads, ModelServer, ServerKind};
use shared::quantity::Bytes;
use shared::reason::Code;
use shared::settings::Settings;
use shared::task::{Class, Task, TaskName, parse_spec};
use shared::time::Moment;

use super::{
    Explanation, Look, Word, is_model, why_gpu, why_model, why_pool, why_task, why_worker,
    worker_of,
};
use crate::dir::fault::count_looks;
use crate::dir::find::places;
use crate::dir::presence::heartbeats;
use crate::dir::presence::lease::{Lease, this_process};
use crate::dir::signal::control;
use crate::dir::submit::one::Submitter;
use crate::dir::{Pool, Privacy, Rules, operate};
use crate::view::{self, Count};
use crate::wire::heartbeat::gpu_state::{Fitness, GpuState, Quarantine};
use crate::wire::heartbeat::{Ability, ClaimReport, Heartbeat, Run, Starved, Status};
use crate::wire::lease_record::Record;

fn pool(dir: &Path) -> Pool {
    let rules = Rules { disk_low: Bytes(0), ..Rules::default() };
    Pool::create(&dir.join("pool"), rules, Privacy::Owner).unwrap()
}

fn submit(pool: &Pool, spec: &str) -> TaskId {
    let mut spec = parse_spec(spec.as_bytes()).unwrap();
    spec.class.get_or_insert(Class::Script);
    let task = Task {
        id: TaskId::new(),
        batch_id: None,
        submitted_at: Moment::now(),
        submitted_by: "ann@host".into(),
        correlation_id: "c".into(),
        spec,
    };
    Submitter::new(pool).unwrap().submit(&task).unwrap();
    task.id
}

fn ability(classes: &[Class]) -> Ability {
    let gpu = classes.contains(&Class::Script).then_some(0);
    Ability {
        classes: classes.to_vec(),
        gpu,
        gpu_uuid: None,
        gpu_memory: Some(Bytes(8 << 30)),
        gpu_state: crate::wire::heartbeat::gpu_state::GpuState::default(),
        gpu_slots: 1,
        cpu_slots: 1,
        paused: None,
        draining: None,
        starved: None,
        backs_off: Vec::new(),
        server: None,
    }
}

/// A worker that holds its lease and has sent this heartbeat.
fn worker(pool: &Pool, name: &str, ability: Ability, current: Vec<Run>) -> (Lease, Heartbeat) {
    let worker: shared::name::Name = name.parse().unwrap();
    let (process, life) = (this_process(), Incarnation::new());
    let lease = Lease::try_take(pool, &worker).unwrap().unwrap();
    let working = Record::of(worker.clone(), process.clone(), life.clone(), Moment::now());
    let record = Record { gpu: ability.gpu, ..working };
    lease.write(&record).unwrap();
    // What runs there is in its hands.
    let hands = pool.layout().processing_of(&worker);
    std::fs::create_dir_all(&hands).unwrap();
    for run in &current {
        let name = TaskName { attempt: run.attempt, ..TaskName::first(run.task_id) };
        std::fs::write(hands.join(name.file_name()), "").unwrap();
    }
    let beat = Heartbeat {
        schema: crate::wire::heartbeat::SCHEMA.into(),
        worker,
        process,
        life,
        version: "0".into(),
        started_at: Moment::now(),
        at: Moment::now(),
        uptime: None,
        seq: 1,
        status: Status::Idle,
        ability,
        idle_since: current.is_empty().then(Moment::now),
        current,
        gpu_reading: None,
        claim: ClaimReport::default(),
        completed: 0,
        failed: 0,
        lost_races: 0,
        log_seq: 0,
    };
    heartbeats::write(pool, &beat).unwrap();
    (lease, beat)
}

fn run(class: Class) -> Run {
    Run {
        task_id: TaskId::new(),
        attempt: 1,
        class,
        name: "train".into(),
        gpu_memory: None,
        started_at: Some(Moment::now()),
        pgid: None,
        last_output_age_seconds: None,
        quiet_seconds: None,
        evidence: serde_json::Map::new(),
        peak_vram_bytes: None,
        kept: None,
        log: None,
    }
}

fn ask<T>(pool: &Pool, question: impl Fn(&Look<'_>) -> T) -> T {
    let settings = Settings::default();
    let view = view::see(pool, &settings, Count::Exact).unwrap();
    question(&Look::new(pool, &settings, &view))
}

fn of_task(pool: &Pool, id: TaskId) -> Explanation {
    ask(pool, |look| why_task(look, id).unwrap().unwrap())
}

fn of_worker(pool: &Pool, name: &str) -> Explanation {
    ask(pool, |look| {
        let worker = look.view.workers.iter().find(|worker| worker.name.as_str() == name);
        why_worker(look, worker.unwrap()).unwrap()
    })
}

fn codes(verdict: &Explanation) -> Vec<Code> {
    verdict.reasons.iter().map(|reason| reason.code).collect()
}

#[test]
fn without_a_worker_it_waits_and_without_one_of_its_class_it_can_never_run() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path());
    let id = submit(&pool, r#"{"shell": "x"}"#);
    let alone = of_task(&pool, id);
    assert_eq!(alone.verdict, Word::Blocked);
    assert_eq!(codes(&alone), [Code::ClassNoWorker, Code::BrainAbsent]);
    let _held = worker(&pool, "cpu-1", ability(&[Class::Cpu]), Vec::new());
    let other = of_task(&pool, id);
    assert_eq!(other.verdict, Word::Impossible);
    assert_eq!(codes(&other)[..2], [Code::ClassNoWorker, Code::ClassNotTaken]);
    assert_eq!(of_worker(&pool, "cpu-1").verdict, Word::Idle);
    assert_eq!(codes(&of_worker(&pool, "cpu-1")), [Code::LaneIneligible]);
}

#[test]
fn a_busy_worker_is_named_with_what_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path());
    let id = submit(&pool, r#"{"shell": "x"}"#);
    let _held = worker(&pool, "worker-0", ability(&[Class::Script]), vec![run(Class::Script)]);
    let verdict = of_task(&pool, id);
    assert_eq!((verdict.verdict, codes(&verdict)), (Word::Blocked, vec![Code::WorkerBusy]));
    assert!(verdict.text.starts_with("worker-0 runs "), "{}", verdict.text);
    assert_eq!(of_worker(&pool, "worker-0").verdict, Word::Busy);
    assert_eq!(ask(&pool, |look| why_pool(look).unwrap()).verdict, Word::Busy);
}

#[test]
fn a_gpu_out_of_use_is_told_of_task_worker_gpu_and_pool() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path());
    let id = submit(&pool, r#"{"shell": "x"}"#);
    let since = Moment::now();
    let quarantine = Quarantine { fault: GpuFault::Lost, since, until: since, times: 1 };
    let fitness = Fitness::Quarantined(quarantine);
    let gpu_state = GpuState { fitness, memory: None };
    let ability = Ability { gpu_state, ..ability(&[Class::Script]) };
    let _held = worker(&pool, "worker-0", ability, Vec::new());
    let of_gpu =
        ask(&pool, |look| why_gpu(look, "gpu:0", worker_of(look, "gpu:0").flatten()).unwrap());
    let of_pool = ask(&pool, |look| why_pool(look).unwrap());
    for verdict in [of_task(&pool, id), of_worker(&pool, "worker-0"), of_gpu, of_pool] {
        let kind = verdict.subject.kind;
        assert_eq!((verdict.verdict, codes(&verdict)[0]), (Word::Blocked, Code::GpuQuarantined));
        let told = codes(&verdict).iter().filter(|code| **code == Code::GpuQuarantined).count();
        assert_eq!(told, 1, "{kind}: once");
    }
}

#[test]
fn a_worker_that_can_start_nothing_says_so_once_however_many_lanes_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path());
    let starved = Starved { since: Moment::now(), error: "no thread".into() };
    let ability = Ability { starved: Some(starved), ..ability(&[Class::Script]) };
    let _held = worker(&pool, "worker-0", ability, Vec::new());
    let without_tasks = of_worker(&pool, "worker-0");
    assert_eq!(codes(&without_tasks), [Code::WorkerStarved, Code::QueueEmpty]);
    for priority in 0..3 {
        let memory = format!(r#"{{"shell": "x", "gpu_memory": "{priority}GiB"}}"#);
        submit(&pool, &memory);
    }
    let verdict = of_worker(&pool, "worker-0");
    assert_eq!((verdict.verdict, codes(&verdict)), (Word::Blocked, vec![Code::WorkerStarved]));
}

#[test]
fn what_somebody_can_take_now_is_claimable() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path());
    let id = submit(&pool, r#"{"shell": "x"}"#);
    let big = submit(&pool, r#"{"shell": "x", "gpu_memory": "20GiB"}"#);
    let _held = worker(&pool, "worker-0", ability(&[Class::Script]), Vec::new());
    assert_eq!(of_task(&pool, id).verdict, Word::Claimable);
    assert_eq!(of_worker(&pool, "worker-0").verdict, Word::Claimable);
    let never = of_task(&pool, big);
    assert_eq!((never.verdict, codes(&never)[0]), (Word::Impossible, Code::VramNever));
    control::pause_pool(pool.layout(), &control::Message::new(control::ControlVerb::Pause, "ann"))
        .unwrap();
    let paused = of_task(&pool, id);
    assert_eq!((paused.verdict, codes(&paused)), (Word::Blocked, vec![Code::Paused]));
    assert_eq!(of_worker(&pool, "worker-0").verdict, Word::Blocked);
}

#[test]
fn what_holds_a_task_itself_comes_before_what_holds_its_lane() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path());
    let first = submit(&pool, r#"{"shell": "x"}"#);
    let next = submit(&pool, &format!(r#"{{"shell": "y", "after": ["{first}"]}}"#));
    let waiting = of_task(&pool, next);
    assert_eq!((waiting.verdict, codes(&waiting)[0]), (Word::Blocked, Code::WaitingDependency));
    assert_eq!(waiting.reasons[0].evidence["waits_for"][0]["state"], "pending");
    let found = places::find(pool.layout(), first).unwrap().unwrap();
    operate::hold(&pool, &found).unwrap();
    let held = of_task(&pool, first);
    assert_eq!((held.verdict, codes(&held)[0]), (Word::Blocked, Code::HeldPerson));
    assert_eq!(held.reasons[0].fix, Some(format!("queue release {}", first.short())));
}

#[test]
fn the_dead_and_the_hung_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path());
    let (lease, beat) = worker(&pool, "worker-0", ability(&[Class::Script]), Vec::new());
    let old = Heartbeat { at: Moment::now().plus_millis(-90_000), uptime: None, ..beat };
    heartbeats::write(&pool, &old).unwrap();
    let hung = of_worker(&pool, "worker-0");
    assert_eq!((hung.verdict, codes(&hung)), (Word::Blocked, vec![Code::WorkerHung]));
    assert!(hung.reasons[0].evidence["process_state"].is_string());
    drop(lease);
    let dead = of_worker(&pool, "worker-0");
    assert_eq!((dead.verdict, codes(&dead)), (Word::Gone, vec![Code::WorkerDead]));
}

/// A worker whose Ollama holds, knows and fails as said.
fn with_server(change: impl FnOnce(&mut ModelServer)) -> Ability {
    let mut server = ModelServer {
        kind: ServerKind::Ollama,
        address: "http://127.0.0.1:11434".into(),
        loads: Loads::OnRequest,
        health: Health::Up,
        health_since: Moment::now(),
        error: None,
        models: Vec::new(),
        known: Some(vec!["tiny:latest".into()]),
        failed_loads: Vec::new(),
        busy: Vec::new(),
        canary: None,
    };
    change(&mut server);
    let classes = [Class::Resource, Class::Script, Class::Cpu, Class::Llm];
    Ability { server: Some(server), ..ability(&classes) }
}

fn holding(state: HeldState) -> Vec<HeldModel> {
    let since = Moment::now();
    vec![HeldModel {
        model: "tiny:latest".into(),
        state,
        since,
        size: None,
        vram: None,
        error: None,
    }]
}

fn of_model(pool: &Pool, name: &str) -> Explanation {
    ask(pool, |look| {
        assert!(is_model(look, name), "{name}");
        why_model(look, name).unwrap()
    })
}

#[test]
fn a_task_without_its_model_says_who_was_asked_to_load_it() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path());
    let id = submit(&pool, r#"{"class": "llm", "prompt": "hi", "model": "tiny"}"#);
    let _held = worker(&pool, "worker-0", with_server(|_| ()), Vec::new());
    let alone = of_task(&pool, id);
    assert_eq!((alone.verdict, codes(&alone)), (Word::Blocked, vec![Code::ModelNotLoaded]));
    assert!(alone.text.contains("nobody was asked to load it"), "{}", alone.text);
    submit(
        &pool,
        r#"{"class": "resource", "verb": "load_llm", "model": "tiny", "worker": "worker-0"}"#,
    );
    let asked = of_task(&pool, id);
    assert!(asked.text.starts_with("llm needs tiny: load requested "), "{}", asked.text);
    assert_eq!(asked.reasons[0].evidence["asked_of"], "worker-0");
    let model = of_model(&pool, "tiny:latest");
    assert_eq!((model.verdict, codes(&model)), (Word::Blocked, vec![Code::ModelNotLoaded]));
    assert_eq!(model.text, "tiny:latest is loaded nowhere; 1 task waiting for it");
}

#[test]
fn a_model_that_no_server_has_can_never_be_asked_here() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path());
    let id = submit(&pool, r#"{"class": "llm", "prompt": "hi", "model": "tyni"}"#);
    let _held = worker(&pool, "worker-0", with_server(|_| ()), Vec::new());
    let missing = of_task(&pool, id);
    assert_eq!((missing.verdict, codes(&missing)[0]), (Word::Impossible, Code::ModelMissing));
    assert!(missing.text.contains("did you mean tiny"), "{}", missing.text);
    assert_eq!(of_model(&pool, "tyni").verdict, Word::Impossible);
}

#[test]
fn what_a_server_is_at_is_told_of_tasks_models_workers_and_gpus() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path());
    let id = submit(&pool, r#"{"class": "llm", "prompt": "hi", "model": "tiny"}"#);
    let script = submit(&pool, r#"{"shell": "x"}"#);
    let say = |change: &dyn Fn(&mut ModelServer)| {
        let held = worker(&pool, "worker-0", with_server(change), Vec::new());
        let (task, script) = (of_task(&pool, id), of_task(&pool, script));
        let gpu = ask(&pool, |look| {
            let worker = worker_of(look, "gpu:0").unwrap();
            why_gpu(look, "gpu:0", worker).unwrap()
        });
        assert_eq!((gpu.subject.kind, gpu.subject.id.as_str()), ("gpu", "0"));
        drop(held);
        (task.verdict, codes(&task), codes(&script), gpu.verdict)
    };
    let loading = say(&|server| server.models = holding(HeldState::Loading));
    let (blocked, idle) = (Word::Blocked, Word::Idle);
    let vram = vec![Code::VramShort];
    assert_eq!(loading, (blocked, vec![Code::ModelLoading], vram.clone(), idle));
    let loaded = say(&|server| server.models = holding(HeldState::Loaded));
    assert_eq!(loaded, (Word::Claimable, vec![], vram.clone(), Word::Claimable));
    let wedged = say(&|server| {
        server.models = holding(HeldState::Loaded);
        server.health = Health::Wedged;
    });
    assert_eq!(wedged, (blocked, vec![Code::ServerWedged], vram, idle));
    let down = say(&|server| server.health = Health::Down);
    assert_eq!(down.1, [Code::ServerDown, Code::ModelNotLoaded]);
    assert!(ask(&pool, |look| worker_of(look, "gpu:7").unwrap().is_none()));
    assert!(ask(&pool, |look| worker_of(look, "tiny").is_none()));
}

/// Each lane is looked at, and nothing is looked at again for each of them.
#[test]
fn what_holds_up_the_pool_costs_as_much_for_each_lane_however_many_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path());
    let _held = worker(&pool, "worker-0", with_server(|server| server.known = None), Vec::new());
    let looks_with_more_lanes = |first: u32| {
        for number in first..first + 10 {
            let spec = format!(r#"{{"class": "llm", "prompt": "x", "model": "m{number}"}}"#);
            submit(&pool, &spec);
        }
        count_looks(|| {
            let verdict = ask(&pool, |look| why_pool(look).unwrap());
            let lanes = codes(&verdict).into_iter().filter(|code| *code == Code::ModelNotLoaded);
            assert_eq!(lanes.count() as u32, first + 10);
        })
    };
    let looks = [0, 10, 20].map(looks_with_more_lanes);
    assert_eq!(looks[2] - looks[1], looks[1] - looks[0], "{looks:?}");
}
