//! The command line: understood first, obeyed second. One file per command or small group; what
//! they share is here: the pool, stdout, the log, and how a command ends.

mod change;
mod look;
mod operate;
mod out;
mod submit;
mod watch;

use std::collections::HashSet;
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use queue::cli::{COMMON, Common, Failure, Resolved, size_limit};
use queue::dir::lookup::{self, Miss, Named};
use queue::{Pool, users};
use shared::exit;
use shared::id::{Incarnation, TaskId};
use shared::log::{self, LogConfig, Rotation, StderrForm};
use shared::quantity::counted;
use shared::settings::Flags;
use shared::text;

use out::{Color, Out};

/// A GPU worker pool with a brain: submit tasks, see what is where, ask why not
#[derive(Parser, Debug)]
#[command(name = "queue", version, max_term_width = 100, after_help = IDS_AND_EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    command: Command,
}

const IDS_AND_EXIT_CODES: &str = "\
Tasks are named by their id, or by any unique beginning or end of it; lists show its last eight \
digits. A batch is named the same way, or by the key it was submitted under.

Exit codes: 0 done (wait: all succeeded), 1 unexpected, 2 usage, 3 no pool, 4 nothing matched, \
5 why: blocked now, 6 why: can never run here, 75 try later (results: some have not ended), \
100 wait, results: some task did not succeed";

/// Words that every command takes.
#[derive(Args, Debug)]
pub(crate) struct Shared {
    #[command(flatten)]
    common: Common,
    /// Answer in JSON
    #[arg(long, global = true, help_heading = COMMON)]
    json: bool,
    /// Colour what people read: auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(long, value_enum, value_name = "WHEN", global = true, default_value = "auto",
          hide_possible_values = true, help_heading = COMMON)]
    color: Color,
}

#[derive(Subcommand, Debug)]
enum Command {
    Submit(Box<submit::Submit>),
    Status(look::status::PoolStatus),
    Ls(look::ls::Ls),
    Show(look::show::Show),
    Workers(look::workers::Workers),
    Gpus(look::gpus::Gpus),
    Models(look::models::Models),
    Why(look::why::Why),
    Wait(look::wait::Wait),
    Output(look::output::Output),
    Results(look::results::Results),
    Cancel(change::cancel::Cancel),
    Retry(change::hold::Retry),
    Hold(change::hold::Hold),
    Release(change::hold::Release),
    Pause(operate::control::Pause),
    Resume(operate::control::Resume),
    Drain(operate::control::Drain),
    Limit(operate::limit::Limit),
    Settle(operate::settle::Settle),
    Doctor(operate::doctor::Doctor),
    Config(operate::config::Config),
    Completions(operate::pages::Completions),
    Man(operate::pages::Man),
}

/// How a command ends before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It could not do what it should.
    Failure(Failure),
    /// Whoever read its output has seen enough.
    PipeClosed,
}

impl Stop {
    /// Stdout could not be written.
    fn stdout(err: io::Error) -> Self {
        if err.kind() == io::ErrorKind::BrokenPipe {
            return Self::PipeClosed;
        }
        Self::Failure(Failure::new(exit::UNEXPECTED, format!("could not write to stdout: {err}")))
    }

    /// The command line is wrong.
    fn usage(text: impl Into<String>) -> Self {
        Self::Failure(Failure::usage(text))
    }

    /// Nothing matches what was asked for.
    fn no_match(text: impl Into<String>) -> Self {
        Self::Failure(Failure::new(exit::NO_MATCH, text))
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<queue::Error> for Stop {
    fn from(err: queue::Error) -> Self {
        Self::Failure(err.into())
    }
}

/// What a command works with.
pub(crate) struct App {
    shared: Shared,
    out: Out,
}

impl App {
    fn json(&self) -> bool {
        self.shared.json
    }

    fn resolve(&self) -> Result<Resolved, Stop> {
        Ok(self.shared.common.resolve(&Flags::new())?)
    }

    /// The pool, for looking.
    fn open(&self) -> Result<(Pool, Resolved), Stop> {
        let resolved = self.resolve()?;
        Ok((resolved.open()?, resolved))
    }

    /// The pool, for changing it; what is done is logged.
    fn ready(&self) -> Result<(Pool, Resolved), Stop> {
        let resolved = self.resolve()?;
        let pool = resolved.open_ready()?;
        self.log(&pool, &resolved);
        Ok((pool, resolved))
    }

    /// The pool, for submitting: made where it is missing.
    fn create(&self) -> Result<(Pool, Resolved), Stop> {
        let resolved = self.resolve()?;
        let pool = resolved.create()?;
        self.log(&pool, &resolved);
        Ok((pool, resolved))
    }

    fn log(&self, pool: &Pool, resolved: &Resolved) {
        let common = &self.shared.common;
        let config = LogConfig {
            process: "queue".to_owned(),
            worker_id: None,
            incarnation: Incarnation::new(),
            stderr: if common.verbose { common.log_format.into() } else { StderrForm::Off },
            level: common.level(&resolved.settings),
        };
        // A log that cannot be written costs lines, never the command.
        if let Ok(handle) = log::init(config)
            && let Err(err) =
                handle.append_to(&pool.layout().commands_log(), Rotation::of(&resolved.settings))
        {
            warn(format!("what is done is not logged: {err}"));
        }
    }

    /// What a text names: the key of a batch, or an id.
    fn named(&self, pool: &Pool, text: &str) -> Result<Named, Stop> {
        lookup::find_named(pool.layout(), text)?.map_err(|miss| nothing_named(&miss))
    }

    /// The one task that a text names.
    fn task(&self, pool: &Pool, text: &str) -> Result<TaskId, Stop> {
        match self.named(pool, text)? {
            Named::Task(id) => Ok(id),
            Named::Batch(batch, ids) => {
                let tasks = counted(ids.len(), "task");
                let text = format!("`{batch}` is a batch of {tasks}; name one task");
                Err(Stop::no_match(text))
            }
        }
    }

    /// All tasks that these texts name, once each, in order. `-` reads texts from stdin.
    fn tasks(&self, pool: &Pool, texts: &[String]) -> Result<Vec<TaskId>, Stop> {
        let mut words = Vec::new();
        for text in texts {
            if text == "-" {
                let mut bytes = Vec::new();
                io::stdin().lock().read_to_end(&mut bytes).map_err(|err| {
                    Failure::usage(format!("could not read ids from stdin: {err}"))
                })?;
                let read = text::of(&bytes)
                    .map_err(|problem| Failure::usage(format!("what is on stdin {problem}")))?;
                words.extend(read.split_whitespace().map(str::to_owned));
            } else {
                words.push(text.clone());
            }
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (mut ids, mut seen) = (Vec::new(), HashSet::new());
        for named in lookup::find_all_named(pool.layout(), &words)? {
            let named = named.map_err(|miss| nothing_named(&miss))?;
            ids.extend(named.tasks().iter().filter(|id| seen.insert(**id)));
        }
        Ok(ids)
    }
}

fn nothing_named(miss: &Miss) -> Stop {
    let no_key = match miss {
        Miss::NoId(_) | Miss::Unknown(_) => "; no batch has this key",
        Miss::Ambiguous(..) => "",
    };
    Stop::no_match(format!("{miss}{no_key}"))
}

/// What is said of a task whose file is nowhere though history says that it has not ended.
const GONE: &str = "its file is gone from the pool, though it has not ended: somebody has removed it; \
                    submit it again if it is to run";

/// Says something to the person on stderr.
fn warn(text: impl AsRef<str>) {
    // A person who closed stderr does not want to hear it.
    let _ = writeln!(io::stderr(), "warning: {}", text.as_ref());
}

/// Tells the person on stderr what is going on.
fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", text.as_ref());
}

/// Who gives this command: `user@host`, as others will read it.
fn me() -> String {
    format!("{}@{}", user(), queue::dir::presence::lease::host_name())
}

/// The user's name, or number.
fn user() -> String {
    let named = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let known = || users::name_of(users::me());
    named.filter(|name| !name.is_empty()).unwrap_or_else(known)
}

/// Ctrl-C ends the command at once, with the code that shells use for it.
fn end_on_interrupt() {
    // Where it cannot be caught the signal's own way to end a process does.
    let _ = ctrlc::set_handler(|| std::process::exit(130));
}

/// Understands the command line, does it, and says how it went.
pub(crate) fn main() -> ExitCode {
    size_limit::survive();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => return misunderstood(&err),
    };
    let json = cli.shared.json;
    let out = Out::new(cli.shared.color);
    let mut app = App { shared: cli.shared, out };
    let result = run(&mut app, cli.command).and_then(|code| app.out.flush().map(|()| code));
    match result {
        Ok(code) => code.into(),
        Err(Stop::PipeClosed) => exit::OK.into(),
        Err(Stop::Failure(failure)) => {
            // What was said before the failure comes before it.
            drop(app);
            failed(&failure, json)
        }
    }
}

fn run(app: &mut App, command: Command) -> Result<u8, Stop> {
    match command {
        Command::Submit(command) => command.run(app),
        Command::Status(command) => command.run(app),
        Command::Ls(command) => command.run(app),
        Command::Show(command) => command.run(app),
        Command::Workers(command) => command.run(app),
        Command::Gpus(command) => command.run(app),
        Command::Models(command) => command.run(app),
        Command::Why(command) => command.run(app),
        Command::Wait(command) => command.run(app),
        Command::Output(command) => command.run(app),
        Command::Results(command) => command.run(app),
        Command::Cancel(command) => command.run(app),
        Command::Retry(command) => command.run(app),
        Command::Hold(command) => command.run(app),
        Command::Release(command) => command.run(app),
        Command::Pause(command) => command.run(app),
        Command::Resume(command) => command.run(app),
        Command::Drain(command) => command.run(app),
        Command::Limit(command) => command.run(app),
        Command::Settle(command) => command.run(app),
        Command::Doctor(command) => command.run(app),
        Command::Config(command) => command.run(app),
        Command::Completions(command) => command.run(app),
        Command::Man(command) => command.run(app),
    }
}

fn failed(failure: &Failure, json: bool) -> ExitCode {
    let line = if json {
        let fields = serde_json::json!({"error": failure.text, "code": failure.code});
        out::with_schema("error", &fields).to_string()
    } else {
        format!("error: {}", failure.text)
    };
    note(line);
    failure.code.into()
}

/// Help and version are answers; everything else is an error of usage.
fn misunderstood(err: &clap::Error) -> ExitCode {
    let before_command = std::env::args_os().take_while(|word| word != "--");
    let json = before_command.into_iter().any(|word| word == "--json");
    if err.use_stderr() && json {
        return failed(&Failure::usage(essence(&err.render().to_string())), true);
    }
    // Whoever closed the pipe has seen enough of the help.
    let _ = err.print();
    u8::try_from(err.exit_code()).unwrap_or(exit::USAGE).into()
}

/// What is wrong and what may have been meant, in one line, without the rest that is for people.
fn essence(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let for_people = |line: &&str| line.starts_with("Usage:") || line.starts_with("For more");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.take_while(|line| !for_people(line)).fold(String::new(), |told, line| {
        let between = match told.chars().last() {
            None => "",
            Some(':') => " ",
            Some(_) => "; ",
        };
        told + between + line
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn programs_read_what_is_wrong_and_not_how_to_ask_for_help() {
        let told = |words: &[&str]| essence(&Cli::try_parse_from(words).unwrap_err().to_string());
        let text = told(&["queue", "submit", "--clas", "cpu"]);
        let found = "unexpected argument '--clas' found; tip: a similar argument exists: '--class'";
        assert!(text.starts_with(found) && !text.contains('\n'), "{text}");
        let missing = "the following required arguments were not provided: <ID>";
        assert_eq!(told(&["queue", "show"]), missing);
        assert_eq!(told(&["queue", "nonsense"]), "unrecognized subcommand 'nonsense'");
    }

    #[test]
    fn what_stands_after_two_dashes_is_the_tasks_own() {
        let cli = Cli::try_parse_from(["queue", "submit", "--", "prog", "--json", "-x"]).unwrap();
        assert!(!cli.shared.json);
        assert!(Cli::try_parse_from(["queue", "submit", "prog"]).is_err());
    }
}
