//! Commands that read ids from their stdin, beside the renames, lines and removals that they cannot
//! do without.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use queue::Pool;
use queue::dir::disk::listing::PassedOver;
use queue::dir::find::places;
use queue::dir::layout::Shelf;
use shared::id::TaskId;

use crate::args::Args;
use crate::measure;
use crate::parts::daemon::{Place, TRUE};
use crate::parts::spawn::submit_all;
use crate::raw;
use crate::report::{Goal, Report, Row};

/// So many may share a flush.
const GROUP: usize = queue::dir::operate::GROUP;

pub(crate) fn measure(args: &Args, place: &Place, report: &mut Report) {
    let count = args.pick(2_000, 20_000);
    let pool = place.pool("commands");
    submit_all(&pool, count, TRUE);
    let there = places::all(pool.layout(), &mut PassedOver::default()).expect("list the places");
    let names = there.iter().flat_map(|place| {
        let dir = place.dir(pool.layout());
        queue::dir::disk::listing::tasks_in(&dir).expect("list the tasks").tasks
    });
    let ids: Vec<TaskId> = names.map(|name| name.id).collect();
    let list = place.root().join("ids");
    let text: String = ids.iter().map(|id| format!("{id}\n")).collect();
    fs::write(&list, text).expect("write the ids");
    let commands = Commands { place, pool: &pool, list: &list, count };

    let moves = raw_moves(place, count);
    let short = Goal::Under(2.0);
    commands.run(report, "hold", moves, short);
    commands.run(report, "release", moves, short);
    fail_all(&pool, &ids);
    commands.run(report, "retry", moves, short);
    // Mostly under 2 s, too; but where a disk is told of each removed file (`discard`), that alone
    // may take longer.
    commands.run(report, "cancel", raw_ends(place, count), Goal::Factor(2.0));
    commands.run(report, "wait", raw_read(&pool), short);
}

struct Commands<'a> {
    place: &'a Place,
    pool: &'a Pool,
    list: &'a Path,
    count: usize,
}

impl Commands<'_> {
    fn run(&self, report: &mut Report, command: &str, raw: f64, goal: Goal) {
        let mut queue = self.place.program("queue", self.pool);
        let ids = File::open(self.list).expect("open the ids");
        queue.args([command, "-"]).stdin(ids).stderr(Stdio::null());
        let run = || {
            let code = queue.status().expect("start `queue`").code();
            // The second one is of `wait`: they were cancelled.
            assert!(matches!(code, Some(0 | 100)), "queue {command}: {code:?}");
        };
        let took = measure::timed(run).as_secs_f64();
        let name = format!("queue {command} -, {} ids", self.count);
        let (limit, ratio) = (Some(raw), Some(took / raw));
        report.add(Row { limit, ratio, ..Row::alone(name, took, "s", goal) });
    }
}

/// As if each of them had failed.
fn fail_all(pool: &Pool, ids: &[TaskId]) {
    let ids = ids.iter().copied().collect();
    let found = places::find_all(pool.layout(), &ids).expect("look for the tasks");
    for found in found.values() {
        let to = pool.layout().on_shelf(Shelf::Failed, found.name);
        fs::create_dir_all(to.parent().expect("it has a folder")).expect("make a folder");
        raw::rename(&found.path(pool.layout()), &to);
    }
}

/// Files as large as a task's, so many to a directory as we put there; on the disk, as those of tasks
/// are: what never got there is removed in no time.
fn files(dir: &Path, count: usize) -> Vec<PathBuf> {
    let make = |number: usize| {
        let dir = dir.join((number / raw::NAMES).to_string());
        fs::create_dir_all(&dir).expect("make a folder");
        let path = dir.join(number.to_string());
        fs::write(&path, TRUE).expect("make a file");
        path
    };
    let files = (0..count).map(make).collect();
    let dir = File::open(dir).expect("open the folder");
    rustix::fs::syncfs(dir).expect("flush the file system");
    files
}

/// The seconds that as many renames take.
fn raw_moves(place: &Place, count: usize) -> f64 {
    let files = files(&place.room("raw-moves"), count);
    let target = place.room("raw-moved");
    let to = |number: usize| target.join(number.to_string());
    let moves = || files.iter().enumerate().for_each(|(n, from)| raw::rename(from, &to(n)));
    measure::timed(moves).as_secs_f64()
}

/// The seconds that as many renames, reads, lines and removals take, with as many flushes.
fn raw_ends(place: &Place, count: usize) -> f64 {
    let files = files(&place.room("raw-ends"), count);
    let (target, mut ledger) = (
        place.room("raw-ended"),
        File::create_new(place.root().join("raw-ledger")).expect("make a ledger"),
    );
    let to = |number: usize| target.join(number.to_string());
    let ends = || {
        for (first, group) in (0..).step_by(GROUP).zip(files.chunks(GROUP)) {
            for (number, from) in (first..).zip(group) {
                raw::rename(from, &to(number));
            }
            for number in first..first + group.len() {
                let text = fs::read(to(number)).expect("read a task");
                ledger.write_all(&text).expect("write a line");
            }
            ledger.sync_data().expect("flush the ledger");
            for number in first..first + group.len() {
                fs::remove_file(to(number)).expect("remove a task");
            }
        }
    };
    measure::timed(ends).as_secs_f64()
}

/// The seconds that reading the ledger takes.
fn raw_read(pool: &Pool) -> f64 {
    let files =
        queue::dir::ledger::search::files_since(pool.layout(), "").expect("list the ledger");
    let read = || files.iter().for_each(|path| drop(fs::read(path).expect("read the ledger")));
    measure::timed(read).as_secs_f64()
}
