//! From a submit to the job's first instruction, on a worker that has nothing to do.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use queue::dir::signal::doorbell;
use queue::dir::submit::one::Submitter;
use shared::task::Class;

use crate::args::Args;
use crate::measure::{self, median, quantile};
use crate::parts::daemon::{Ends, Place, task};
use crate::report::{Goal, Report, Row};

/// The job: says when it began.
pub(crate) fn stamp(words: &[String]) {
    let now = measure::now();
    let [path] = words else { panic!("stamp takes a file") };
    let aside = Path::new(path).with_extension("aside");
    fs::write(&aside, now.to_string()).expect("write the time");
    crate::raw::rename(&aside, Path::new(path));
}

pub(crate) fn measure(args: &Args, place: &Place, report: &mut Report) {
    let pool = place.pool("wake");
    let _worker = place.worker(&pool, 1);
    let mut ends = Ends::default();
    let mut submitter = Submitter::new(&pool).expect("a place in incoming/");
    let own = std::env::current_exe().expect("a running program knows its file");
    let own = own.to_str().expect("a path in UTF-8");
    let (mut ours, mut rung, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..args.pick(100, 400) {
        let seen = place.room("stamps").join(format!("raw-{round}"));
        let begun = measure::now();
        let mut command = Command::new(own);
        command.arg("stamp").arg(&seen).stdin(Stdio::null());
        command.status().expect("start a job");
        raw.push(millis(begun, &seen));

        let seen = place.room("stamps").join(format!("ours-{round}"));
        let words = serde_json::json!([own, "stamp", &seen]);
        let task = task(&format!(r#"{{"class": "script", "command": {words}}}"#));
        // From before the call, so its two flushes count too: an upper bound, for the rename that
        // publishes lies between them.
        let begun = measure::now();
        submitter.submit(&task).expect("submit");
        let ring = measure::now();
        doorbell::ring_class(pool.layout(), Class::Script);
        ends.wait(&pool, 1);
        ours.push(millis(begun, &seen));
        rung.push(millis(ring, &seen));
        // Its worker goes to sleep again.
        measure::pause(std::time::Duration::from_millis(5));
    }
    let beyond = median(&ours) - median(&raw);
    let name = |what: &str| format!("wake-up with submit, to the first instruction, {what}");
    let p99 = measure::Pair {
        ours: quantile(&ours, 0.99),
        raw: quantile(&raw, 0.99),
        ratio: quantile(&ours, 0.99) / quantile(&raw, 0.99),
    };
    report.add(Row::beside(name("p99"), &p99, "ms", Goal::Under(10.0)));
    let p50 = measure::Pair {
        ours: median(&ours),
        raw: median(&raw),
        ratio: median(&ours) / median(&raw),
    };
    report.add(Row::beside(name("p50"), &p50, "ms", Goal::None));
    report.add(Row::alone(name("p50 less spawn"), beyond, "ms", Goal::Under(2.0)));
    // A lower bound: the directory's flush lies between the rename and the ring.
    let beyond = median(&rung) - median(&raw);
    let name = "wake-up from the ring, to the first instruction, p50 less spawn";
    report.add(Row::alone(name, beyond, "ms", Goal::None));
}

fn millis(begun: u64, seen: &Path) -> f64 {
    let text = fs::read_to_string(seen).expect("the job wrote its time");
    let at: u64 = text.parse().expect("a number");
    #[expect(clippy::cast_precision_loss, reason = "less than a minute")]
    let nanos = (at - begun) as f64;
    nanos / 1e6
}
