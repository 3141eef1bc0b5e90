//! Actors that take turns: each is a thread that stops before every change to the disk (and, where
//! asked for, before every look), and goes on only when it is its turn. So the real code runs, one
//! step at a time, in an order that the test chooses; and the test chooses every order, up to a
//! number of preemptions.
//!
//! A preemption is to let another go on while the one before could have gone on. Orders in which
//! an actor is done, or waits for a lock that another holds, need none. What changes nothing that
//! others can see (a flush, a file that is written aside) is no step.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::dir::fault::{self, Gate, Stop};

/// What one actor does.
pub(super) type Act = Box<dyn FnOnce() + Send>;

/// Before what the actors stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// Changes that others can see.
    Changes,
    /// Also looks at what others may change.
    Looks,
}

impl Grain {
    fn stops_at(self, stop: Stop) -> bool {
        match stop {
            Stop::Change(what) => !is_unseen(what),
            Stop::Look(_) => self == Self::Looks,
            Stop::Blocked(_) => true,
        }
    }
}

/// Flushes, and what is done to a file that has no name yet which others read, or (a ledger) that
/// holds no whole line more than before.
pub(super) fn is_unseen(what: &str) -> bool {
    const UNSEEN: [&str; 4] = ["create", "write", "open ledger", "append ledger line"];
    what.starts_with("flush") || UNSEEN.contains(&what)
}

type Panic = Box<dyn std::any::Any + Send>;

enum Report {
    At(Stop),
    Over(Result<(), Panic>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ready,
    Blocked,
    Over,
}

struct Actor {
    go: Sender<()>,
    heard: Receiver<Report>,
    status: Status,
}

impl Actor {
    fn new(grain: Grain, act: Act) -> Self {
        let (go, gone) = unbounded::<()>();
        let (tell, heard) = unbounded();
        thread::spawn(move || {
            // When nobody says go any more the play is over.
            if gone.recv().is_err() {
                return;
            }
            let stopped = tell.clone();
            fault::obey(Gate(Arc::new(move |stop| {
                if grain.stops_at(stop) && stopped.send(Report::At(stop)).is_ok() {
                    gone.recv().expect("the play goes on");
                }
            })));
            let _ = tell.send(Report::Over(catch_unwind(AssertUnwindSafe(act))));
        });
        Self { go, heard, status: Status::Ready }
    }

    /// Lets it go on to where it stops next.
    fn step(&mut self) -> String {
        self.go.send(()).expect("it waits for this");
        match self.heard.recv().expect("it stops or is over") {
            Report::At(Stop::Blocked(what)) => {
                self.status = Status::Blocked;
                format!("waits to {what}")
            }
            Report::At(Stop::Change(what) | Stop::Look(what)) => {
                self.status = Status::Ready;
                what.to_owned()
            }
            Report::Over(result) => {
                self.status = Status::Over;
                result.unwrap_or_else(|panic| resume_unwind(panic));
                "over".to_owned()
            }
        }
    }
}

/// A moment at which somebody was chosen.
struct Point {
    /// Who could go on: first the one who did before, if he could.
    able: Vec<usize>,
    chosen: usize,
    /// Whether any other choice is a preemption.
    goes_on: bool,
}

impl Point {
    fn costs(&self, choice: usize) -> u32 {
        u32::from(self.goes_on && choice != self.able[0])
    }
}

/// How many orders there were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Explored {
    pub(super) orders: usize,
    /// The most steps in one of them.
    pub(super) steps: usize,
    /// Orders in which an actor did not do what it had done in the same order before: times and
    /// chance have a say in what is looked at.
    pub(super) strayed: usize,
}

/// Plays all orders with at most so many preemptions. `stage` makes a new stage: the actors, and
/// what must hold when all are over.
pub(super) fn explore(
    preemptions: u32,
    grain: Grain,
    stage: &dyn Fn() -> (Vec<Act>, Box<dyn FnOnce()>),
) -> Explored {
    let (mut explored, mut forced) = (Explored::default(), Vec::new());
    loop {
        let (acts, check) = stage();
        let mut story = Vec::new();
        let told = catch_unwind(AssertUnwindSafe(|| {
            let points = play(grain, acts, &forced, &mut story);
            check();
            points
        }));
        let points = told.unwrap_or_else(|panic| {
            eprintln!("order {}: {}", explored.orders, story.join("; "));
            resume_unwind(panic)
        });
        explored.orders += 1;
        explored.steps = explored.steps.max(points.len());
        let strayed = forced.iter().zip(&points).any(|(forced, point)| *forced != point.chosen);
        explored.strayed += usize::from(strayed);
        match next_order(&points, preemptions) {
            Some(next) => forced = next,
            None => return explored,
        }
    }
}

/// The order that comes after this one: the last choice that can be another is another.
fn next_order(points: &[Point], preemptions: u32) -> Option<Vec<usize>> {
    let mut spent: Vec<u32> = vec![0];
    for point in points {
        spent.push(spent[spent.len() - 1] + point.costs(point.chosen));
    }
    for (index, point) in points.iter().enumerate().rev() {
        let place = point.able.iter().position(|able| *able == point.chosen)?;
        let next = point.able.get(place + 1);
        if let Some(next) = next.filter(|next| spent[index] + point.costs(**next) <= preemptions) {
            let chosen = points[..index].iter().map(|point| point.chosen);
            return Some(chosen.chain([*next]).collect());
        }
    }
    None
}

/// Plays one order: first as forced, then with as little change as possible.
fn play(grain: Grain, acts: Vec<Act>, forced: &[usize], story: &mut Vec<String>) -> Vec<Point> {
    let mut actors: Vec<_> = acts.into_iter().map(|act| Actor::new(grain, act)).collect();
    let (mut points, mut last): (Vec<Point>, Option<usize>) = (Vec::new(), None);
    loop {
        for actor in actors.iter_mut().filter(|actor| actor.status == Status::Blocked) {
            actor.step();
        }
        let ready = |index: &usize| actors[*index].status == Status::Ready;
        let goes_on = last.is_some_and(|last| ready(&last));
        let mut able: Vec<usize> = last.filter(ready).into_iter().collect();
        able.extend((0..actors.len()).filter(|index| ready(index) && Some(*index) != last));
        let Some(first) = able.first() else {
            let over = actors.iter().all(|actor| actor.status == Status::Over);
            assert!(over, "all wait for each other");
            return points;
        };
        let wanted = forced.get(points.len()).filter(|wanted| able.contains(wanted));
        let chosen = *wanted.unwrap_or(first);
        let stop = actors[chosen].step();
        story.push(format!("{chosen} to {stop}"));
        last = Some(chosen);
        points.push(Point { able, chosen, goes_on });
    }
}
