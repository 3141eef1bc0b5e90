//! One task from the command line.

use std::path::Path;

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{ToSpan as _, Zoned};
use queue::Pool;
use queue::cli::Failure;
use queue::dir::find::places;
use queue::dir::lookup;
use queue::dir::submit::keys::Keys;
use queue::dir::submit::one;
use serde_json::json;
use shared::exit;
use shared::id::TaskId;
use shared::task::{After, BadSpec, On, Spec, Task};
use shared::time::Moment;

use super::around::Around;
use super::{Answer, Submit, Submitter, check_size, known, lane_of, ring, say_submitted};
use crate::cmd::look::output::{self, Answered};
use crate::cmd::look::why;
use crate::cmd::out::cut;
use crate::cmd::{App, Stop};

/// Submits one task and says its id; with `--stream-to` it then waits for the answer.
pub(super) fn submit(app: &mut App, command: Submit) -> Result<u8, Stop> {
    let (dry_run, key, after) = (command.dry_run, command.key.clone(), command.after.clone());
    let stream_to = command.asking.stream_to.clone();
    let me = Submitter::new(command.brake, command.complete_only);
    let mut spec = words(command, &me)?;
    me.complete(&mut spec).map_err(wrong)?;
    let mut around = Around::default();
    around.look(&spec);
    around.warn();
    if dry_run {
        return try_out(app, &me, spec);
    }
    // Before the task is there: a file that cannot be written stops all of it.
    let file = stream_to.map(Answered::create).transpose()?;
    let (pool, resolved) = app.create()?;
    spec.after = after.iter().map(|text| dependency(app, &pool, text)).collect::<Result<_, _>>()?;
    known::warn_unknown(&pool, &resolved, spec.model.iter().filter(|_| spec.asks_a_model()))?;
    let task = me.task(TaskId::new(), None, spec);
    check_size(&task).map_err(wrong)?;
    let answer = match key {
        Some(key) => submit_keyed(&pool, &task, &key)?,
        None => submit_new(&pool, &task)?,
    };
    let code = answer.say(app)?;
    let Some(mut file) = file else { return Ok(code) };
    app.out.flush()?;
    output::stream(&pool, answer.ids[0], &mut file)
}

/// All that the command line says about a task, dependencies included.
pub(super) fn spec(app: &App, command: Submit, me: &Submitter) -> Result<Spec, Stop> {
    let after = command.after.clone();
    let mut spec = words(command, me)?;
    if !after.is_empty() {
        let (pool, _resolved) = app.open()?;
        spec.after =
            after.iter().map(|text| dependency(app, &pool, text)).collect::<Result<_, _>>()?;
    }
    Ok(spec)
}

fn submit_new(pool: &Pool, task: &Task) -> Result<Answer, Stop> {
    one::Submitter::new(pool)?.submit(task)?;
    ring(pool, task);
    say_submitted(pool, task);
    Ok(Answer { ids: vec![task.id], batch_id: None, existing: false, new: 1 })
}

fn submit_keyed(pool: &Pool, task: &Task, key: &str) -> Result<Answer, Stop> {
    let keys = Keys::wait(pool)?;
    if let Some(id) = keys.find(key)? {
        return Ok(existing(pool, id)?);
    }
    keys.intend(key, task.id)?;
    let answer = submit_new(pool, task)?;
    keys.submitted(key, task.id)?;
    Ok(answer)
}

/// What was submitted under a key before.
fn existing(pool: &Pool, id: TaskId) -> Result<Answer, queue::Error> {
    let layout = pool.layout();
    let found = places::find(layout, id)?;
    let task = found.map(|found| found.read(layout)).transpose()?.flatten();
    let batch_id = match task {
        Some(task) => task.batch_id,
        None => queue::dir::ledger::search::lines_of(layout, id)?
            .pop()
            .and_then(|line| line.task.batch_id),
    };
    Ok(Answer { ids: vec![id], batch_id, existing: true, new: 0 })
}

fn wrong(problem: BadSpec) -> Stop {
    Stop::usage(problem.to_string())
}

/// What the command line says, word by word.
fn words(command: Submit, me: &Submitter) -> Result<Spec, Stop> {
    let at = command.at.as_deref().map(|text| moment(text, &Zoned::now())).transpose();
    let at = at.map_err(|problem| Stop::usage(format!("--at: {problem}")))?;
    let env = command.env.iter().map(|text| variable(text)).collect::<Result<_, _>>()?;
    let labels = command.label.iter().map(|text| pair("--label", text));
    let mut spec = Spec {
        class: command.class,
        name: command.name,
        command: Some(command.command).filter(|command| !command.is_empty()),
        cwd: command.cwd.map(|dir| absolute(&dir, me)).transpose()?,
        env,
        priority: command.priority,
        timeout: command.timeout,
        stall_timeout: command.stall_timeout,
        grace_period: command.grace,
        log_cap: command.log_cap,
        max_attempts: command.max_attempts,
        at,
        delay: command.delay,
        hold: command.hold,
        key: command.key,
        labels: labels.collect::<Result<_, _>>()?,
        user: command.user,
        gpu_memory: command.gpu_mem,
        stdin: command.stdin,
        worker: command.worker,
        ..Spec::default()
    };
    command.asking.fill(&mut spec)?;
    Ok(spec)
}

fn absolute(dir: &Path, me: &Submitter) -> Result<String, Stop> {
    let joined = me.cwd.as_deref().map_or_else(|| dir.to_owned(), |cwd| Path::new(cwd).join(dir));
    let text = joined.into_os_string().into_string();
    text.map_err(|_not_utf8| Stop::usage("--cwd: the directory's name is not UTF-8"))
}

pub(super) fn pair(flag: &str, text: &str) -> Result<(String, String), Stop> {
    let missing = || Stop::usage(format!("{flag}: `{}` is not NAME=VALUE", text.escape_default()));
    let (name, value) = text.split_once('=').ok_or_else(missing)?;
    Ok((name.to_owned(), value.to_owned()))
}

fn variable(text: &str) -> Result<(String, String), Stop> {
    if text.contains('=') {
        return pair("--env", text);
    }
    let unset = |_err| {
        Stop::usage(format!("--env: `{}` is not set here; write NAME=VALUE", text.escape_default()))
    };
    std::env::var(text).map(|value| (text.to_owned(), value)).map_err(unset)
}

/// A time as people write it; without a zone it is local, without a date it is the next such time.
fn moment(text: &str, now: &Zoned) -> Result<Moment, String> {
    if let Ok(moment) = text.parse::<Moment>() {
        return Ok(moment);
    }
    let zone = now.time_zone().clone();
    let from = |zoned: Zoned| Moment::from_unix_millis(zoned.timestamp().as_millisecond());
    // A lone time of day would be read as one of an unknown day.
    if text.contains('-')
        && let Ok(civil) = text.parse::<DateTime>()
    {
        return local(civil, zone).map(from);
    }
    let bad = || {
        format!(
            "`{}` is not a time; write 2026-02-07T20:45:00Z, `2026-02-07 20:45` or 20:45",
            text.escape_default()
        )
    };
    let time: Time = text.parse().map_err(|_err| bad())?;
    let today = local(now.date().to_datetime(time), zone.clone())?;
    if today >= *now {
        return Ok(from(today));
    }
    let tomorrow = now.date().saturating_add(1.day());
    local(tomorrow.to_datetime(time), zone).map(from)
}

fn local(civil: DateTime, zone: TimeZone) -> Result<Zoned, String> {
    civil.to_zoned(zone).map_err(|err| err.to_string())
}

/// Cuts `ID:any` apart; without a colon the task is to succeed. Fails at an unknown word.
pub(super) fn parse_after(text: &str) -> Result<(&str, On), String> {
    match text.rsplit_once(':') {
        Some((id, on)) => on.parse().map(|on| (id, on)),
        None => Ok((text, On::Success)),
    }
}

fn dependency(app: &App, pool: &Pool, text: &str) -> Result<After, Stop> {
    let (id, on) = parse_after(text).map_err(|err| Stop::usage(format!("--after: {err}")))?;
    let id = match lookup::find(pool.layout(), id)? {
        Ok(_named) => app.task(pool, id)?.to_string(),
        Err(miss) => return Err(Stop::usage(format!("--after: {miss}"))),
    };
    Ok(match on {
        On::Success => After::Success(id),
        On::Failure | On::Any => After::Ended { id, on },
    })
}

/// `--dry-run`: whether it could run here, as the pool is now.
fn try_out(app: &mut App, me: &Submitter, spec: Spec) -> Result<u8, Stop> {
    let resolved = app.resolve()?;
    let task = me.task(TaskId::new(), None, spec);
    check_size(&task).map_err(wrong)?;
    if !app.json() {
        app.out.line(format!("would submit: {}", summary(&task)))?;
    }
    let pool = match resolved.open() {
        Ok(pool) => pool,
        Err(failure) if failure.code == exit::NO_POOL => {
            if app.json() {
                app.out.json("check", &json!({"tasks": 1, "task": task.spec}))?;
            } else {
                app.out.line("the task is well formed; there is no pool yet")?;
            }
            return Ok(exit::OK);
        }
        Err(failure) => return Err(failure.into()),
    };
    let asked = task.spec.model.iter().filter(|_| task.spec.asks_a_model());
    if let Some(text) = known::unknown(&pool, &resolved, asked)? {
        return Err(Stop::Failure(Failure::new(exit::IMPOSSIBLE, text)));
    }
    why::dry_run(app, &pool, &resolved.settings, &task, &lane_of(&pool, &task))
}

/// A task in one line.
fn summary(task: &Task) -> String {
    let model = task.spec.model.as_ref().map(|model| format!(" for {model}")).unwrap_or_default();
    let (class, priority, name) = (task.class(), task.priority(), cut(&task.name(), 60));
    format!("{class} task `{name}`{model}, priority {priority}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_name_how_they_must_end() {
        assert_eq!(parse_after("abcd"), Ok(("abcd", On::Success)));
        assert_eq!(parse_after("abcd:any"), Ok(("abcd", On::Any)));
        assert_eq!(parse_after("abcd:failure"), Ok(("abcd", On::Failure)));
        assert!(parse_after("abcd:soon").unwrap_err().contains("success, failure, any"));
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let now: Zoned = "2026-02-07T12:00:00+01:00[Europe/Berlin]".parse().unwrap();
        let read = |text: &str| moment(text, &now).map(|moment| moment.to_string());
        assert_eq!(read("2026-02-07T20:45:00Z"), Ok("2026-02-07T20:45:00.000Z".into()));
        assert_eq!(read("2026-02-07 20:45"), Ok("2026-02-07T19:45:00.000Z".into()));
        assert_eq!(read("20:45"), Ok("2026-02-07T19:45:00.000Z".into()));
        assert_eq!(read("08:00"), Ok("2026-02-08T07:00:00.000Z".into()), "the next 8 o'clock");
        assert!(read("tomorrow").is_err());
    }
}
