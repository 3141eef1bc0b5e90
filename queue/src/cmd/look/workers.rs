//! `queue workers`: who works, at what, and who died.

use clap::Args;
use queue::view::{self, Worker};
use serde_json::json;
use shared::exit;
use shared::llm::{Health, HeldState, ModelServer};
use shared::name::Name;
use shared::time::Moment;

use crate::cmd::out::{Tone, ago, cut, or_dash, span};
use crate::cmd::{App, Stop};

/// List the workers: who works, at what, and who died lately
#[derive(Args, Debug)]
pub(crate) struct Workers {}

impl Workers {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        let (pool, resolved) = app.open()?;
        let now = Moment::now();
        let workers = view::workers(&pool, &resolved.settings, now)?;
        if app.json() {
            let all: Vec<_> = workers.iter().map(|worker| worker.to_json(now)).collect();
            app.out.json("workers", &json!({ "workers": all }))?;
        } else if workers.is_empty() {
            app.out.line("no workers")?;
        } else {
            table(app, &workers, now)?;
        }
        Ok(exit::OK)
    }
}

/// The workers as people read them.
pub(in crate::cmd) fn table(app: &mut App, workers: &[Worker], now: Moment) -> Result<(), Stop> {
    let mut head = vec!["WORKER", "GPU", "STATUS", "RUNS", "BEAT", "DONE", "FAILED", "LAST LOOK"];
    let mut rows: Vec<_> = workers.iter().map(|worker| row(app, worker, now)).collect();
    // Only where somebody has a model server that ever answered.
    if workers.iter().filter_map(server).any(has_answered) {
        head.insert(MODELS, "MODELS");
        for (row, worker) in rows.iter_mut().zip(workers) {
            row.insert(MODELS, models(app, worker));
        }
    }
    app.out.table(&head, rows)
}

/// Where the column of models stands.
const MODELS: usize = 4;

fn server(worker: &Worker) -> Option<&ModelServer> {
    worker.heartbeat.as_ref()?.ability.server.as_ref().filter(|_server| worker.is_alive())
}

fn has_answered(server: &ModelServer) -> bool {
    server.health != Health::Down || server.known.is_some()
}

/// What its server holds, or what is wrong with the server.
fn models(app: &App, worker: &Worker) -> String {
    let Some(server) = server(worker) else { return "-".to_owned() };
    match server.health {
        Health::Up | Health::Unknown => {}
        ill @ (Health::Down | Health::Wedged) => {
            return app.out.paint(Tone::Bad, &format!("server {ill}"));
        }
    }
    let shown = server.models.iter().map(|held| match held.state {
        HeldState::Loaded => cut(&held.model, 30),
        state @ (HeldState::Loading | HeldState::Unproven | HeldState::Unloading) => {
            format!("{} ({state})", cut(&held.model, 30))
        }
    });
    let shown: Vec<_> = shown.collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

fn row(app: &App, worker: &Worker, now: Moment) -> Vec<String> {
    let beat = worker.heartbeat.as_ref();
    let gpu = beat.and_then(|b| b.ability.gpu).or(worker.record.as_ref().and_then(|r| r.gpu));
    let runs: Vec<_> = worker
        .current()
        .map(|run| {
            let name = cut(&run.name, 30);
            format!("{} {name} ({})", run.task_id.short(), ago(run.started_at, now))
        })
        .collect();
    let runs = match (runs.is_empty(), beat.and_then(|b| b.idle_since)) {
        (false, _) => runs.join(", "),
        (true, Some(since)) if worker.is_alive() => format!("idle {}", ago(Some(since), now)),
        (true, _) => "-".to_owned(),
    };
    // Why a worker that works takes no more is no news; why an idle one takes nothing is.
    let idle = worker.is_alive() && worker.current().next().is_none();
    let look = beat.map(|b| cut(&b.claim.result, 60)).filter(|_look| idle);
    vec![
        worker.name.to_string(),
        or_dash(gpu),
        status(app, worker),
        runs,
        worker.heartbeat_age(now).map_or_else(|| "-".to_owned(), span),
        or_dash(beat.map(|b| b.completed)),
        or_dash(beat.map(|b| b.failed)),
        or_dash(look.filter(|look| !look.is_empty())),
    ]
}

fn status(app: &App, worker: &Worker) -> String {
    let status = worker.status();
    let tone = match status {
        "processing" | "loading" => Tone::Good,
        "hung" | "dead" | "quarantined" => Tone::Bad,
        "draining" | "paused" | "hot" | "settling" | "unknown" => Tone::Warn,
        "stopped" => Tone::Faint,
        _ => return status.to_owned(),
    };
    app.out.paint(tone, status)
}

/// A worker's name that is the name of a worker here.
pub(in crate::cmd) fn known(
    pool: &queue::Pool,
    settings: &shared::settings::Settings,
    text: &str,
) -> Result<Worker, Stop> {
    let name: Name = text.parse().map_err(|err| Stop::usage(format!("{err}")))?;
    if let Some(worker) = view::worker(pool, settings, Moment::now(), name)? {
        return Ok(worker);
    }
    let names = view::workers(pool, settings, Moment::now())?;
    let names: Vec<&str> = names.iter().map(|worker| worker.name.as_str()).collect();
    let near = shared::name::nearest(text, &names);
    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    Err(Stop::no_match(format!("there is no worker `{}`{hint}", text.escape_default())))
}
