//! What the core's decisions are held against: other rules, and what no rule can beat.

use super::{SetUp, SimResult, UNLOAD};

/// How many models a server keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// One.
    One,
    /// As many as fit; the one that was not used for longest goes first: Ollama's own rule.
    WhatFits,
}

/// Each worker that is free takes the oldest task, whatever it needs; it loads only where it does
/// not hold that model. Of several that are free one that holds it takes it: the strongest rule
/// that never lets a task pass another one.
#[must_use]
pub fn first_come_first_served(set_up: &SetUp, keep: Keep) -> SimResult {
    let mut free = vec![0_u64; set_up.workers];
    let mut held: Vec<Vec<usize>> = vec![Vec::new(); set_up.workers];
    let mut went = SimResult { tasks: vec![0; set_up.workers], ..SimResult::default() };
    for prompt in &set_up.prompts {
        let first = |worker: &usize| {
            let lacks = !held[*worker].contains(&prompt.model);
            (free[*worker].max(prompt.arrives), lacks, free[*worker])
        };
        let worker = (0..set_up.workers).min_by_key(first).unwrap_or(0);
        let mut start = free[worker].max(prompt.arrives);
        let models = &mut held[worker];
        if let Some(at) = models.iter().position(|model| *model == prompt.model) {
            models.remove(at);
        } else {
            start += make_room(set_up, models, prompt.model, keep);
            start += set_up.models[prompt.model].load;
            went.loads += 1;
        }
        models.push(prompt.model);
        free[worker] = start + prompt.runs;
        went.tasks[worker] += 1;
        went.longest_wait = went.longest_wait.max(start - prompt.arrives);
        went.ended = went.ended.max(free[worker]);
    }
    went
}

/// Unloads what has to go, and says how long that takes. Those used last are at the end.
fn make_room(set_up: &SetUp, held: &mut Vec<usize>, model: usize, keep: Keep) -> u64 {
    let size = |models: &[usize]| -> u64 { models.iter().map(|m| set_up.models[*m].gib).sum() };
    let room = set_up.gpu_gib.unwrap_or(0);
    let mut took = 0;
    while !held.is_empty() && (keep == Keep::One || size(held) + set_up.models[model].gib > room) {
        held.remove(0);
        took += UNLOAD;
    }
    took
}

/// No rule ends sooner: every model that is asked is loaded once, and from any moment on the work
/// that comes later is done by all workers together.
#[must_use]
pub fn bound(set_up: &SetUp) -> u64 {
    let workers = set_up.workers as u64;
    let work: u64 = set_up.prompts.iter().map(|prompt| prompt.runs).sum();
    let asked = (0..set_up.models.len())
        .filter(|model| set_up.prompts.iter().any(|prompt| prompt.model == *model));
    let loads: u64 = asked.map(|model| set_up.models[model].load).sum();
    let mut least = (work + loads) / workers;
    let mut later = work;
    for prompt in &set_up.prompts {
        least = least.max(prompt.arrives + later / workers);
        later -= prompt.runs;
    }
    least
}
