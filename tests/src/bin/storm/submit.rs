//! Submits tasks, alone and by the hundred, and kills some of the submitters: an id that was
//! printed must be there, a batch is there as a whole or not at all, and the same key twice is the
//! same tasks once.

use std::sync::Mutex;
use std::time::Duration;

use fastrand::Rng;
use tests::{Ran, Signal};

use crate::Storm;
use crate::orders::Order;

/// How many tasks are still to be acknowledged.
pub(crate) struct Quota {
    left: Mutex<(u32, u32)>,
}

impl Quota {
    pub(crate) fn new(tasks: u32) -> Self {
        Self { left: Mutex::new((tasks, 0)) }
    }

    /// Takes up to so many, and the number of the submission.
    fn take(&self, wanted: u32) -> Option<(u32, u32)> {
        let mut left = self.left.lock().expect("nobody panics in here");
        let taken = wanted.min(left.0);
        left.0 -= taken;
        left.1 += 1;
        (taken > 0).then_some((taken, left.1))
    }

    /// What was not acknowledged does not count.
    fn give_back(&self, count: u32) {
        self.left.lock().expect("nobody panics in here").0 += count;
    }

    fn left(&self) -> u32 {
        self.left.lock().expect("nobody panics in here").0
    }
}

/// What became of one `queue submit`.
pub(crate) struct Submitted {
    pub(crate) orders: Vec<Order>,
    pub(crate) answer: Answer,
}

pub(crate) enum Answer {
    /// It ended well, and all of them must be there.
    Whole(Vec<String>),
    /// It was killed: all must be there or none, and in any case what it had printed.
    Cut(Vec<String>),
}

/// Submits until the quota is used up.
pub(crate) fn submit(storm: &Storm, quota: &Quota, thread: u64) {
    let mut random = storm.random(thread);
    let largest = (storm.plan.tasks / 10).clamp(2, 200);
    loop {
        wait_for_room(storm, quota);
        let single = random.u32(0..100) < 85;
        let wanted = if single { 1 } else { random.u32(2..=largest) };
        let Some((count, number)) = quota.take(wanted) else { return };
        let orders = invent(storm, number, count, &mut random);
        let answer = if single {
            one(storm, &orders[0], number, &mut random)
        } else {
            batch(storm, &orders, number, &mut random)
        };
        let ids = match &answer {
            Answer::Whole(ids) => ids.clone(),
            Answer::Cut(ids) => {
                quota.give_back(count.saturating_sub(u32::try_from(ids.len()).unwrap_or(count)));
                ids.clone()
            }
        };
        let mut told = storm.told();
        told.acknowledged.extend(ids);
        told.submitted.push(Submitted { orders, answer });
    }
}

/// Stays a little ahead of the workers, so that the whole storm is also one of submits.
fn wait_for_room(storm: &Storm, quota: &Quota) {
    let submitted = || u64::from(storm.plan.tasks - quota.left());
    for _look in 0..20 {
        if submitted() < storm.runs() + 1_000 {
            return;
        }
        storm.calm.pause(Duration::from_millis(50));
    }
}

fn invent(storm: &Storm, number: u32, count: u32, random: &mut Rng) -> Vec<Order> {
    let earlier = {
        let told = storm.told();
        let from = told.acknowledged.len().saturating_sub(200);
        told.acknowledged[from..].to_vec()
    };
    let mut orders: Vec<Order> = Vec::new();
    for line in 0..count {
        let names: Vec<_> = orders.iter().map(|order| order.label.clone()).collect();
        // Inside a batch, on what stands before in it.
        let may_follow = if names.is_empty() { &earlier } else { &names };
        orders.push(Order::any(format!("{number}.{line}"), may_follow, random));
    }
    orders
}

fn one(storm: &Storm, order: &Order, number: u32, random: &mut Rng) -> Answer {
    let kill = (random.u32(0..100) < 20).then(|| Duration::from_micros(random.u64(0..25_000)));
    let key = key(number, random);
    let mut words = vec!["submit".to_owned()];
    words.extend(key.clone());
    words.extend(order.words());
    ask(storm, &words, 1, kill, key.is_some())
}

fn batch(storm: &Storm, orders: &[Order], number: u32, random: &mut Rng) -> Answer {
    let kill = (random.u32(0..100) < 40).then(|| Duration::from_micros(random.u64(0..80_000)));
    let name = format!("batch-{number}.jsonl");
    let text: String = orders.iter().map(|order| format!("{}\n", order.spec)).collect();
    std::fs::write(storm.pool.home().join(&name), text).expect("write a file in the house");
    let key = key(number, random);
    let mut words = vec!["submit".to_owned(), format!("--batch={name}")];
    words.extend(key.clone());
    ask(storm, &words, orders.len(), kill, key.is_some())
}

fn key(number: u32, random: &mut Rng) -> Option<String> {
    random.bool().then(|| format!("--key=storm-{number}"))
}

/// Submits. Whoever is killed and had a key submits again.
fn ask(
    storm: &Storm,
    words: &[String],
    count: usize,
    kill: Option<Duration>,
    has_key: bool,
) -> Answer {
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let cut = kill.and_then(|after| killed(storm, &words, after));
    let cut = match cut {
        Some(ids) if !has_key => return Answer::Cut(ids),
        Some(ids) => ids,
        None => Vec::new(),
    };
    storm.told().figures.submits += 1;
    let ran = storm.pool.queue(&words);
    let ids = whole_lines(&ran.stdout);
    if !ran.status.success() || ids.len() != count {
        storm.wrong(format!("a submit of {count} failed: {ran}"));
    }
    if let Some(lost) = cut.iter().find(|id| !ids.contains(id) && !was_run_again(storm, id)) {
        storm.wrong(format!("{lost} was printed, and is not what the same key finds: {ran}"));
    }
    Answer::Whole(ids)
}

/// A batch that is submitted again under its key runs again what has failed, or was cancelled, by
/// then: only such a task may be another one now.
fn was_run_again(storm: &Storm, id: &str) -> bool {
    let task = storm.pool.queue(&["show", id, "--json"]).success().json();
    !task["batch_id"].is_null() && matches!(task["state"].as_str(), Some("failed" | "cancelled"))
}

/// The ids that a submitter printed before it was killed; nothing when it was quicker.
fn killed(storm: &Storm, words: &[&str], after: Duration) -> Option<Vec<String>> {
    let submitter = storm.pool.start(&mut storm.pool.command("queue", words));
    storm.calm.pause(after);
    let ran: Ran = submitter.kill9();
    let died = ran.status.success().then_some(()).is_none();
    if died
        && std::os::unix::process::ExitStatusExt::signal(&ran.status) != Some(Signal::KILL.as_raw())
    {
        storm.wrong(format!("a submit failed by itself: {ran}"));
    }
    storm.told().figures.submits_killed += u32::from(died);
    Some(whole_lines(&ran.stdout))
}

fn whole_lines(stdout: &str) -> Vec<String> {
    let lines = stdout.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    lines.map(str::to_owned).collect()
}
