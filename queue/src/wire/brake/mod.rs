//! The brake: one common error does not burn a batch. When attempts of the same tasks (those of a
//! batch or, without one, of one submitter and program) end one after the other in the same way, the
//! rest is held, and one task at a time, a probe, tries whether the error is gone. Pure: time is given.
//!
//! A brake is a file that exists from the first such failure to the next success. Until it holds it
//! only counts.

mod failure;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::id::{BatchId, TaskId};
use shared::name::Name;
use shared::reason::{Code, Reason};
use shared::time::Moment;

pub use failure::{AT_ONCE, BrakeKey, FailedAtOnce, Signature, counts, last_line};

/// The schema that a brake names.
pub const SCHEMA: &str = "brainstem.brake/1";

/// So many attempts in a row that end in the same way put the brake on.
pub const ATTEMPTS: u32 = 8;
/// They must be of at least so many tasks: one task may fail for reasons of its own.
pub const TASKS: usize = 5;
/// From the hold to the first probe.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// The pause doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// A probe that failed comes back so long after the next one may start: time enough for another task
/// to be that one. If that one succeeds it goes on with all the others, but for this.
const BEHIND: Duration = Duration::from_secs(10);
/// No probe that failed stays away for longer.
pub const LONGEST_AWAY: Duration = LONGEST_PAUSE.saturating_add(BEHIND);
/// A probe that is due for so long is wanted by nobody.
const IDLE: Duration = Duration::from_secs(900);
/// What is held for so long ends as `braked`.
pub const LONGEST_HOLD: Duration = Duration::from_secs(24 * 3600);

/// What is known of failures that follow each other. Content of `brakes/<key>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brake {
    /// [`SCHEMA`].
    pub schema: String,
    /// Which tasks.
    pub key: BrakeKey,
    /// Their batch, where they have one.
    pub batch: Option<BatchId>,
    /// How the attempts ended, all of them.
    pub signature: Signature,
    /// The last line of the last one.
    pub line: String,
    /// How many they are.
    pub attempts: u32,
    /// Of which tasks, as many as matter.
    pub tasks: Vec<TaskId>,
    /// Who ran them.
    pub workers: Vec<Name>,
    /// When the first one ended.
    pub since: Moment,
    /// What follows from that, once it does.
    pub held: Option<HeldBrake>,
}

/// The tasks are held: one at a time goes through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBrake {
    /// Since when.
    pub since: Moment,
    /// When the next probe may start, or when the last one started and this much is to pass.
    pub next_probe: Moment,
    /// The pause before it, in seconds.
    pub pause: u64,
    /// How many there were.
    pub probes: u32,
}

/// What came of counting a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It is the first one since the last success.
    First,
    /// It was counted.
    Yes,
    /// With it the tasks are held.
    NowHeld,
    /// They were held before.
    Already,
}

/// What a brake says to whoever wants to claim a task that it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It does not hold.
    Open,
    /// One may try, alone.
    Probe,
    /// Nobody before this.
    Wait(Moment),
    /// It has held for too long: what is claimed ends as `braked`.
    Over,
}

impl Brake {
    /// The first failure of what may become many.
    #[must_use]
    pub fn new(failure: FailedAtOnce) -> Self {
        let FailedAtOnce { key, batch, task, worker, at, signature, line } = failure;
        let (tasks, workers) = (vec![task], vec![worker]);
        let schema = SCHEMA.to_owned();
        Self {
            schema,
            key,
            batch,
            signature,
            line,
            attempts: 1,
            tasks,
            workers,
            since: at,
            held: None,
        }
    }

    /// Counts one more. One that ended in another way begins the row anew.
    pub fn count(&mut self, failure: FailedAtOnce) -> Counted {
        if self.held.is_some() {
            return Counted::Already;
        }
        if failure.signature != self.signature {
            *self = Self::new(failure);
            return Counted::Yes;
        }
        self.attempts += 1;
        self.line = failure.line;
        if self.tasks.len() < TASKS && !self.tasks.contains(&failure.task) {
            self.tasks.push(failure.task);
        }
        if !self.workers.contains(&failure.worker) {
            self.workers.push(failure.worker);
        }
        if self.attempts < ATTEMPTS || self.tasks.len() < TASKS {
            return Counted::Yes;
        }
        let (since, pause) = (failure.at, FIRST_PAUSE);
        let next_probe = later(since, pause);
        self.held = Some(HeldBrake { since, next_probe, pause: pause.as_secs(), probes: 0 });
        Counted::NowHeld
    }

    /// Whether a task may be claimed now.
    #[must_use]
    pub fn gate(&self, now: Moment) -> Gate {
        let Some(held) = &self.held else { return Gate::Open };
        let left = held.next_probe.seconds_since(now);
        // A clock that was set back makes nobody wait for longer than the longest pause.
        if left > 0.0 && left <= LONGEST_PAUSE.as_secs_f64() {
            return Gate::Wait(held.next_probe);
        }
        // A day in which nobody was there to try says nothing: then one is tried first.
        let is_old = now.seconds_since(held.since) >= LONGEST_HOLD.as_secs_f64();
        if is_old && self.is_at_work(now) { Gate::Over } else { Gate::Probe }
    }

    /// Whether it holds, and is likely to hold something: where tasks wait and workers run, a probe
    /// that is due is started within seconds.
    #[must_use]
    pub fn is_at_work(&self, now: Moment) -> bool {
        let idle = |held: &HeldBrake| now.seconds_since(held.next_probe);
        self.held.as_ref().is_some_and(|held| idle(held) < IDLE.as_secs_f64())
    }

    /// A probe has begun. Returns how long its task stays away if it fails: longer than until the
    /// next one, which so is another task where there is one.
    pub fn begin_probe(&mut self, now: Moment) -> Duration {
        let Some(held) = &mut self.held else { return Duration::ZERO };
        held.probes += 1;
        let pause = (Duration::from_secs(held.pause) * 2).min(LONGEST_PAUSE);
        held.pause = pause.as_secs();
        held.next_probe = later(now, pause);
        pause + BEHIND
    }

    /// What is held, for people: `batch 5b38cb7f`, or whose tasks.
    #[must_use]
    pub fn what(&self) -> String {
        match self.batch {
            Some(batch) => format!("batch {}", batch.short()),
            None => {
                let rest = self.key.whose();
                let (by, program) = rest.split_once(':').unwrap_or((rest, ""));
                format!("tasks of {by} that run {program}")
            }
        }
    }

    /// The command that lets all go on.
    #[must_use]
    pub fn release_command(&self) -> String {
        format!("queue release {}", self.handle())
    }

    /// What a person can do about it, in a sentence.
    #[must_use]
    pub fn advice(&self) -> String {
        let handle = self.handle();
        let ends = match self.batch {
            Some(_) => format!(
                ", `queue cancel {handle}` ends them, `queue retry {handle}` brings back what has \
                 failed for good"
            ),
            None => String::new(),
        };
        format!("one at a time is tried; `queue release {handle}` lets all go on{ends}")
    }

    /// Why tasks are held, as a reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let held = self.held.as_ref();
        let text = format!("{}; {}", self.sentence(), self.advice());
        let mut reason = Reason::new(Code::HeldBrake, text)
            .evidence("brake", self.key.as_str())
            .evidence("attempts", self.attempts)
            .evidence("cause", self.signature.cause.as_str())
            .evidence("line", self.line.clone())
            .evidence("probes", held.map_or(0, |held| held.probes))
            .evidence("next_probe", held.map(|held| held.next_probe.to_string()))
            .fix(self.release_command());
        reason.since = held.map(|held| held.since);
        reason
    }

    /// What commands call it: the batch, or one of its tasks.
    #[must_use]
    pub fn handle(&self) -> String {
        match (self.batch, self.tasks.first()) {
            (Some(batch), _) => batch.short().to_string(),
            (None, Some(task)) => task.short().to_string(),
            (None, None) => "TASK".to_owned(),
        }
    }

    /// Why it holds, in a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { attempts, signature, line, .. } = self;
        let code = match (signature.exit_code, signature.signal) {
            (Some(code), _) => format!(" {code}"),
            (None, Some(signal)) => format!(" {signal}"),
            (None, None) => String::new(),
        };
        let said = if line.is_empty() { String::new() } else { format!(": {line}") };
        let what = self.what();
        format!("{what}: the last {attempts} attempts all failed ({}{code}){said}", signature.cause)
    }
}

fn later(at: Moment, pause: Duration) -> Moment {
    at.plus_millis(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::outcome::Cause;

    fn at(seconds: i64) -> Moment {
        Moment::from_unix_millis(seconds * 1000)
    }

    fn failure(task: TaskId, line: &str) -> FailedAtOnce {
        let signature = Signature::new(Cause::ExitCode, Some(1), None, line);
        let (key, worker) = (BrakeKey::of_limit("brake=b").unwrap(), "w".parse().unwrap());
        FailedAtOnce { key, batch: None, task, worker, at: at(100), signature, line: line.into() }
    }

    /// A brake that holds since second 100.
    fn held() -> Brake {
        let mut brake = Brake::new(failure(TaskId::new(), "out of memory, 1 left"));
        for number in 2..=ATTEMPTS {
            let came =
                brake.count(failure(TaskId::new(), &format!("out of memory, {number} left")));
            let last = number == ATTEMPTS;
            assert_eq!(came, if last { Counted::NowHeld } else { Counted::Yes });
        }
        brake
    }

    #[test]
    fn eight_in_a_row_of_five_tasks_that_end_alike_hold_the_rest() {
        let brake = held();
        assert_eq!(brake.line, "out of memory, 8 left");
        assert_eq!(held().count(failure(TaskId::new(), "again")), Counted::Already);
    }

    #[test]
    fn few_tasks_and_other_ends_do_not() {
        let tasks: Vec<TaskId> = (0..TASKS - 1).map(|_task| TaskId::new()).collect();
        let mut brake = Brake::new(failure(tasks[0], "x"));
        for number in 0..30 {
            assert_eq!(brake.count(failure(tasks[number % tasks.len()], "x")), Counted::Yes);
        }
        assert_eq!(brake.count(failure(tasks[0], "y")), Counted::Yes, "it begins anew");
        assert_eq!((brake.attempts, brake.tasks.len()), (1, 1));
    }

    #[test]
    fn probes_go_through_one_by_one_with_growing_pauses_and_after_a_day_it_is_over() {
        let mut brake = held();
        let mut now = 100;
        assert_eq!(brake.gate(at(now)), Gate::Wait(at(130)));
        now = 130;
        for pause in [60, 120, 240, 480, 600, 600] {
            assert_eq!(brake.gate(at(now)), Gate::Probe);
            assert_eq!(brake.begin_probe(at(now)).as_secs(), pause + 10);
            let next = now + i64::try_from(pause).unwrap();
            assert_eq!(brake.gate(at(now)), Gate::Wait(at(next)));
            now = next;
        }
        assert!(brake.is_at_work(at(now + 899)) && !brake.is_at_work(at(now + 900)));
        assert_eq!(brake.gate(at(-100_000)), Gate::Probe, "the clock was set back");
        let mut day = 100 + 24 * 3600;
        assert_eq!(brake.gate(at(day)), Gate::Probe, "nobody has tried for hours");
        brake.begin_probe(at(day));
        day += 600;
        assert_eq!(brake.gate(at(day - 1)), Gate::Wait(at(day)));
        assert_eq!(brake.gate(at(day)), Gate::Over);
    }
}
