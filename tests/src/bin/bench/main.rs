//! The benchmark: what Brainstem reaches, side by side with what the machine allows.
//!
//! Each figure is measured in turn with its raw limit (the same system calls with the same flush
//! rule, without our code) in many short rounds of one run, so that a busy machine slows both. A
//! ratio is the median of the rounds' ratios, not the ratio of two medians.
//!
//! Nothing is removed before the end: ext4 without a journal does not use a deleted file's inode
//! again for half a minute, and looks at each of them whenever a file is made meanwhile, which
//! costs ten times what the making costs.
//!
//! ```text
//! ./run.sh bench [--quick] [--json FILE] [--plot FILE] [--dir DIR] [--only PART,…]
//! ```
//!
//! The pools lie below DIR (else `$TMPDIR`), which should be on a real disk. Where a loop takes
//! more than one process, this program starts itself again as `claimer` or `stamp`.

mod args;
mod measure;
mod parts;
mod plot;
mod raw;
mod report;

use std::process::ExitCode;

use args::{Args, Part};
use report::Report;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("claimer") => parts::claimer::serve(&words[1..]),
        Some("stamp") => parts::wake::stamp(&words[1..]),
        Some(_) | None => match Args::parse(&words) {
            Ok(args) => return measure_all(&args),
            Err(problem) => {
                eprintln!("bench: {problem}\n{}", args::USAGE);
                return ExitCode::from(2);
            }
        },
    }
    ExitCode::SUCCESS
}

fn measure_all(args: &Args) -> ExitCode {
    let place = parts::daemon::Place::new(&args.dir);
    let mut report = Report::begin(place.root());
    let wants = |part| args.only.is_empty() || args.only.contains(&part);
    if wants(Part::Spawn) {
        parts::spawn::measure(args, &place, &mut report);
    }
    if wants(Part::Submit) {
        parts::submit::measure(args, &place, &mut report);
    }
    if wants(Part::Wake) {
        parts::wake::measure(args, &place, &mut report);
    }
    if wants(Part::Llm) {
        parts::llm::measure(args, &place, &mut report);
    }
    if wants(Part::Many) {
        parts::many::measure(args, &place, &mut report);
    }
    if wants(Part::Placement) {
        parts::placement::measure(args, &mut report);
    }
    // These share the large pool, which takes a while to fill.
    if [Part::Claim, Part::Idle, Part::Large].into_iter().any(wants) {
        let large = parts::backlog::Large::fill(args, &place, &mut report);
        if wants(Part::Claim) {
            parts::claim::measure(args, &place, &large, &mut report);
        }
        if wants(Part::Idle) {
            parts::idle::measure(args, &place, &large, &mut report);
        }
        if wants(Part::Large) {
            parts::large::measure(args, &place, &large, &mut report);
        }
    }
    report.end(args)
}
