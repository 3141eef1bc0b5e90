//! `queue why`: asks the library why, and says it.

use clap::Args;
use queue::Pool;
use queue::dir::lookup::{self, Miss, Named};
use queue::view::{self, Count};
use queue::why::{self, Explanation, Look, Word};
use queue::wire::lane::Requirements;
use shared::name::Name;
use shared::settings::Settings;
use shared::task::Task;

use crate::cmd::out::{Tone, ago, cut};
use crate::cmd::{App, Stop};

/// Say why a task is not running, why a worker or a GPU takes nothing, or where a model is
#[derive(Args, Debug)]
#[command(after_help = "Exit code: 5 blocked now, 6 can never run here, 0 otherwise.")]
pub(crate) struct Why {
    /// A task, a batch (its id or key), a worker, a GPU (`gpu:0`) or a model [default: the whole pool]
    #[arg(value_name = "ID|BATCH|WORKER|GPU|MODEL")]
    subject: Option<String>,
}

impl Why {
    pub(in crate::cmd) fn run(self, app: &mut App) -> Result<u8, Stop> {
        let (pool, resolved) = app.open()?;
        let view = view::see(&pool, &resolved.settings, Count::Exact)?;
        let look = Look::new(&pool, &resolved.settings, &view);
        let verdict = match &self.subject {
            None => why::why_pool(&look)?,
            Some(text) => ask(&look, text)?,
        };
        say(app, &verdict)?;
        Ok(verdict.verdict.exit_code())
    }
}

fn ask(look: &Look<'_>, text: &str) -> Result<Explanation, Stop> {
    // A worker may be called like the end of an id; who is known by a name is meant by it.
    if let Ok(name) = text.parse::<Name>()
        && let Some(worker) = look.view.workers.iter().find(|worker| worker.name == name)
    {
        return Ok(why::why_worker(look, worker)?);
    }
    if let Some(worker) = why::worker_of(look, text) {
        return Ok(why::why_gpu(look, text, worker)?);
    }
    if why::is_model(look, text) {
        return Ok(why::why_model(look, text)?);
    }
    match lookup::find_named(look.pool.layout(), text)? {
        Ok(Named::Task(id)) => {
            let gone = || Stop::no_match(format!("no task `{id}`"));
            why::why_task(look, id)?.ok_or_else(gone)
        }
        Ok(Named::Batch(batch, ids)) => Ok(why::why_batch(look, batch, ids)?),
        Err(Miss::NoId(_)) => Err(unknown(look, text)),
        Err(miss) => Err(Stop::no_match(miss.to_string())),
    }
}

/// Nothing here has this name. What is alike is named.
fn unknown(look: &Look<'_>, text: &str) -> Stop {
    let names: Vec<&str> = look.view.workers.iter().map(|worker| worker.name.as_str()).collect();
    let near = shared::name::nearest(text, &names);
    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    let text = text.escape_default();
    Stop::no_match(format!("no task, batch, worker, GPU or model is called `{text}`{hint}"))
}

fn say(app: &mut App, verdict: &Explanation) -> Result<(), Stop> {
    if app.json() {
        return app.out.json("why", verdict);
    }
    let tone = match verdict.verdict {
        Word::Running | Word::Claimable | Word::Idle | Word::Busy => Tone::Good,
        Word::Blocked => Tone::Warn,
        Word::Impossible => Tone::Bad,
        Word::Gone => Tone::Faint,
    };
    let word = app.out.paint(tone, verdict.verdict.as_str());
    app.out.line(format!("{word}: {}", cut(&verdict.text, 400)))?;
    for reason in &verdict.reasons {
        let since = reason.since.map(|since| format!(", for {}", ago(Some(since), verdict.at)));
        let lane = reason.lane.as_ref().zip(reason.count);
        let lane = lane.map(|(lane, count)| format!(" [{count} in {lane}]")).unwrap_or_default();
        let text = cut(&reason.text, 300);
        app.out.line(format!("  {}: {text}{}{lane}", reason.code, since.unwrap_or_default()))?;
        if let Some(fix) = &reason.fix {
            let fix = app.out.paint(Tone::Faint, &format!("    -> {fix}"));
            app.out.line(fix)?;
        }
    }
    Ok(())
}

/// `submit --dry-run`: whether a task could run here.
pub(in crate::cmd) fn dry_run(
    app: &mut App,
    pool: &Pool,
    settings: &Settings,
    task: &Task,
    lane: &Requirements,
) -> Result<u8, Stop> {
    let view = view::see(pool, settings, Count::Exact)?;
    let look = Look::new(pool, settings, &view);
    let verdict = why::why_new(&look, task, lane)?;
    if app.json() {
        let mut fields = serde_json::json!(verdict);
        fields["task"] = serde_json::json!(task.spec);
        app.out.json("why", &fields)?;
    } else {
        say(app, &verdict)?;
    }
    // Blocked now is no obstacle to submitting.
    Ok(match verdict.verdict {
        Word::Impossible => shared::exit::IMPOSSIBLE,
        Word::Running | Word::Blocked | Word::Idle | Word::Busy | Word::Claimable | Word::Gone => {
            shared::exit::OK
        }
    })
}
