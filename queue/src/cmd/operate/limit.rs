//! `queue limit`: how many tasks of a user, a model or a label may run at once.

use clap::Args;
use queue::Pool;
use queue::cli::Resolved;
use queue::dir::claim::limit_slots;
use queue::dir::settings::limits_edit;
use serde_json::{Value, json};
use shared::event::Event;
use shared::exit;
use shared::settings::{Limits, Origin};

use super::control::ring_all;
use crate::cmd::out::Tone;
use crate::cmd::{App, Stop, me, note, warn};

/// Show or set how many tasks of a user, a model or a label may run at once
///
/// What is set is written to pool.toml and holds at once, also for tasks that are pending and for
/// workers that run.
#[derive(Args, Debug)]
pub(crate) struct Limit {
    /// What it counts: user=ann, model=qwen2.5:7b, label=room, label=room:1 [default: show all]
    key: Option<String>,
    /// How many may run at once (0: none), or `off`
    #[arg(value_name = "N")]
    allowed: Option<String>,
}

/// What is to become of a limit.
#[derive(Clone, Copy)]
enum Change {
    To(u32),
    Off,
}

impl Limit {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        let change = self.allowed.as_deref().map(change).transpose()?;
        match (self.key, change) {
            (None, _) => show(app, None),
            (Some(key), None) => show(app, Some(&key)),
            (Some(key), Some(change)) => set(app, &key, change),
        }
    }
}

fn change(text: &str) -> Result<Change, Stop> {
    let wrong = |_err| {
        let text = text.escape_default();
        Stop::usage(format!("`{text}` is not how many may run at once; give a number, or `off`"))
    };
    if text == "off" { Ok(Change::Off) } else { text.parse().map(Change::To).map_err(wrong) }
}

/// All limits, or one.
fn show(app: &mut App, only: Option<&str>) -> Result<u8, Stop> {
    let (pool, _resolved) = app.open()?;
    if let Some(key) = only {
        Limits::check_key(key).map_err(Stop::usage)?;
    }
    let limits = pool.limits();
    let wanted = limits.iter().filter(|(key, _allowed)| only.is_none_or(|only| only == *key));
    let used = |(key, allowed): (&String, &u32)| {
        Ok(Row { key: key.clone(), used: limit_slots::in_use(&pool, key)?, allowed: *allowed })
    };
    let rows = wanted.map(used).collect::<Result<Vec<_>, Stop>>()?;
    if let Some(key) = only.filter(|_key| rows.is_empty()) {
        return Err(no_limit(key));
    }
    if app.json() {
        let rows: Vec<_> = rows.iter().map(to_json).collect();
        app.out.json("limits", &json!({ "limits": rows }))?;
    } else if rows.is_empty() {
        app.out.line("no limits")?;
    } else {
        let row = |Row { key, used, allowed }: Row| {
            let tone = if used >= allowed { Tone::Warn } else { Tone::Good };
            vec![key, app.out.paint(tone, &used.to_string()), allowed.to_string()]
        };
        let rows = rows.into_iter().map(row).collect();
        app.out.table(&["LIMIT", "USED", "ALLOWED"], rows)?;
    }
    Ok(exit::OK)
}

/// A limit, how many of its slots are in use, and how many there are.
struct Row {
    key: String,
    used: u32,
    allowed: u32,
}

fn to_json(row: &Row) -> Value {
    let Row { key, used, allowed } = row;
    json!({"key": key, "used": used, "allowed": allowed})
}

fn no_limit(key: &str) -> Stop {
    Stop::no_match(format!("there is no limit `{}`", key.escape_default()))
}

fn set(app: &mut App, key: &str, change: Change) -> Result<u8, Stop> {
    Limits::check_key(key).map_err(Stop::usage)?;
    let (pool, resolved) = app.ready()?;
    let allowed = match change {
        Change::To(allowed) => Some(allowed),
        Change::Off => None,
    };
    let was = limits_edit::set_limit(pool.layout(), key, allowed)?;
    if was.is_none() && allowed.is_none() {
        return Err(no_limit(key));
    }
    pool.follow_limits()?;
    ring_all(&pool);
    shared::emit!(Event::PoolLimited { by: me(), limit: key.to_owned(), allowed });
    say_what_it_does_not_do(&resolved, was, allowed);
    done(app, &pool, &Changed { key, was, allowed })
}

/// What a person may expect of it, and would wait for in vain.
fn say_what_it_does_not_do(resolved: &Resolved, was: Option<u32>, allowed: Option<u32>) {
    if let Some(Origin::Environment(variable)) = resolved.settings.origin("limits") {
        warn(format!("{variable} is set here: for what is started with it, pool.toml is not read"));
    }
    if was.is_none() && allowed.is_some() {
        note("tasks that run already are not counted; those that are pending are");
    }
}

/// A limit that was changed; `None` where it is or was not limited.
struct Changed<'a> {
    key: &'a str,
    was: Option<u32>,
    allowed: Option<u32>,
}

fn done(app: &mut App, pool: &Pool, changed: &Changed<'_>) -> Result<u8, Stop> {
    let Changed { key, was, allowed } = *changed;
    let used = limit_slots::in_use(pool, key)?;
    if app.json() {
        let fields = json!({"key": key, "used": used, "allowed": allowed, "was": was});
        app.out.json("limit", &fields)?;
        return Ok(exit::OK);
    }
    let was = was.map_or_else(|| "not limited".to_owned(), |was| was.to_string());
    app.out.line(match allowed {
        Some(allowed) => format!("{key} is limited to {allowed}, {used} in use (was {was})"),
        None => format!("{key} is not limited any more (was {was})"),
    })?;
    Ok(exit::OK)
}
