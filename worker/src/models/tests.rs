//! What a worker comes to know of its server, look by look.

use std::sync::Arc;
use std::time::{Duration, Instant};

use queue::wire::heartbeat::Ability;
use shared::event::Event;
use shared::llm::{Health, HeldState, Loads, ModelVerb};
use shared::outcome::Cause;
use shared::quantity::Bytes;
use shared::task::Class;
use shared::time::Moment;

use super::fixture::{Fake, answer, failure, held};
use super::server_state::{Book, Now, Pace};
use super::{Models, Patience};
use crate::server::Again;
use crate::worker_state::Desk;

fn at(second: u64) -> Now {
    static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let begin = *BEGIN.get_or_init(Instant::now);
    let at = Moment::from_unix_millis(1_700_000_000_000 + i64::try_from(second).unwrap() * 1000);
    Now { at, tick: begin + Duration::from_secs(second) }
}

fn book() -> Book {
    Book::new("worker-1".parse().unwrap(), &Fake::default(), at(0))
}

fn names(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(Event::name).collect()
}

fn states(book: &Book) -> Vec<(&str, HeldState)> {
    book.server().models.iter().map(|held| (held.model.as_str(), held.state)).collect()
}

const REQUEST: Loads = Loads::OnRequest;

#[test]
fn one_failed_look_is_a_doubt_and_two_are_a_server_that_is_down() {
    let (mut book, gone) = (book(), failure(Cause::ServerError, Again::Maybe));
    assert_eq!(names(&book.holds(vec![held("tiny")], REQUEST, at(1))), ["server.up"]);
    assert_eq!(states(&book), [("tiny", HeldState::Unproven)]);
    let loaded = book.proven("tiny", (Duration::ZERO, None), at(1));
    assert_eq!(names(&loaded), ["model.loaded"]);
    assert_eq!(names(&book.silent(&gone, at(6))), [""; 0]);
    assert_eq!((book.server().health, states(&book)[0].1), (Health::Up, HeldState::Unproven));
    assert_eq!(names(&book.silent(&gone, at(11))), ["server.down"]);
    assert_eq!((book.server().health, states(&book).len()), (Health::Down, 0));
    assert_eq!(names(&book.silent(&gone, at(16))), ["server.down_again"]);
    let up = book.holds(vec![], REQUEST, at(21));
    assert_eq!(up[0].message(), "Model server http://fake of worker-1 answers again after 10s");
}

#[test]
fn a_server_that_was_never_there_is_down_at_once() {
    let mut book = book();
    let gone = failure(Cause::ServerError, Again::Maybe);
    assert_eq!(names(&book.silent(&gone, at(1))), ["server.down"]);
}

#[test]
fn pings_without_canaries_make_a_wedged_server() {
    let (mut book, dead) = (book(), failure(Cause::Timeout, Again::Maybe));
    book.holds(vec![held("tiny")], REQUEST, at(1));
    book.proven("tiny", (Duration::ZERO, None), at(1));
    assert_eq!(names(&book.mute("tiny", &dead, at(61))), ["model.silent"]);
    assert_eq!(states(&book), [("tiny", HeldState::Unproven)]);
    assert_eq!(names(&book.mute("tiny", &dead, at(91))), ["server.wedged"]);
    assert_eq!(book.server().health, Health::Wedged);
    book.holds(vec![held("tiny")], REQUEST, at(96));
    assert_eq!(book.server().health, Health::Wedged, "pings are no proof");
    assert_eq!(names(&book.mute("tiny", &dead, at(121))), [""; 0], "said once");
    let back = book.proven("tiny", (Duration::ZERO, None), at(150));
    assert_eq!(names(&back), ["server.up"]);
    assert_eq!(states(&book), [("tiny", HeldState::Loaded)]);
}

#[test]
fn a_wedged_server_that_comes_back_empty_is_up() {
    let (mut book, dead) = (book(), failure(Cause::Timeout, Again::Maybe));
    book.holds(vec![held("tiny")], REQUEST, at(1));
    book.mute("tiny", &dead, at(2));
    book.mute("tiny", &dead, at(3));
    assert_eq!(names(&book.holds(vec![], REQUEST, at(4))), ["server.up"]);
}

#[test]
fn a_model_counts_as_loaded_when_it_is_held_and_has_answered() {
    let mut book = book();
    book.holds(vec![], REQUEST, at(1));
    assert_eq!(names(&book.begins(ModelVerb::Load, "tiny", at(2))), ["model.loading"]);
    assert_eq!(states(&book), [("tiny", HeldState::Loading)]);
    book.holds(vec![], REQUEST, at(3));
    assert_eq!(states(&book), [("tiny", HeldState::Loading)], "a look does not end a load");
    book.holds(vec![held("tiny:latest")], REQUEST, at(7));
    assert_eq!(states(&book), [("tiny:latest", HeldState::Loading)]);
    let took = (Duration::from_millis(3), Some(Duration::from_secs(5)));
    let loaded = book.proven("tiny", took, at(8));
    let text = "Loaded tiny on worker-1 in 5.0s: it answers (1 GiB, all of it in GPU memory)";
    assert_eq!(loaded[0].message(), text);
    assert_eq!(states(&book), [("tiny:latest", HeldState::Loaded)]);
    assert_eq!(names(&book.holds(vec![], REQUEST, at(9))), ["model.unloaded"], "evicted");
}

#[test]
fn a_model_that_is_partly_on_the_processor_is_told_with_figures() {
    let mut book = book();
    let partly = shared::llm::HeldModel { vram: Some(Bytes(1 << 29)), ..held("tiny") };
    book.holds(vec![partly], REQUEST, at(1));
    let events = book.proven("tiny", (Duration::ZERO, None), at(1));
    assert_eq!(names(&events), ["model.loaded", "model.on_cpu"]);
    assert!(events[1].message().contains("512 MiB of 1 GiB"), "{}", events[1].message());
}

#[test]
fn failed_loads_are_remembered_until_something_changes() {
    let mut book = book();
    book.holds(vec![], REQUEST, at(1));
    let full = failure(Cause::Oom, Again::Maybe);
    book.begins(ModelVerb::Load, "tiny", at(2));
    assert_eq!(names(&book.load_failed("tiny", &full, at(3))), ["model.load_failed"]);
    assert_eq!((states(&book).len(), book.server().failed_loads.len()), (0, 1));
    book.knows(vec!["tiny".into()]);
    assert_eq!(book.server().failed_loads.len(), 0, "the list has changed");
    book.load_failed("tiny", &full, at(4));
    book.knows(vec!["tiny".into()]);
    assert_eq!(book.server().failed_loads.len(), 1, "the list is the same");
    book.holds(vec![held("tiny")], REQUEST, at(5));
    book.proven("tiny", (Duration::ZERO, None), at(5));
    assert_eq!(book.server().failed_loads.len(), 0, "it is loaded");
}

#[test]
fn canaries_go_to_doubtful_models_at_once_and_to_others_when_idle() {
    let mut book = book();
    let idle = Pace::Idle(Duration::from_secs(60));
    assert_eq!(book.due(at(0), idle), None);
    book.holds(vec![held("tiny")], REQUEST, at(1));
    assert_eq!(book.due(at(1), Pace::Busy).as_deref(), Some("tiny"));
    book.proven("tiny", (Duration::ZERO, None), at(2));
    assert_eq!((book.due(at(61), idle), book.due(at(99), Pace::Busy)), (None, None));
    assert_eq!(book.due(at(62), idle).as_deref(), Some("tiny"));
    book.doubt("tiny", at(63));
    assert_eq!(book.due(at(63), Pace::Busy).as_deref(), Some("tiny"));
    book.answered("tiny", &answer("tiny"), 1);
    assert_eq!(states(&book), [("tiny", HeldState::Loaded)], "an answer is as good as a canary");
    book.begins(ModelVerb::Unload, "tiny", at(70));
    assert_eq!(book.due(at(999), idle), None, "not while it is unloaded");
}

fn desk() -> Desk {
    let ability = Ability {
        classes: vec![Class::Resource, Class::Llm],
        gpu: Some(0),
        gpu_uuid: None,
        gpu_memory: None,
        gpu_slots: 1,
        cpu_slots: 0,
        paused: None,
        draining: None,
        server: None,
    };
    Desk::new("worker-1".parse().unwrap(), ability)
}

fn models(fake: &Arc<Fake>) -> Models {
    let long = Duration::from_secs(3600);
    let patience = Patience { poll: long, canary_interval: long, canary: long };
    Models::new("worker-1".parse().unwrap(), fake.clone(), patience)
}

#[test]
fn what_is_found_out_lies_on_the_desk_and_wakes_the_main_thread() {
    let (fake, desk) = (Arc::new(Fake::default()), desk());
    fake.set(|state| state.held.push("tiny".into()));
    let models = models(&fake);
    let (end, ended) = crossbeam_channel::bounded(0);
    std::thread::scope(|scope| {
        scope.spawn(|| models.keep(&desk, &ended));
        let has_tiny =
            || desk.look(|s| s.ability.server.as_ref().is_some_and(|s| s.has_loaded("tiny")));
        while !has_tiny() {
            models.news().recv().unwrap();
        }
        fake.set(|state| state.mute = Some(failure(Cause::Timeout, Again::Maybe)));
        models.doubt(&desk, "tiny");
        assert!(!has_tiny(), "at once, before anybody has looked");
        fake.set(|state| state.mute = None);
        models.doubt(&desk, "tiny");
        while !has_tiny() {
            models.news().recv().unwrap();
        }
        drop(end);
    });
}

#[test]
fn a_dead_runner_that_is_still_listed_is_found_by_the_canary() {
    let (fake, desk) = (Arc::new(Fake::default()), desk());
    fake.set(|state| state.held.push("tiny".into()));
    let models = models(&fake);
    assert!(models.look(&desk));
    models.canary(&desk, "tiny", None).unwrap();
    fake.set(|state| state.mute = Some(failure(Cause::ServerError, Again::Maybe)));
    assert!(models.look(&desk), "it is listed");
    models.canary(&desk, "tiny", None).unwrap_err();
    models.canary(&desk, "tiny", None).unwrap_err();
    assert_eq!(models.known().health, Health::Wedged);
    let calls = fake.state.lock().unwrap().calls.clone();
    assert_eq!(calls.last().unwrap(), "ping", "wedged is what answers pings");
}
