//! Kills workers and brains at random while thousands of tasks are submitted, run, cancelled, held
//! and released, and then checks the promise: what was acknowledged ends exactly once, no two
//! attempts of a task ever run at the same time, and a task runs again only where its worker died
//! before its end was recorded, or by its retry rule.
//!
//! | module | does |
//! |---|---|
//! | `orders` | what the jobs do, and how each must end |
//! | `submit` | submits them, and kills some of the submitters |
//! | `people` | cancels, holds and releases meanwhile |
//! | `fleet` | starts workers and brains, kills them, stops them, starts them again |
//! | `kept` | does that to the workers that the brain starts |
//! | `history` | reads what is left behind: ledger lines, and the marks that jobs set themselves |
//! | `check` | compares that with the promise |

mod check;
mod fleet;
mod history;
mod kept;
mod orders;
mod people;
mod report;
mod submit;

use std::collections::BTreeSet;
use std::fmt;
use std::process::ExitCode;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use clap::Parser;
use tests::Pool;

use crate::history::History;
use crate::submit::Submitted;

/// Runs tasks while killing workers and brains at random, and checks that nothing is lost and
/// nothing runs twice.
#[derive(Parser, Clone, Copy, Debug)]
#[command(name = "storm")]
struct Plan {
    /// How many tasks are submitted and acknowledged
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    tasks: u32,
    /// How many times a worker or a brain is killed (kill -9)
    #[arg(long, value_name = "N", default_value_t = 300)]
    kills: u32,
    /// How many workers there are beside the two that the brain starts; every second one has a GPU
    #[arg(long, value_name = "W", default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=64))]
    workers: u32,
    /// How many brains there are: one works, the others stand by
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    brains: u32,
    /// Begins the row of random numbers, to have a storm like an earlier one
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// For how many seconds nothing may move before the tasks that are left are called lost
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
}

/// Waiting is made short, so that a storm is many deaths and little waiting. No death count takes a
/// task out: here it is never the task that kills.
const SETTINGS: &str = r#"
heartbeat_interval = "200ms"
idle_poll = "500ms"
grace_period = "1s"
shutdown_grace = "200ms"
retry_backoff_first = "50ms"
retry_backoff_max = "300ms"
monitor_interval = "1s"
reserve_size = "1MiB"
disk_low = "1MiB"
poison_deaths = 1000000
restart_backoff_first = "50ms"
restart_backoff_max = "300ms"
breaker_failures = 1000000
"#;

/// What all threads of a storm share.
struct Storm {
    pool: Pool,
    plan: Plan,
    seed: u64,
    calm: Calm,
    told: Mutex<Told>,
}

/// What the programs have told those who asked them.
#[derive(Default)]
struct Told {
    submitted: Vec<Submitted>,
    /// Ids that were printed, in that order.
    acknowledged: Vec<String>,
    /// Ids of which `queue cancel` said that it cancelled them.
    cancelled: BTreeSet<String>,
    /// Ids that anybody tried to cancel.
    cancel_tried: BTreeSet<String>,
    /// What a program did that none should.
    wrong: Vec<String>,
    figures: Figures,
}

/// What is counted for the summary.
#[derive(Default)]
struct Figures {
    submits: u32,
    submits_killed: u32,
    people_asked: u32,
    people_killed: u32,
    frozen: u32,
    terminated: u32,
    gave_way: u32,
}

/// The end of the storm, and pauses that it cuts short.
#[derive(Default)]
struct Calm {
    over: Mutex<bool>,
    bell: Condvar,
}

impl Calm {
    fn is_over(&self) -> bool {
        *self.over.lock().expect("nobody panics in here")
    }

    fn announce(&self) {
        *self.over.lock().expect("nobody panics in here") = true;
        self.bell.notify_all();
    }

    /// Waits, but not beyond the end of the storm.
    fn pause(&self, time: Duration) {
        let over = self.over.lock().expect("nobody panics in here");
        let _woken = self.bell.wait_timeout_while(over, time, |over| !*over);
    }
}

impl Storm {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("nobody panics while telling")
    }

    fn wrong(&self, what: impl fmt::Display) {
        self.told().wrong.push(what.to_string());
    }

    /// Random numbers of its own for each thread, so that one seed means one row for each.
    fn random(&self, thread: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed.wrapping_add(thread))
    }

    /// How many runs have begun, from the length of what they wrote about themselves.
    fn runs(&self) -> u64 {
        const BOTH_MARKS: u64 = 2 * 66;
        std::fs::metadata(self.pool.home().join("marks")).map_or(0, |file| file.len() / BOTH_MARKS)
    }
}

fn main() -> ExitCode {
    let plan = Plan::parse();
    let seed = plan.seed.unwrap_or_else(|| fastrand::u64(0..1_000_000_000));
    let patience = Duration::from_secs(plan.patience.max(30));
    let pool = Pool::with_patience(patience);
    pool.write_toml(SETTINGS);
    std::fs::create_dir(pool.home().join("alone")).expect("make a folder in the house");
    report::say(&format!(
        "storm --tasks {} --kills {} --workers {} --brains {} --seed {seed}",
        plan.tasks, plan.kills, plan.workers, plan.brains
    ));
    let (calm, told) = (Calm::default(), Mutex::default());
    let storm = Storm { pool, plan, seed, calm, told };
    let start = Instant::now();
    let mut fleet = fleet::Fleet::new(&storm);
    let stormy = rage(&storm, &mut fleet);
    report::say(&format!(
        "the storm is over after {:.0} s; waiting for the rest",
        stormy.as_secs_f64()
    ));
    settle(&storm, &mut fleet);
    let alive = check::while_all_live(&storm);
    fleet.end(&storm);
    check::and_cleans_up(&storm);
    let history = History::read(&storm.pool);
    let mut broken = check::all(&storm, &history, &fleet);
    broken.extend(alive);
    report::summary(&storm, &history, &fleet, start.elapsed());
    if broken.is_empty() {
        report::say("the promise held");
        return ExitCode::SUCCESS;
    }
    report::broken(&storm, &broken);
    // Ends whatever lives on, and keeps the house.
    std::panic::resume_unwind(Box::new("the promise was broken"));
}

/// Everything at once, until all is submitted and everybody killed who was to be.
fn rage(storm: &Storm, fleet: &mut fleet::Fleet) -> Duration {
    let start = Instant::now();
    let quota = &submit::Quota::new(storm.plan.tasks);
    std::thread::scope(|scope| {
        let submit = |number| scope.spawn(move || submit::submit(storm, quota, number));
        let submitters = [submit(1), submit(2)];
        for number in 11..=12 {
            scope.spawn(move || people::meddle(storm, number));
        }
        let busy = || submitters.iter().any(|thread| !thread.is_finished());
        fleet.rage(storm, busy);
        storm.calm.announce();
    });
    start.elapsed()
}

/// Lets everything that still waits for something run to its end.
fn settle(storm: &Storm, fleet: &mut fleet::Fleet) {
    let patience = Duration::from_secs(storm.plan.patience);
    let mut last = (0, Instant::now());
    loop {
        fleet.keep_up(storm);
        people::release_all(storm);
        if history::is_quiet(&storm.pool) {
            return;
        }
        let moved = history::size(&storm.pool);
        if moved != last.0 {
            last = (moved, Instant::now());
        } else if last.1.elapsed() > patience {
            storm.wrong(format!("nothing has moved for {} s", patience.as_secs()));
            return;
        }
        fleet::breathe();
    }
}
