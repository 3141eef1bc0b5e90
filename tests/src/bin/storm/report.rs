//! What a storm says: what it did, and whether the promise held.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Storm;
use crate::fleet::Fleet;
use crate::history::{History, Story};

/// So many broken promises are told in full.
const TOLD: usize = 30;

#[expect(clippy::print_stdout, reason = "the one mouth of this program")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

pub(crate) fn summary(storm: &Storm, history: &History, fleet: &Fleet, time: Duration) {
    let told = storm.told();
    let figures = &told.figures;
    let [workers, kept, brains] = fleet.kills();
    let runs: usize = history.stories.values().map(|story| story.ran.len()).sum();
    say(&format!("{:6} tasks acknowledged", told.acknowledged.len()));
    say(&format!("{:6} tasks, {runs} runs, in {:.0} s", history.stories.len(), time.as_secs_f64()));
    let last = history.stories.values().filter_map(Story::last);
    for (outcome, count) in tally(last.map(|line| line.outcome.to_string())) {
        say(&format!("{count:6} {outcome}"));
    }
    say(&format!(
        "{:6} deaths: {workers} of workers, {kept} of workers that a brain had started, {brains} of brains",
        workers + kept + brains
    ));
    say(&format!("{:6} stopped for a while, {} told to end", figures.frozen, figures.terminated));
    say(&format!("{:6} workers gave way to one not yet settled", figures.gave_way));
    say(&format!(
        "{:6} submits, {} more killed; {} cancels, holds and releases, {} of them killed",
        figures.submits, figures.submits_killed, figures.people_asked, figures.people_killed
    ));
    let lines: Vec<_> = history.stories.values().flat_map(|story| &story.lines).collect();
    say(&format!("{:6} ledger lines, and {} torn", lines.len(), history.torn));
    let causes = lines.iter().map(|line| {
        let cause = line.cause.map_or("-", |cause| cause.as_str());
        let next = line.next.to_string();
        format!("{} {cause} -> {}", line.outcome, next.split(':').next().unwrap_or_default())
    });
    for (what, count) in tally(causes) {
        say(&format!("{count:6}   {what}"));
    }
}

fn tally(words: impl Iterator<Item = String>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    counts
}

/// After a broken promise the house stays, with all that happened in it.
pub(crate) fn broken(storm: &Storm, broken: &[String]) {
    for what in broken.iter().take(TOLD) {
        say(&format!("BROKEN {what}"));
    }
    say(&format!("{} times the promise was broken", broken.len()));
    say(&format!(
        "do it again with --seed {}; what happened is in {}",
        storm.seed,
        storm.pool.home().display()
    ));
}
