//! The large pool: up to a million tasks out of one file, by the command that people use.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::process::Stdio;
use std::time::Duration;

use queue::Pool;

use crate::args::Args;
use crate::measure::{self, Pair};
use crate::parts::daemon::{Place, TRUE};
use crate::parts::submit::bodies;
use crate::raw;
use crate::report::{Goal, Report, Row};

#[derive(Debug)]
pub(crate) struct Large {
    pub(crate) pool: Pool,
    pub(crate) count: usize,
}

/// More than any number of tasks may cost the command that submits them.
const BOUND: f64 = 100.0;

impl Large {
    pub(crate) fn fill(args: &Args, place: &Place, report: &mut Report) -> Self {
        let count = args.pick(10_000, 1_000_000);
        let pool = place.pool("large");
        let batch = place.root().join("batch.jsonl");
        let mut file = BufWriter::new(File::create(&batch).expect("make the batch"));
        for _ in 0..count {
            writeln!(file, "{TRUE}").expect("write the batch");
        }
        file.flush().expect("write the batch");
        let mut peak = 0.0_f64;
        let took = measure::timed(|| {
            let mut queue = place.program("queue", &pool);
            queue.args(["submit", "--batch"]).arg(&batch).stderr(Stdio::inherit());
            let mut queue = queue.spawn().expect("start `queue`");
            let status = loop {
                if let Some(status) = queue.try_wait().expect("wait for `queue`") {
                    break status;
                }
                peak = peak.max(memory(queue.id(), "VmHWM:"));
                measure::pause(Duration::from_millis(5));
            };
            assert!(status.success(), "`queue submit --batch` failed");
        });
        fs::remove_file(batch).expect("remove the batch");
        let what = format!("queue submit --batch, {count} tasks");
        let some = count.min(50_000);
        let (bodies, target) = (bodies(some), place.room("raw-large-target"));
        let staging = place.root().join("raw-large");
        let raw = measure::timed(|| raw::publish_bulk(&staging, &target, &bodies));
        let pair = Pair::of(&[measure::rate(count, took)], &[measure::rate(some, raw)]);
        report.add(Row::beside(format!("{what}: speed"), &pair, "tasks/s", Goal::Ratio(0.7)));
        report.add(Row::alone(format!("{what}: memory"), peak, "MB", Goal::Under(BOUND)));
        Self { pool, count }
    }
}

/// A line of `/proc/PID/status`, in MB; 0 for a process that is over.
pub(crate) fn memory(pid: u32, what: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(what));
    let kilobytes: Option<f64> =
        line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|text| text.parse().ok());
    kilobytes.unwrap_or(0.0) * 1024.0 / 1e6
}
