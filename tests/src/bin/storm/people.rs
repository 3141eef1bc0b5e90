//! People who cancel, hold and release tasks while the storm goes on, and are killed themselves.

use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;
use tests::Ran;

use crate::Storm;

/// What is asked for.
#[derive(Clone, Copy)]
enum Verb {
    Cancel,
    Hold,
    Release,
}

impl Verb {
    const fn word(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Hold => "hold",
            Self::Release => "release",
        }
    }

    /// Exit codes that are an answer: done, not in a state for that, dead worker.
    const fn is_answer(self, code: i32) -> bool {
        match self {
            Self::Cancel => matches!(code, 0 | 75),
            Self::Hold | Self::Release => matches!(code, 0 | 4),
        }
    }
}

/// Meddles until the storm is over.
pub(crate) fn meddle(storm: &Storm, thread: u64) {
    let mut random = storm.random(thread);
    let mut held: Vec<String> = Vec::new();
    while !storm.calm.is_over() {
        storm.calm.pause(Duration::from_millis(random.u64(0..600)));
        let Some(id) = recent(storm, &mut random) else { continue };
        let verb = match random.u32(0..10) {
            0..5 => Verb::Cancel,
            5..8 => Verb::Hold,
            _ => Verb::Release,
        };
        let id = match verb {
            Verb::Cancel => id,
            Verb::Hold => {
                held.push(id.clone());
                id
            }
            Verb::Release if held.is_empty() => continue,
            Verb::Release => held.swap_remove(random.usize(0..held.len())),
        };
        ask(storm, verb, &id, &mut random);
    }
}

/// One of the ids that were printed last.
fn recent(storm: &Storm, random: &mut Rng) -> Option<String> {
    let told = storm.told();
    let from = told.acknowledged.len().saturating_sub(600);
    let some = &told.acknowledged[from..];
    (!some.is_empty()).then(|| some[random.usize(0..some.len())].clone())
}

fn ask(storm: &Storm, verb: Verb, id: &str, random: &mut Rng) {
    let words = [verb.word(), "--json", id];
    storm.told().figures.people_asked += 1;
    if matches!(verb, Verb::Cancel) {
        storm.told().cancel_tried.insert(id.to_owned());
    }
    if random.u32(0..4) == 0 {
        let person = storm.pool.start(&mut storm.pool.command("queue", &words));
        storm.calm.pause(Duration::from_micros(random.u64(0..25_000)));
        storm.told().figures.people_killed += 1;
        let _whatever_it_did = person.kill9();
        return;
    }
    let ran = storm.pool.queue(&words);
    match ran.status.code() {
        Some(code) if verb.is_answer(code) => {}
        Some(_) | None => storm.wrong(format!("nobody expected this answer: {ran}")),
    }
    if matches!(verb, Verb::Cancel) && says_cancelled(&ran) {
        storm.told().cancelled.insert(id.to_owned());
    }
}

fn says_cancelled(ran: &Ran) -> bool {
    serde_json::from_str::<Value>(&ran.stdout)
        .is_ok_and(|answer| answer["tasks"][0]["result"] == "cancelled")
}

/// Releases everything that is held.
pub(crate) fn release_all(storm: &Storm) {
    let files = storm.pool.files_in("held");
    let names = files.iter().filter_map(|path| path.file_stem()?.to_str()?.split('.').next());
    let ids: Vec<_> = names.collect();
    for some in ids.chunks(500) {
        let ran = storm.pool.queue(&[&["release"], some].concat());
        match ran.status.code() {
            Some(code) if Verb::Release.is_answer(code) => {}
            Some(_) | None => storm.wrong(format!("nobody expected this answer: {ran}")),
        }
    }
}
