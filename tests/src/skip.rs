//! Tests that need something which not every machine has. What is left out is said where it is
//! seen, and counted: `./run.sh test` prints this list at its end.

use std::fs::File;
use std::io::Write as _;
use std::thread;

use crate::programs;

/// Says that the running test, or a part of it, is left out, and why.
///
/// # Panics
///
/// When even that cannot be written down.
pub fn skip(why: &str) {
    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = format!("{}: {why}\n", thread::current().name().unwrap_or("test"));
    eprint!("SKIPPED {line}");
    let list = programs::target().join("skipped-tests");
    let mut file = File::options().append(true).create(true).open(list).expect("open the list");
    file.write_all(line.as_bytes()).expect("write to the list of skipped tests");
}
