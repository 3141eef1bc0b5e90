//! What a worker comes to know of its server, look by look.

use std::sync::Arc;
use std::time::{Duration, Instant};

use queue::wire::heartbeat::Ability;
use shared::event::Event;
use shared::llm::{Health, HeldState, Loads, ModelVerb, Refused};
use shared::outcome::Cause;
use shared::quantity::Bytes;
use shared::task::Class;
use shared::time::Moment;

use super::fixture::{Fake, answer, failure, held};
use super::now::Now;
use super::server_state::{Pace, ServerState};
use super::{Models, Patience};
use crate::server::{Again, Failure};
use crate::worker_state::WorkerState;

fn at(second: u64) -> Now {
    static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let begin = *BEGIN.get_or_init(Instant::now);
    let at = Moment::from_unix_millis(1_700_000_000_000 + i64::try_from(second).unwrap() * 1000);
    Now { at, tick: begin + Duration::from_secs(second) }
}

const PATIENCE: Patience = Patience {
    poll: Duration::from_secs(5),
    canary_interval: Duration::from_secs(60),
    canary: Duration::from_secs(30),
};

fn server_state() -> ServerState {
    ServerState::new("worker-1".parse().unwrap(), &Fake::default(), PATIENCE, at(0))
}

/// A server that holds these models, and tasks that wait for them.
fn holding(models: &[&str]) -> ServerState {
    let mut server_state = server_state();
    server_state.holds(models.iter().map(|model| held(model)).collect(), REQUEST, at(1));
    server_state.want(models.iter().map(|model| (*model).to_owned()).collect());
    server_state
}

fn names(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(Event::name).collect()
}

fn states(server_state: &ServerState) -> Vec<(&str, HeldState)> {
    server_state.server().models.iter().map(|held| (held.model.as_str(), held.state)).collect()
}

const REQUEST: Loads = Loads::OnRequest;

#[test]
fn one_failed_look_is_a_doubt_and_two_are_a_server_that_is_down() {
    let (mut server_state, gone) = (server_state(), failure(Cause::ServerError, Again::Maybe));
    assert_eq!(names(&server_state.holds(vec![held("tiny")], REQUEST, at(1))), ["server.up"]);
    assert_eq!(states(&server_state), [("tiny", HeldState::Unproven)]);
    let loaded = server_state.proven("tiny", Duration::ZERO, None, at(1));
    assert_eq!(names(&loaded), ["model.loaded"]);
    assert_eq!(names(&server_state.silent(&gone, at(6))), [""; 0]);
    assert_eq!(
        (server_state.server().health, states(&server_state)[0].1),
        (Health::Up, HeldState::Unproven)
    );
    assert_eq!(names(&server_state.silent(&gone, at(11))), ["server.down"]);
    assert_eq!((server_state.server().health, states(&server_state).len()), (Health::Down, 0));
    assert_eq!(names(&server_state.silent(&gone, at(16))), ["server.down_again"]);
    let up = server_state.holds(vec![], REQUEST, at(21));
    assert_eq!(up[0].message(), "Model server http://fake of worker-1 answers again after 10s");
}

#[test]
fn a_server_that_was_never_there_is_down_at_once() {
    let mut server_state = server_state();
    let gone = failure(Cause::ServerError, Again::Maybe);
    assert_eq!(names(&server_state.silent(&gone, at(1))), ["server.down"]);
}

#[test]
fn pings_without_canaries_make_a_wedged_server() {
    let (mut server_state, dead) = (holding(&["tiny"]), failure(Cause::Timeout, Again::Maybe));
    server_state.proven("tiny", Duration::ZERO, None, at(1));
    assert_eq!(names(&server_state.mute("tiny", &dead, 0, at(61))), ["model.silent"]);
    assert_eq!(states(&server_state), [("tiny", HeldState::Unproven)]);
    assert_eq!(names(&server_state.mute("tiny", &dead, 0, at(91))), ["server.wedged"]);
    assert_eq!(server_state.server().health, Health::Wedged);
    server_state.holds(vec![held("tiny")], REQUEST, at(96));
    assert_eq!(server_state.server().health, Health::Wedged, "pings are no proof");
    assert_eq!(names(&server_state.mute("tiny", &dead, 0, at(121))), [""; 0], "said once");
    let back = server_state.proven("tiny", Duration::ZERO, None, at(150));
    assert_eq!(names(&back), ["model.answers_again", "server.up"]);
    assert_eq!(states(&server_state), [("tiny", HeldState::Loaded)]);
}

#[test]
fn a_model_that_is_silent_is_no_wedged_server_as_long_as_another_one_answers() {
    let (mut server_state, dead) =
        (holding(&["good", "bad"]), failure(Cause::Timeout, Again::Maybe));
    let idle = Pace::Idle(PATIENCE.canary_interval);
    server_state.proven("good", Duration::ZERO, None, at(1));
    for round in 0..5 {
        let second = 10 + round * 10;
        assert_eq!(server_state.due(at(second), idle).as_deref(), Some("bad"));
        let said = server_state.mute("bad", &dead, 0, at(second));
        assert_eq!(names(&said), if round == 0 { &["model.silent"][..] } else { &[] });
        assert_eq!(server_state.due(at(second + 1), idle).as_deref(), Some("good"), "and you?");
        server_state.proven("good", Duration::ZERO, None, at(second + 1));
        assert_eq!(server_state.due(at(second + 2), idle), None);
    }
    assert_eq!(server_state.server().health, Health::Up);
    assert_eq!(server_state.server().held("bad").unwrap().error.as_deref(), Some("it is timeout"));
    server_state.mute("bad", &dead, 0, at(70));
    assert_eq!(names(&server_state.mute("good", &dead, 0, at(71))), ["model.silent"]);
    assert_eq!(names(&server_state.mute("bad", &dead, 0, at(75))), ["server.wedged"], "all are");
}

#[test]
fn as_long_as_a_request_runs_nobody_knows_that_the_server_stands_still() {
    let (mut server_state, dead) = (holding(&["tiny"]), failure(Cause::Timeout, Again::Maybe));
    for second in 1..9 {
        server_state.mute("tiny", &dead, 1, at(second));
    }
    assert_eq!(server_state.server().health, Health::Up);
    assert_eq!(names(&server_state.mute("tiny", &dead, 0, at(9))), ["server.wedged"]);
}

/// The server says what is wrong with the model: so it does not stand still.
#[test]
fn a_model_that_fails_is_asked_less_and_less_and_is_no_wedged_server() {
    let mut server_state = holding(&["tiny"]);
    let refused = Refused { status: 500, body: serde_json::Value::Null, retry_after_seconds: None };
    let refused = Some(Box::new(refused));
    let fails = Failure { refused, ..failure(Cause::Timeout, Again::Maybe) };
    let mut asked = Vec::new();
    for second in 1..300 {
        if server_state.due(at(second), Pace::Busy).is_some() {
            asked.push(second);
            server_state.mute("tiny", &fails, 0, at(second));
        }
    }
    assert_eq!(asked, [1, 6, 16, 36, 76, 136, 196, 256]);
    assert_eq!(server_state.server().health, Health::Up);
    assert_eq!(
        names(&server_state.proven("tiny", Duration::ZERO, None, at(301)))[0],
        "model.answers_again"
    );
    assert_eq!(server_state.server().held("tiny").unwrap().error, None);
}

#[test]
fn tasks_that_wait_have_what_is_held_prove_itself_and_a_server_that_was_down_looked_at() {
    let mut server_state = server_state();
    assert!(server_state.want(["tiny".to_owned()].into()), "nobody has looked at the server yet");
    assert!(!server_state.want(["tiny".to_owned()].into()), "as before");
    server_state.holds(vec![held("tiny"), held("other")], REQUEST, at(1));
    assert!(!server_state.want([].into()));
    assert!(server_state.want(["other".to_owned()].into()));
    assert!(!server_state.want(["nowhere".to_owned()].into()), "no look helps it");
}

#[test]
fn a_wedged_server_that_comes_back_empty_is_up() {
    let (mut server_state, dead) = (holding(&["tiny"]), failure(Cause::Timeout, Again::Maybe));
    server_state.mute("tiny", &dead, 0, at(2));
    server_state.mute("tiny", &dead, 0, at(3));
    assert_eq!(names(&server_state.holds(vec![], REQUEST, at(4))), ["server.up"]);
}

#[test]
fn a_model_counts_as_loaded_when_it_is_held_and_has_answered() {
    let mut server_state = server_state();
    server_state.holds(vec![], REQUEST, at(1));
    assert_eq!(names(&server_state.begins(ModelVerb::Load, "tiny", at(2))), ["model.loading"]);
    assert_eq!(states(&server_state), [("tiny", HeldState::Loading)]);
    server_state.holds(vec![], REQUEST, at(3));
    assert_eq!(states(&server_state), [("tiny", HeldState::Loading)], "a look does not end a load");
    server_state.holds(vec![held("tiny:latest")], REQUEST, at(7));
    assert_eq!(states(&server_state), [("tiny:latest", HeldState::Loading)]);
    let (took, load) = (Duration::from_millis(3), Some(Duration::from_secs(5)));
    let loaded = server_state.proven("tiny", took, load, at(8));
    let text = "Loaded tiny on worker-1 in 5.0s: it answers (1 GiB, all of it in GPU memory)";
    assert_eq!(loaded[0].message(), text);
    assert_eq!(states(&server_state), [("tiny:latest", HeldState::Loaded)]);
    assert_eq!(names(&server_state.holds(vec![], REQUEST, at(9))), ["model.unloaded"], "evicted");
}

#[test]
fn a_model_that_is_partly_on_the_processor_is_told_with_figures() {
    let mut server_state = server_state();
    let partly = shared::llm::HeldModel { vram: Some(Bytes(1 << 29)), ..held("tiny") };
    server_state.holds(vec![partly], REQUEST, at(1));
    let events = server_state.proven("tiny", Duration::ZERO, None, at(1));
    assert_eq!(names(&events), ["model.loaded", "model.on_cpu"]);
    assert!(events[1].message().contains("512 MiB of 1 GiB"), "{}", events[1].message());
}

#[test]
fn failed_loads_are_remembered_until_something_changes() {
    let mut server_state = server_state();
    server_state.holds(vec![], REQUEST, at(1));
    let full = failure(Cause::Oom, Again::Maybe);
    server_state.begins(ModelVerb::Load, "tiny", at(2));
    assert_eq!(names(&server_state.load_failed("tiny", &full, at(3))), ["model.load_failed"]);
    assert_eq!((states(&server_state).len(), server_state.server().failed_loads.len()), (0, 1));
    server_state.knows(vec!["tiny".into()]);
    assert_eq!(server_state.server().failed_loads.len(), 0, "the list has changed");
    server_state.load_failed("tiny", &full, at(4));
    server_state.knows(vec!["tiny".into()]);
    assert_eq!(server_state.server().failed_loads.len(), 1, "the list is the same");
    server_state.holds(vec![held("tiny")], REQUEST, at(5));
    server_state.proven("tiny", Duration::ZERO, None, at(5));
    assert_eq!(server_state.server().failed_loads.len(), 0, "it is loaded");
}

#[test]
fn canaries_go_to_doubtful_models_at_once_and_to_others_when_idle() {
    let mut server_state = server_state();
    let idle = Pace::Idle(Duration::from_secs(60));
    assert_eq!(server_state.due(at(0), idle), None);
    server_state.holds(vec![held("tiny"), held("other")], REQUEST, at(1));
    assert_eq!(server_state.due(at(1), Pace::Busy), None, "a list is no reason to ask anything");
    server_state.want(["tiny".to_owned()].into());
    assert_eq!(server_state.due(at(1), Pace::Busy).as_deref(), Some("tiny"));
    server_state.proven("tiny", Duration::ZERO, None, at(2));
    assert_eq!(
        (server_state.due(at(61), idle), server_state.due(at(99), Pace::Busy)),
        (None, None)
    );
    assert_eq!(server_state.due(at(62), idle).as_deref(), Some("tiny"));
    server_state.doubt("tiny", at(63));
    assert_eq!(server_state.due(at(63), Pace::Busy).as_deref(), Some("tiny"));
    server_state.answered("tiny", &answer("tiny"), 1);
    let tiny = ("tiny", HeldState::Loaded);
    assert_eq!(states(&server_state)[0], tiny, "an answer is as good as a canary");
    server_state.want([].into());
    assert_eq!(server_state.due(at(999), idle), None, "nothing waits for it");
    server_state.proven("tiny", Duration::ZERO, Some(Duration::ZERO), at(1000));
    assert_eq!(server_state.due(at(1060), idle).as_deref(), Some("tiny"), "this worker loaded it");
    server_state.begins(ModelVerb::Unload, "tiny", at(1070));
    assert_eq!(server_state.due(at(9999), idle), None, "not while it is unloaded");
}

fn worker_state() -> WorkerState {
    let ability = Ability {
        classes: vec![Class::Resource, Class::Llm],
        gpu: Some(0),
        gpu_uuid: None,
        gpu_memory: None,
        gpu_state: queue::wire::heartbeat::gpu_state::GpuState::default(),
        gpu_slots: 1,
        cpu_slots: 0,
        paused: None,
        draining: None,
        starved: None,
        backs_off: Vec::new(),
        server: None,
    };
    WorkerState::new("worker-1".parse().unwrap(), ability)
}

fn models(fake: &Arc<Fake>) -> Models {
    let (soon, long) = (Duration::from_millis(10), Duration::from_secs(3600));
    let patience = Patience { poll: soon, canary_interval: long, canary: long };
    Models::new("worker-1".parse().unwrap(), fake.clone(), patience)
}

#[test]
fn what_is_found_out_is_in_the_workers_state_and_wakes_the_main_thread() {
    let (fake, worker_state) = (Arc::new(Fake::default()), worker_state());
    fake.set(|state| state.held.push("tiny".into()));
    let models = models(&fake);
    let (end, ended) = crossbeam_channel::bounded(0);
    std::thread::scope(|scope| {
        scope.spawn(|| models.keep(&worker_state, &ended));
        models.want(["tiny".to_owned()].into());
        let has_tiny = || {
            worker_state.look(|s| s.ability.server.as_ref().is_some_and(|s| s.has_loaded("tiny")))
        };
        while !has_tiny() {
            models.news().recv().unwrap();
        }
        fake.set(|state| state.mute = Some(failure(Cause::Timeout, Again::Maybe)));
        models.doubt(&worker_state, "tiny");
        assert!(!has_tiny(), "at once, before anybody has looked");
        fake.set(|state| state.mute = None);
        while !has_tiny() {
            models.news().recv().unwrap();
        }
        drop(end);
    });
}

#[test]
fn a_dead_runner_that_is_still_listed_is_found_by_the_canary() {
    let (fake, worker_state) = (Arc::new(Fake::default()), worker_state());
    fake.set(|state| state.held.push("tiny".into()));
    let models = models(&fake);
    assert!(models.look(&worker_state));
    models.canary(&worker_state, "tiny", None).unwrap();
    let dead = |cause| Some(failure(cause, Again::Maybe));
    fake.set(|state| state.mute = dead(Cause::ServerError));
    assert!(models.look(&worker_state), "it is listed");
    models.want(["tiny".to_owned()].into());
    models.canary(&worker_state, "tiny", None).unwrap_err();
    models.canary(&worker_state, "tiny", None).unwrap_err();
    let known = models.known();
    assert_eq!((known.health, known.models[0].state), (Health::Up, HeldState::Unproven));
    assert_eq!(known.models[0].error.as_deref(), Some("it is server_error"));
    fake.set(|state| state.mute = dead(Cause::Timeout));
    models.canary(&worker_state, "tiny", None).unwrap_err();
    models.canary(&worker_state, "tiny", None).unwrap_err();
    assert_eq!(models.known().health, Health::Wedged);
    let calls = fake.state.lock().unwrap().calls.clone();
    assert_eq!(calls.last().unwrap(), "ping", "wedged is what answers pings");
}

#[test]
fn a_server_that_does_not_answer_is_looked_at_soon_and_then_less_and_less() {
    let mut pauses = super::Pauses::new(Duration::from_secs(1));
    let mut next = |health| pauses.next(health).as_millis();
    let down: Vec<u128> = (0..6).map(|_look| next(Health::Down)).collect();
    assert_eq!(down, [100, 200, 400, 800, 1_000, 1_000]);
    assert_eq!((next(Health::Up), next(Health::Down), next(Health::Down)), (1_000, 100, 200));
}
