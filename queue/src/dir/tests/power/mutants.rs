//! The check of the checks: each flush that the protocol rests on is taken out, as if the program
//! did without it, and the model must find what is lost then.

use super::scenes::{
    FAILED, PLAIN, submit, submit_batch, submit_keyed, submit_two, work, work_together,
};
use super::{Scene, Stage, is_flush_of, play_without};
use crate::dir::fault::Done;
use crate::dir::fixture::pool_at;

type Act = fn(&Stage);

#[test]
fn without_any_one_flush_something_is_lost() {
    let single: Act = |stage| submit_two(stage, PLAIN);
    let held: Act = |stage| submit_two(stage, r#"{"shell": "true", "hold": true}"#);
    let end: Act = |stage| work(stage, FAILED);
    let together: Act = |stage| work_together(stage);
    let flushes: [(&str, Act); 10] = [
        ("/incoming/", single),
        ("/pool/pending", single),
        ("/pool/held", held),
        ("*", submit_batch),
        ("/pool/publishing", submit_batch),
        ("/pool/keys", submit_keyed),
        ("/pool/processing", end),
        (".jsonl", end),
        (".jsonl", together),
        ("/pool/delayed", end),
    ];
    for (part, act) in flushes {
        let scene = Scene {
            prepare: &|stage| _ = submit(stage, r#"{"shell": "true", "priority": 9}"#),
            act: &|stage, ()| act(stage),
        };
        let found = play_without(&scene, &|done| is_flush_of(done, part));
        assert!(found.is_err(), "nobody needs the flush of `{part}`");
    }
}

#[test]
fn without_the_flushes_of_its_marker_a_pool_that_was_being_made_is_none() {
    let scene = Scene {
        prepare: &|stage| {
            std::fs::remove_dir_all(stage.pool.root()).unwrap();
            std::fs::create_dir(stage.pool.root()).unwrap();
        },
        act: &|stage, ()| drop(pool_at(stage.pool.root())),
    };
    for part in ["/.format.", "/pool"] {
        let is_its = |done: &Done| match (part, done) {
            ("/pool", Done::FlushedDir(path)) => path.ends_with("pool"),
            (part, done) => part != "/pool" && is_flush_of(done, part),
        };
        let found = play_without(&scene, &is_its);
        assert!(found.is_err(), "nobody needs the flush of `{part}`");
    }
}
