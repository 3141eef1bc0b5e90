//! `queue status`: the pool on one screen.

use clap::Args;
use queue::view::{self, Count, View};
use serde_json::{Value, json};
use shared::exit;
use shared::settings::Settings;

use super::workers;
use crate::cmd::out::{Tone, ago, cut, span};
use crate::cmd::{App, Stop};

/// Show the pool on one screen: tasks, lanes, workers, what is wrong
#[derive(Args, Debug)]
pub(crate) struct PoolStatus {}

impl PoolStatus {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        let (pool, resolved) = app.open()?;
        let view = view::see(&pool, &resolved.settings, Count::Quick)?;
        if app.json() {
            app.out.json("status", &to_json(&view, &resolved.settings))?;
        } else {
            show(app, &view, &resolved.settings)?;
        }
        Ok(exit::OK)
    }
}

fn to_json(view: &View, settings: &Settings) -> Value {
    let lanes = view.counts.lanes.iter().map(|lane| {
        json!({
            "lane": lane.lane,
            "class": lane.class,
            "model": lane.model,
            "priority_max": lane.priority_max,
            "pending": lane.pending,
            "oldest_seconds": lane.oldest.map(|oldest| view.at.seconds_since(oldest)),
        })
    });
    json!({
        "at": view.at,
        "counts": view.states,
        "lanes": lanes.collect::<Vec<_>>(),
        "workers": view.workers.iter().map(|w| w.to_json(view.at)).collect::<Vec<_>>(),
        "brain": view.brain.to_json(),
        "stuck": view.stuck(settings),
        "statistics": statistics(view, settings),
        "warnings": view.warnings(),
    })
}

/// What is in the queue and was done lately; the last is `null` where no brain has counted it.
fn statistics(view: &View, settings: &Settings) -> Value {
    let (pending, processing) = (view.states.pending, view.states.processing);
    json!({
        "total_pending": pending,
        "by_class": view.counts.by_class(),
        "by_worker": {
            "pending": pending,
            "processing": processing,
            "completed_last_5min": view.completed_lately(),
        },
        "stuck_tasks": view.stuck(settings).len(),
        "processing_count": processing,
    })
}

/// How many there are, as far as is known.
fn many(known: Option<u64>, at_least: u64) -> String {
    known.map_or_else(|| format!("unknown (at least {at_least})"), |count| count.to_string())
}

fn show(app: &mut App, view: &View, settings: &Settings) -> Result<(), Stop> {
    let (states, counts) = (&view.states, &view.counts);
    let classes = view.counts.by_class();
    let classes: Vec<_> = classes.iter().map(|(class, n)| format!("{class}: {n}")).collect();
    let classes =
        if classes.is_empty() { String::new() } else { format!(" ({})", classes.join(", ")) };
    app.out.line(format!(
        "pending {}{classes}, processing {}, delayed {}, waiting {}, held {}",
        many(states.pending, counts.pending),
        many(states.processing, counts.processing),
        many(states.delayed, counts.delayed),
        many(states.waiting, counts.waiting),
        many(states.held, counts.held)
    ))?;
    let failed = format!("failed {}", many(states.failed, counts.failed));
    let failed = if counts.failed > 0 { app.out.paint(Tone::Bad, &failed) } else { failed };
    app.out.line(format!(
        "{failed}, complete {}{}, cancelled {}, rejected {}",
        states.complete,
        view.completed_lately().map_or_else(String::new, |n| format!(" ({n} in 5 minutes)")),
        states.cancelled,
        many(states.rejected, counts.rejected)
    ))?;
    let brain = view.brain.to_json();
    let standby = view.brain.standby.map(|pid| format!("; pid {pid} stands by"));
    let standby = standby.unwrap_or_default();
    app.out.line(match (view.brain.alive, brain["pid"].as_u64()) {
        (true, Some(pid)) => format!("brain: running, pid {pid}{standby}"),
        (true, None) => format!("brain: running{standby}"),
        (false, _) => format!("brain: none{standby}"),
    })?;
    lanes(app, view)?;
    if !view.workers.is_empty() {
        app.out.line("")?;
        workers::table(app, &view.workers, view.at)?;
    }
    troubles(app, view, settings)
}

fn lanes(app: &mut App, view: &View) -> Result<(), Stop> {
    if view.counts.lanes.is_empty() {
        return Ok(());
    }
    let rows = view.counts.lanes.iter().map(|lane| {
        vec![
            lane.lane.to_string(),
            lane.class.to_string(),
            cut(lane.model.as_deref().unwrap_or("-"), 30),
            lane.priority_max.to_string(),
            lane.pending.to_string(),
            ago(lane.oldest, view.at),
        ]
    });
    app.out.line("")?;
    app.out.table(&["LANE", "CLASS", "MODEL", "PRIORITY", "PENDING", "OLDEST"], rows.collect())
}

fn troubles(app: &mut App, view: &View, settings: &Settings) -> Result<(), Stop> {
    let mut lines = Vec::new();
    for stuck in view.stuck(settings) {
        let (id, worker) = (stuck["task_id"].as_str(), stuck["worker"].as_str());
        let seconds = stuck["seconds"].as_f64().unwrap_or(0.0);
        let id = id.map_or("?", |id| id.get(id.len().saturating_sub(8)..).unwrap_or(id));
        let worker = worker.unwrap_or("?");
        lines.push(format!("stuck: {id} on {worker}, no progress for {}", span(seconds)));
    }
    for warning in view.warnings() {
        let text = |field: &str| warning[field].as_str().unwrap_or_default();
        let since = text("since").parse().ok();
        let since = since.map(|since| format!(", for {}", ago(Some(since), view.at)));
        let fix = warning["fix"].as_str().map(|fix| format!(" [{fix}]")).unwrap_or_default();
        let (code, said) = (text("code"), text("text"));
        lines.push(format!("{code}: {said}{}{fix}", since.unwrap_or_default()));
    }
    if !lines.is_empty() {
        app.out.line("")?;
    }
    for line in lines {
        let line = app.out.paint(Tone::Warn, &cut(&line, 300));
        app.out.line(line)?;
    }
    Ok(())
}
