//! Claim and finish without a process: by backlog, and by how many workers there are.

use std::path::PathBuf;

use queue::Pool;

use crate::args::Args;
use crate::measure::{self, Pair, median};
use crate::parts::backlog::Large;
use crate::parts::claimer::{Claimer, Kind};
use crate::parts::daemon::{Place, TRUE};
use crate::parts::spawn::submit_all;
use crate::parts::submit::bodies;
use crate::plot::Curve;
use crate::raw;
use crate::report::{Goal, Report, Row};

/// Tasks of all workers together in one short round.
const TASKS: usize = 240;
/// The small backlog.
const SMALL: usize = 1_000;

/// What is claimed from: a pool with so many tasks, or plain files.
enum Source {
    Pool { pool: Pool, backlog: usize },
    Files { root: PathBuf },
}

impl Source {
    fn claimers(&self, count: usize) -> Vec<Claimer> {
        let (kind, root) = match self {
            Self::Pool { pool, .. } => (Kind::Ours, pool.root()),
            Self::Files { root } => (Kind::Raw, root.as_path()),
        };
        (0..count).map(|n| Claimer::start(kind, root, &format!("of-{count}-{n}"))).collect()
    }

    /// As many as were taken: the backlog stays as it is.
    fn refill(&self) {
        match self {
            Self::Pool { pool, .. } => submit_all(pool, TASKS, TRUE),
            Self::Files { root } => raw::fill(&root.join("pending"), &bodies(TASKS)),
        }
    }
}

pub(crate) fn measure(args: &Args, place: &Place, large: &Large, report: &mut Report) {
    let sources = sources(args, place, large);
    let mut curves: Vec<Curve> = Vec::new();
    for workers in [1, 2, 8] {
        let rates = rates(args, &sources, workers);
        let raw = &rates[0];
        let mut points = Vec::new();
        for (source, ours) in sources.iter().zip(&rates).skip(1) {
            let Source::Pool { backlog, .. } = source else { continue };
            let pair = Pair::of(ours, raw);
            #[expect(clippy::cast_precision_loss, reason = "a million")]
            points.push((*backlog as f64, pair.ours));
            let name = format!("claim + finish, {workers} workers, backlog {backlog}");
            let goal = if workers == 1 { Goal::Ratio(0.5) } else { Goal::None };
            report.add(Row::beside(name, &pair, "tasks/s", goal));
        }
        if workers == 1 {
            let line = points.iter().map(|(backlog, _)| (*backlog, median(raw))).collect();
            curves.push(Curve { name: "raw calls, 1".into(), points: line });
            report.add(growth(&rates[1], &rates[rates.len() - 1], large.count));
        }
        curves.push(Curve { name: format!("{workers} workers"), points });
    }
    report.curves = curves;
}

fn sources(args: &Args, place: &Place, large: &Large) -> Vec<Source> {
    let root = place.room("raw-claims");
    raw::fill(&place.room("raw-claims/pending"), &bodies(SMALL));
    let mut sources = vec![Source::Files { root }];
    let sizes = args.pick(&[SMALL][..], &[SMALL, 100_000]);
    for &backlog in sizes {
        let pool = place.pool(&format!("claims-{backlog}"));
        submit_all(&pool, backlog, TRUE);
        sources.push(Source::Pool { pool, backlog });
    }
    sources.push(Source::Pool { pool: large.pool.clone(), backlog: large.count });
    sources
}

/// For each source the rates of all rounds. The sources take turns, so that what else the machine
/// does is the same for all.
fn rates(args: &Args, sources: &[Source], workers: usize) -> Vec<Vec<f64>> {
    let mut claimers: Vec<_> = sources.iter().map(|source| source.claimers(workers)).collect();
    let mut rates = vec![Vec::new(); sources.len()];
    let rounds = args.pick(7, 15);
    for round in 0..=rounds {
        for turn in 0..sources.len() {
            let index = (turn + round) % sources.len();
            let team = &mut claimers[index];
            team.iter_mut().for_each(|one| one.order(TASKS / workers));
            let slowest = team.iter_mut().map(Claimer::answer).max().expect("a worker");
            // The first round opens files and lists directories.
            if round > 0 {
                rates[index].push(measure::rate(TASKS, slowest));
            }
            sources[index].refill();
        }
    }
    rates
}

fn growth(small: &[f64], large: &[f64], count: usize) -> Row {
    let micros = |rates: &[f64]| rates.iter().map(|rate| 1e6 / rate).collect::<Vec<_>>();
    let pair = Pair::of(&micros(large), &micros(small));
    let name = format!("cost of a task at {count}, beside that at {SMALL}");
    Row::beside(name, &pair, "us", Goal::Factor(1.3))
}
