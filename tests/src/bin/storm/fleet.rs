//! The workers and brains of a storm: one thread starts them, kills them, stops them and lets them
//! go on, and starts them again.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tests::{Proc, Ran, Signal};

use crate::{Storm, kept};

/// Everybody who is to be killed.
pub(crate) struct Fleet {
    posts: Vec<Post>,
    /// How often the workers that the brain starts were killed.
    kept: [u32; kept::NAMES.len()],
    random: Rng,
    kills: u32,
    last: Instant,
}

/// A place in the fleet, and who has it.
struct Post {
    /// Its worker's name; `brain` for all brains.
    name: String,
    program: &'static str,
    args: Vec<String>,
    slots: u32,
    /// Times it was killed, and times it was told to end.
    deaths: u32,
    holder: Holder,
}

enum Holder {
    Nobody {
        again: Instant,
    },
    Works(Proc),
    /// Stopped until then, and then killed or let go on.
    Frozen {
        holder: Proc,
        until: Instant,
        then: Then,
    },
    /// Told to end.
    Leaving(Proc),
}

#[derive(Clone, Copy)]
enum Then {
    Dies,
    GoesOn,
}

/// What happens to one of them.
#[derive(Clone, Copy)]
enum Blow {
    Kill,
    Freeze(Then, Duration),
    Term,
}

impl Blow {
    fn any(random: &mut Rng) -> Self {
        let time = Duration::from_millis(random.u64(5..1_500));
        match random.u32(0..100) {
            0..70 => Self::Kill,
            70..80 => Self::Freeze(Then::Dies, time),
            80..93 => Self::Freeze(Then::GoesOn, time),
            _ => Self::Term,
        }
    }
}

impl Post {
    fn new(name: &str, program: &'static str, args: &[&str], slots: u32) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let holder = Holder::Nobody { again: Instant::now() };
        Self { name: name.to_owned(), program, args, slots, deaths: 0, holder }
    }

    fn start(&self, storm: &Storm) -> Holder {
        let args: Vec<_> = self.args.iter().map(String::as_str).collect();
        Holder::Works(storm.pool.start(&mut storm.pool.command(self.program, &args)))
    }

    /// What follows by itself from the time that has passed.
    fn keep_up(&mut self, storm: &Storm, random: &mut Rng) {
        let now = Instant::now();
        let is_over = self.is_over();
        let nobody = Holder::Nobody { again: now };
        self.holder = match std::mem::replace(&mut self.holder, nobody) {
            Holder::Nobody { again } if now >= again => self.start(storm),
            Holder::Works(mut holder) if is_over => {
                self.ended_by_itself(storm, &mut holder);
                absent(random)
            }
            Holder::Frozen { holder, until, then: Then::GoesOn } if now >= until => {
                holder.cont();
                Holder::Works(holder)
            }
            Holder::Frozen { holder, until, then: Then::Dies } if now >= until => {
                self.deaths += 1;
                let _killed = holder.kill9();
                absent(random)
            }
            Holder::Leaving(mut holder) if is_over => {
                let ran = holder.end();
                if !ended_well(&ran) {
                    storm.wrong(format!("told to end, it failed: {ran}"));
                }
                absent(random)
            }
            unchanged @ (Holder::Nobody { .. }
            | Holder::Works(_)
            | Holder::Frozen { .. }
            | Holder::Leaving(_)) => unchanged,
        };
    }

    /// Whether its holder has ended, and nobody has looked yet.
    fn is_over(&mut self) -> bool {
        match &mut self.holder {
            Holder::Works(holder) | Holder::Leaving(holder) => !holder.is_running(),
            Holder::Nobody { .. } | Holder::Frozen { .. } => false,
        }
    }

    /// Only where its predecessor is not settled in time may it give way.
    fn ended_by_itself(&mut self, storm: &Storm, holder: &mut Proc) {
        self.deaths += 1;
        let ran = holder.end();
        if ran.status.code() == Some(i32::from(shared::exit::TRY_LATER)) {
            storm.told().figures.gave_way += 1;
        } else {
            storm.wrong(format!("nobody had told it to end: {ran}"));
        }
    }

    fn suffer(&mut self, storm: &Storm, blow: Blow, random: &mut Rng) {
        let is_over = self.is_over();
        let nobody = Holder::Nobody { again: Instant::now() };
        self.holder = match (std::mem::replace(&mut self.holder, nobody), blow) {
            (Holder::Works(holder) | Holder::Leaving(holder), Blow::Kill) if !is_over => {
                self.deaths += 1;
                let _killed = holder.kill9();
                absent(random)
            }
            (Holder::Works(holder), Blow::Freeze(then, time)) if !is_over => {
                storm.told().figures.frozen += 1;
                holder.stop();
                Holder::Frozen { holder, until: Instant::now() + time, then }
            }
            (Holder::Works(holder), Blow::Term) if !is_over => {
                storm.told().figures.terminated += 1;
                holder.term();
                Holder::Leaving(holder)
            }
            (unchanged, _too_late) => unchanged,
        };
    }
}

/// Told to end. Somebody who has only just been started has not learnt yet to do so in order, or
/// has waited for its place in vain.
fn ended_well(ran: &Ran) -> bool {
    let gave_up = ran.status.code() == Some(i32::from(shared::exit::TRY_LATER));
    ran.status.success() || gave_up || ran.status.signal() == Some(Signal::TERM.as_raw())
}

/// Often at once, so that the next of a name meets what the last has left; else late enough for
/// somebody else to have settled it.
fn absent(random: &mut Rng) -> Holder {
    let time = if random.bool() { 0 } else { random.u64(0..800) };
    Holder::Nobody { again: Instant::now() + Duration::from_millis(time) }
}

/// Between two looks of one who has nothing better to do.
pub(crate) fn breathe() {
    std::thread::park_timeout(Duration::from_millis(10));
}

impl Fleet {
    pub(crate) fn new(storm: &Storm) -> Self {
        let brain = |_number| Post::new("brain", "brain", &["--gpus", kept::GPUS], 0);
        let mut posts: Vec<_> = (0..storm.plan.brains).map(brain).collect();
        for number in 0..storm.plan.workers {
            let (gpu, name) = (number.to_string(), format!("w{number}"));
            posts.push(if number % 2 == 0 {
                Post::new(&name, "worker", &["--gpu", &gpu, "--name", &name], 2)
            } else {
                Post::new(&name, "worker", &["--cpu", "--cpu-slots=3", "--name", &name], 3)
            });
        }
        Self {
            posts,
            kept: Default::default(),
            random: storm.random(0),
            kills: 0,
            last: Instant::now(),
        }
    }

    /// Goes on until all deaths have been died and nobody is busy any more.
    pub(crate) fn rage(&mut self, storm: &Storm, busy: impl Fn() -> bool) {
        while self.kills < storm.plan.kills || busy() {
            self.keep_up(storm);
            if self.is_time(storm) {
                self.strike(storm);
            }
            breathe();
        }
    }

    /// Spread over all the work; without any work, quickly.
    fn is_time(&self, storm: &Storm) -> bool {
        let quiet = Duration::from_millis(1_500);
        // Not every task is ever run.
        let runs = u64::from(storm.plan.tasks) * 3 / 4 + 1;
        let share = storm.runs() * u64::from(storm.plan.kills) / runs;
        self.kills < storm.plan.kills
            && (u64::from(self.kills) < share || self.last.elapsed() > quiet)
    }

    fn strike(&mut self, storm: &Storm) {
        self.last = Instant::now();
        let number = self.random.usize(0..self.posts.len() + kept::NAMES.len());
        if let Some(post) = self.posts.get_mut(number) {
            let blow = Blow::any(&mut self.random);
            post.suffer(storm, blow, &mut self.random);
        } else {
            let number = number - self.posts.len();
            self.kept[number] += u32::from(kept::kill(storm, kept::NAMES[number]));
        }
        self.count();
    }

    fn count(&mut self) {
        let posts = self.posts.iter().map(|post| post.deaths);
        self.kills = posts.chain(self.kept).sum();
    }

    /// Starts whoever is missing, and lets go on whoever has been stopped for long enough.
    pub(crate) fn keep_up(&mut self, storm: &Storm) {
        for post in &mut self.posts {
            post.keep_up(storm, &mut self.random);
        }
        self.count();
    }

    /// Ends everybody in good order.
    pub(crate) fn end(&mut self, storm: &Storm) {
        for post in &mut self.posts {
            let nobody = Holder::Nobody { again: Instant::now() };
            match std::mem::replace(&mut post.holder, nobody) {
                Holder::Nobody { .. } => {}
                Holder::Works(mut holder)
                | Holder::Leaving(mut holder)
                | Holder::Frozen { mut holder, .. } => {
                    if holder.is_running() {
                        holder.cont();
                        holder.term();
                    }
                    let ran = holder.end();
                    if !ended_well(&ran) {
                        storm.wrong(format!("told to end, it failed: {ran}"));
                    }
                }
            }
        }
    }

    /// How often workers were killed, those that the brain had started, and brains.
    pub(crate) fn kills(&self) -> [u32; 3] {
        let count = |program: &str| {
            let posts = self.posts.iter().filter(|post| post.program == program);
            posts.map(|post| post.deaths).sum()
        };
        [count("worker"), self.kept.iter().sum(), count("brain")]
    }

    /// How many attempts each worker can have lost at most: each time as many as it has slots, and
    /// those that had ended and were not recorded yet. That is one for each slot, or what took 5 ms
    /// all in all, and no process takes less than one.
    pub(crate) fn losses(&self) -> BTreeMap<&str, u32> {
        let each = |slots: u32| slots + slots.max(5);
        let posts =
            self.posts.iter().map(|post| (post.name.as_str(), post.deaths * each(post.slots)));
        let kept = kept::NAMES.into_iter().zip(self.kept);
        posts.chain(kept.map(|(name, deaths)| (name, deaths * each(kept::SLOTS)))).collect()
    }
}
