//! A process that claims and finishes tasks without running anything, when it is told to: a number
//! comes in, the nanoseconds that so many tasks took go out. Workers are processes, so what is
//! measured as two workers must be two.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use queue::dir::claim::cursor::{Cursor, Pass, Wish};
use queue::dir::claim::one::Claim;
use queue::dir::ledger::append::Ledger;
use queue::wire::ledger_line::{Line, Writer};
use queue::wire::retry::{self, Policy, Verdict};
use shared::name::Name;
use shared::task::{Class, Task, TaskName};
use shared::time::Moment;

use crate::parts::daemon::{self, TRUE};
use crate::raw::RawWorker;

/// Whose calls are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Raw,
}

const CLASSES: &[Class] = &[Class::Resource, Class::Script, Class::Cpu, Class::Llm];

/// `claimer ours|raw ROOT NAME`
pub(crate) fn serve(words: &[String]) {
    let [kind, root, name] = words else { panic!("claimer takes a kind, a folder and a name") };
    let root = Path::new(root);
    let mut work: Box<dyn FnMut()> = match kind.as_str() {
        "ours" => ours(root, name.parse().expect("a good name")),
        _ => {
            let task = daemon::task(TRUE);
            let bytes = line(&task, TaskName::first(task.id)).to_bytes();
            let mut worker = RawWorker::new(root, name, bytes);
            Box::new(move || worker.claim_and_finish())
        }
    };
    for order in std::io::stdin().lines() {
        let count: usize = order.expect("read the order").parse().expect("a number");
        let begun = Instant::now();
        (0..count).for_each(|_| work());
        answer(begun.elapsed().as_nanos());
    }
}

#[expect(clippy::print_stdout, reason = "what the benchmark reads")]
fn answer(nanos: u128) {
    println!("{nanos}");
    std::io::stdout().flush().expect("answer");
}

fn ours(root: &Path, name: Name) -> Box<dyn FnMut()> {
    let pool = daemon::open_pool(root);
    let ledger = Arc::new(Ledger::new(pool.layout().clone(), Writer::new(name.clone())));
    let mut cursor = Cursor::new(&pool, &name, ledger.clone());
    Box::new(move || {
        let claim = claim(&mut cursor);
        let line = line(claim.task(), claim.name());
        claim.end(&ledger, &line).expect("record the end of a task");
    })
}

fn claim(cursor: &mut Cursor) -> Box<Claim> {
    let any = Wish { classes: CLASSES, open: &|_lane| true };
    match cursor.pass(&any, &mut |_note| {}).expect("look for work") {
        Pass::Claimed { claim, .. } => claim,
        Pass::Nothing { .. } => panic!("there is work left"),
    }
}

fn line(task: &Task, name: TaskName) -> Line {
    let policy = Policy::default().of(task);
    let end = retry::next(name, Verdict::Succeeded, &policy, Moment::now(), 0.0);
    Line::new(task.clone(), name, Verdict::Succeeded, end)
}

/// One such process, from outside.
#[derive(Debug)]
pub(crate) struct Claimer {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Claimer {
    pub(crate) fn start(kind: Kind, root: &Path, name: &str) -> Self {
        let own = std::env::current_exe().expect("a running program knows its file");
        let kind = match kind {
            Kind::Ours => "ours",
            Kind::Raw => "raw",
        };
        let mut command = Command::new(own);
        command.args(["claimer", kind]).arg(root).arg(name);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.expect("start a claimer");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, answers }
    }

    pub(crate) fn order(&mut self, count: usize) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{count}").expect("order");
    }

    pub(crate) fn answer(&mut self) -> Duration {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("read the answer");
        Duration::from_nanos(line.trim().parse().expect("nanoseconds"))
    }
}

impl Drop for Claimer {
    fn drop(&mut self) {
        // It may be over already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
