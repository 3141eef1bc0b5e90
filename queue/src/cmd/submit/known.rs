//! Whether the models that tasks ask for exist here, as far as the workers' servers have said.

use queue::Pool;
use queue::cli::Resolved;
use queue::view::{self, models};
use shared::llm::is_same_model;
use shared::name::nearest;
use shared::time::Moment;

use crate::cmd::{Stop, warn};

/// So many models are listed.
const TOLD: usize = 20;

/// A sentence about the first model that no living worker's server knows. `None` where all are
/// known, or where it cannot be told.
pub(super) fn unknown<'a>(
    pool: &Pool,
    resolved: &Resolved,
    mut asked: impl Iterator<Item = &'a String>,
) -> Result<Option<String>, Stop> {
    let workers = view::workers(pool, &resolved.settings, Moment::now())?;
    let Some(known) = models::known(workers.iter()) else { return Ok(None) };
    let is_known = |model: &str| known.iter().any(|known| is_same_model(known, model));
    let Some(missing) = asked.find(|model| !is_known(model)) else { return Ok(None) };
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    // Nobody writes `:latest`, and it would make every name look far from what was written.
    let short: Vec<&str> = names.iter().map(|name| name.trim_end_matches(":latest")).collect();
    let hint = nearest(missing, &short).map(|near| format!("; did you mean `{near}`?"));
    let there = match names.len() {
        0 => "they know none".to_owned(),
        1..=TOLD => format!("there are: {}", names.join(", ")),
        more => format!("there are: {}, and {} more", names[..TOLD].join(", "), more - TOLD),
    };
    let (missing, hint) = (missing.escape_default(), hint.unwrap_or_default());
    Ok(Some(format!("no running worker's server knows the model `{missing}`{hint} ({there})")))
}

/// Says so. It is no error: a model may be fetched, or a worker started, later.
pub(super) fn warn_unknown<'a>(
    pool: &Pool,
    resolved: &Resolved,
    asked: impl Iterator<Item = &'a String>,
) -> Result<(), Stop> {
    let mut asked = asked.peekable();
    if asked.peek().is_some()
        && let Some(text) = unknown(pool, resolved, asked)?
    {
        warn(text);
    }
    Ok(())
}
