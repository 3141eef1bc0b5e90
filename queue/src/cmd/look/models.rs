//! `queue models`: which models are asked for, held, known, and where they could not be loaded.

use clap::Args;
use queue::view::models::{self, ModelHolder, SeenModel};
use queue::view::{self, Count, View};
use serde_json::{Value, json};
use shared::exit;
use shared::llm::{Health, HeldState};
use shared::name::Name;

use crate::cmd::out::{Tone, ago, cut, span};
use crate::cmd::{App, Stop};

/// List models: who waits for them, which workers hold them, which could
#[derive(Args, Debug)]
pub(crate) struct Models {}

impl Models {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        let (pool, resolved) = app.open()?;
        let view = view::see(&pool, &resolved.settings, Count::Quick)?;
        let models = models::models(&view);
        if app.json() {
            let fields = json!({"at": view.at, "models": models, "servers": servers(&view)});
            app.out.json("models", &fields)?;
            return Ok(exit::OK);
        }
        if models.is_empty() {
            app.out.line("no models: nobody asks for one, and no worker's server has one")?;
        } else {
            table(app, &view, &models)?;
        }
        failed_loads(app, &view, &models)?;
        troubles(app, &view)?;
        Ok(exit::OK)
    }
}

fn table(app: &mut App, view: &View, models: &[SeenModel]) -> Result<(), Stop> {
    let rows = models.iter().map(|model| {
        let held: Vec<_> = model.workers.iter().map(|holder| held(app, view, holder)).collect();
        vec![
            cut(&model.model, 40),
            model.pending.to_string(),
            model.oldest_seconds.map_or_else(|| "-".to_owned(), span),
            if held.is_empty() { "-".to_owned() } else { held.join(", ") },
            names(&model.known_by),
        ]
    });
    let rows = rows.collect();
    app.out.table(&["MODEL", "PENDING", "OLDEST", "HELD BY", "KNOWN BY"], rows)
}

/// `worker-0 loaded 3m 2s, 4.7GiB`, and how much of it is not in GPU memory.
fn held(app: &App, view: &View, holder: &ModelHolder) -> String {
    let tone = match holder.state {
        HeldState::Loaded => Tone::Good,
        HeldState::Loading | HeldState::Unproven | HeldState::Unloading => Tone::Warn,
    };
    let state = app.out.paint(tone, holder.state.as_str());
    let size = match (holder.size, holder.vram) {
        (Some(size), Some(vram)) if vram < size => format!(", {vram} of {size} in GPU memory"),
        (Some(size), _) => format!(", {size}"),
        (None, Some(vram)) => format!(", {vram}"),
        (None, None) => String::new(),
    };
    format!("{} {state} {}{size}", holder.worker, ago(Some(holder.since), view.at))
}

fn names(workers: &[Name]) -> String {
    if workers.is_empty() {
        return "-".to_owned();
    }
    workers.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}

fn failed_loads(app: &mut App, view: &View, models: &[SeenModel]) -> Result<(), Stop> {
    for model in models {
        for failed in &model.failed_loads {
            let (worker, load) = (&failed.worker, &failed.load);
            let (name, when) = (cut(&model.model, 40), ago(Some(load.at), view.at));
            let text =
                format!("{name} could not be loaded by {worker} {when} ago ({})", load.cause);
            let text = app.out.paint(Tone::Bad, &text);
            app.out.line(format!("{text}: {}", cut(&load.message, 200)))?;
        }
    }
    Ok(())
}

/// Servers that do not fare well.
fn troubles(app: &mut App, view: &View) -> Result<(), Stop> {
    for worker in view.alive() {
        let server = worker.heartbeat.as_ref().and_then(|beat| beat.ability.server.as_ref());
        let Some(server) = server.filter(|server| server.health != Health::Up) else { continue };
        let (name, health) = (&worker.name, server.health);
        let since = ago(Some(server.health_since), view.at);
        let error = server.error.as_ref().map(|error| format!(": {}", cut(error, 200)));
        let text = format!("{name}'s server at {} is {health}, for {since}", server.address);
        let text = app.out.paint(Tone::Warn, &text);
        app.out.line(text + &error.unwrap_or_default())?;
    }
    Ok(())
}

/// The servers of living workers, each with the worker that watches it.
fn servers(view: &View) -> Vec<Value> {
    let seen = view.alive().filter_map(|worker| {
        let server = worker.heartbeat.as_ref()?.ability.server.as_ref()?;
        Some(json!({
            "worker": worker.name,
            "address": server.address,
            "kind": server.kind,
            "loads": server.loads,
            "health": server.health,
            "health_since": server.health_since,
            "error": server.error,
            "canary": server.canary,
        }))
    });
    seen.collect()
}
