//! What the three programs have in common on their command line: the words that all of them take,
//! and the way from there to an opened pool. Parsing opens nothing; [`Common::resolve`] meets the
//! world, once.

pub mod as_owner;
pub mod servers;
pub mod size_limit;

use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use shared::event::Level;
use shared::exit;
use shared::log::StderrForm;
use shared::settings::{self, Flags, GroupPool, Settings};

use crate::Error;
use crate::dir::disk::owner;
use crate::dir::layout::Layout;
use crate::dir::pool::{default_acl, marker};
use crate::dir::recover::reconcile::ready;
use crate::dir::{Pool, Privacy, Rules};
use crate::error::{help, is_shortage};

/// Under which heading the help lists the words that every program and command takes.
pub const COMMON: &str = "Common options";

/// Words that all programs take.
#[derive(Args, Clone, Debug, Default)]
pub struct Common {
    /// The pool's directory [default: $BRAINSTEM_POOL, else ~/.local/state/brainstem]
    #[arg(long, value_name = "DIR", global = true, help_heading = COMMON)]
    pub pool: Option<PathBuf>,
    /// Say more: every look for work, every race, every heartbeat
    #[arg(long, short, global = true, help_heading = COMMON)]
    pub verbose: bool,
    /// The form of the log on stderr: text or json
    #[arg(long, value_enum, value_name = "FORM", global = true, default_value = "text",
          hide_possible_values = true, help_heading = COMMON)]
    pub log_format: LogFormat,
}

/// The form of log lines on stderr.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

impl From<LogFormat> for StderrForm {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// Why a program ends without having done what it should: a sentence and an exit code.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// One of [`shared::exit`].
    pub code: u8,
    /// What went wrong, and what to do about it.
    pub text: String,
}

impl Failure {
    /// A failure with this exit code.
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Something that a program needs to begin could not be had; `what` follows "could not".
    #[must_use]
    pub fn at_start(what: &str, err: &std::io::Error) -> Self {
        let code = if is_shortage(err) { exit::TRY_LATER } else { exit::UNEXPECTED };
        Self::new(code, format!("could not {what}: {err}{}", help(err)))
    }

    /// The command line, a setting or a file given by the user is wrong.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(exit::USAGE, text)
    }
}

impl From<Error> for Failure {
    fn from(err: Error) -> Self {
        let code = match &err {
            Error::NoPool(_)
            | Error::NotYours { .. }
            | Error::Newer { .. }
            | Error::Unfit { .. } => exit::NO_POOL,
            Error::DiskFull { .. } | Error::Held { .. } => exit::TRY_LATER,
            Error::Io { err, .. } if is_shortage(err) => exit::TRY_LATER,
            Error::Io { .. } | Error::Garbled { .. } | Error::NewerTask { .. } => exit::UNEXPECTED,
        };
        let text = match &err {
            Error::NotYours { path, owner, .. } => {
                format!("{err}; as its owner: `{}`", as_owner::command(path, *owner))
            }
            Error::Io { .. } if err.io_kind() == Some(ErrorKind::PermissionDenied) => {
                format!("{err}; `queue doctor` finds wrong owners and modes in a pool")
            }
            Error::NoPool(_)
            | Error::Newer { .. }
            | Error::NewerTask { .. }
            | Error::Unfit { .. }
            | Error::DiskFull { .. }
            | Error::Held { .. }
            | Error::Io { .. }
            | Error::Garbled { .. } => err.to_string(),
        };
        Self::new(code, text)
    }
}

/// Where the pool is and how it is set up.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The pool's directory, as it was given, perhaps relative; it may not exist yet.
    pub root: PathBuf,
    /// What named that directory: the flag, a variable, or nobody, so that it is the default.
    pub origin: settings::Origin,
    /// What holds for this process: flag over environment over `pool.toml` over default.
    pub settings: Settings,
}

impl Common {
    /// Reads environment and `pool.toml`. `flags` are the settings given on the command line.
    pub fn resolve(&self, flags: &Flags<'_>) -> Result<Resolved, Failure> {
        let environment = variable;
        require_text()?;
        let (root, origin) = settings::pool_dir(self.pool.as_deref(), environment)
            .map_err(|err| Failure::new(exit::NO_POOL, err.to_string()))?;
        // Said here, or the first file that is looked for in it would be the one to complain.
        if std::fs::metadata(&root).is_ok_and(|meta| !meta.is_dir()) {
            let text = format!("`{}` cannot be a pool: it is not a directory", root.display());
            return Err(Failure::new(exit::NO_POOL, text));
        }
        let settings = Settings::load(&root.join("pool.toml"), environment, flags)
            .map_err(|err| what_is_wrong(&root, &err))?;
        Ok(Resolved { root, origin, settings })
    }

    /// From which level on things are said.
    #[must_use]
    pub fn level(&self, settings: &Settings) -> Level {
        if self.verbose { Level::Debug } else { settings.log_level }
    }
}

/// The value of a variable, where it has one.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// An error where a variable that decides which pool is meant, or how, is not UTF-8: to pass over it
/// would be to work in another pool.
pub fn require_text() -> Result<(), Failure> {
    let is_ours =
        |name: &str| name.starts_with("BRAINSTEM_") || matches!(name, "XDG_STATE_HOME" | "HOME");
    let garbled = std::env::vars_os().find_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| is_ours(name))?;
        value.to_str().is_none().then_some((name, value))
    });
    let Some((name, value)) = garbled else { return Ok(()) };
    let text = format!(
        "{name} is not UTF-8, so it is not known what it means: {}; unset it, or name the pool \
         with --pool",
        value.display()
    );
    Err(Failure::new(exit::USAGE, text))
}

impl Resolved {
    /// Opens the pool, which must be there, for looking.
    pub fn open(&self) -> Result<Pool, Failure> {
        Ok(Pool::open(&self.root, Rules::from(&self.settings))?)
    }

    /// Opens the pool, which must be there, for changing it.
    pub fn open_ready(&self) -> Result<Pool, Failure> {
        let pool = self.open()?;
        self.share();
        Ok(ready(pool)?)
    }

    /// Opens the pool for changing it, making it where it is missing.
    pub fn create(&self) -> Result<Pool, Failure> {
        let privacy = match self.settings.group_pool {
            GroupPool::Private => Privacy::Owner,
            GroupPool::Shared => Privacy::Group,
        };
        self.share();
        Ok(ready(Pool::create(&self.root, Rules::from(&self.settings), privacy)?)?)
    }

    /// What is made in a group's pool is the group's, whatever the user's umask. One that is made
    /// anew sees to that itself.
    fn share(&self) {
        let is_groups = |meta: Metadata| Privacy::of(&meta) == Privacy::Group;
        if std::fs::metadata(&self.root).is_ok_and(is_groups) {
            default_acl::share(&self.root);
        }
    }
}

/// The settings of a newer pool may be none that are known here, and those of somebody else's cannot
/// be read: then that is what is wrong.
fn what_is_wrong(root: &Path, err: &settings::BadSettings) -> Failure {
    let is_closed = std::fs::File::open(Layout::new(root).settings_file())
        .is_err_and(|err| err.kind() == ErrorKind::PermissionDenied);
    match (marker::read(&Layout::new(root)), owner::require(root)) {
        (Err(newer @ Error::Newer { .. }), _) => newer.into(),
        (_, Err(not_yours)) if is_closed => not_yours.into(),
        (_, _) => Failure::usage(err.to_string()),
    }
}
