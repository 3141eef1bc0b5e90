//! The table of all settings: name, kind, variables that set it, default, what it does.
//!
//! The first variable is the project's own; the others are names that users know from elsewhere.

use std::path::PathBuf;

use super::kinds::{BasePort, GroupPool, Limits, Setting, StallTimeouts};
use super::{BadSettings, Origin, Row, Sources};
use crate::event::Level;
use crate::log_cap::LogCap;
use crate::quantity::{Bytes, Span};
use crate::task::BrakeUse;

macro_rules! settings {
    ($($name:ident: $kind:ty = $default:expr, [$($variable:literal),+], $about:literal;)+) => {
        /// The settings of a pool, and where each came from.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings {
            $(#[doc = $about] pub $name: $kind,)+
            origins: Vec<Origin>,
        }

        impl Settings {
            /// The names of all settings, as in `pool.toml`.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// The environment variables that set them, per setting, in the same order.
            pub const VARIABLES: &'static [&'static [&'static str]] = &[$(&[$($variable),+]),+];

            /// Every setting with its value, where that came from, and what it does.
            #[must_use]
            pub fn explain(&self) -> Vec<Row> {
                let mut origins = self.origins.iter();
                vec![$(Row {
                    name: stringify!($name),
                    value: self.$name.show(),
                    line: super::line(stringify!($name), self.$name.toml()),
                    origin: origins.next().cloned().unwrap_or(Origin::Default),
                    about: $about,
                }),+]
            }

            /// Where the value of a setting came from.
            #[must_use]
            pub fn origin(&self, name: &str) -> Option<&Origin> {
                let index = Self::NAMES.iter().position(|known| *known == name)?;
                self.origins.get(index)
            }

            pub(super) fn gather(sources: &Sources<'_>) -> Result<Self, BadSettings> {
                let mut origins = Vec::with_capacity(Self::NAMES.len());
                Ok(Self {
                    $($name: {
                        let (value, origin) =
                            sources.find(stringify!($name), &[$($variable),+], $default)?;
                        origins.push(origin);
                        value
                    },)+
                    origins,
                })
            }
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($name: $default,)+ origins: vec![Origin::Default; Self::NAMES.len()] }
            }
        }
    };
}

settings! {
    heartbeat_interval: Span = Span::seconds(20), ["BRAINSTEM_HEARTBEAT_INTERVAL", "HEARTBEAT_INTERVAL"],
        "How often a worker writes its heartbeat when nothing changes.";
    heartbeat_warn: Span = Span::seconds(60), ["BRAINSTEM_HEARTBEAT_WARN"],
        "A live worker whose heartbeat has not moved for so long is reported as hung.";
    stuck_after: Span = Span::seconds(300), ["BRAINSTEM_STUCK_AFTER"],
        "A running task without progress for so long is reported as stuck.";
    stall_timeout: StallTimeouts = StallTimeouts::default(), ["BRAINSTEM_STALL_TIMEOUT"],
        "Per class: a running task without progress for so long is ended and tried again.";
    unclaimed_after: Span = Span::seconds(10), ["BRAINSTEM_UNCLAIMED_AFTER"],
        "A task that an idle worker could take and nobody takes for so long is reported.";
    monitor_interval: Span = Span::seconds(30), ["BRAINSTEM_MONITOR_INTERVAL"],
        "How often the MONITOR line is said when nothing changes.";
    idle_poll: Span = Span::seconds(5), ["BRAINSTEM_IDLE_POLL"],
        "The longest an idle worker waits before it looks again.";
    poll_without_notify: Span = Span::seconds(1), ["BRAINSTEM_POLL_WITHOUT_NOTIFY"],
        "The same where the file system cannot notify.";
    grace_period: Span = Span::seconds(10), ["BRAINSTEM_GRACE_PERIOD"],
        "From TERM to KILL when a job is ended, unless its task says otherwise.";
    shutdown_grace: Span = Span::seconds(10), ["BRAINSTEM_SHUTDOWN_GRACE"],
        "How long a stopping worker lets its jobs finish before it ends them.";
    max_attempts: u32 = 3, ["BRAINSTEM_MAX_ATTEMPTS"],
        "A task that failed so often is not tried again, unless it says otherwise.";
    poison_deaths: u32 = 3, ["BRAINSTEM_POISON_DEATHS"],
        "A task during which so many workers died is not tried again.";
    retry_backoff_first: Span = Span::seconds(1), ["BRAINSTEM_RETRY_BACKOFF_FIRST"],
        "The wait before a failed task is tried again; doubles each time.";
    retry_backoff_max: Span = Span::seconds(300), ["BRAINSTEM_RETRY_BACKOFF_MAX"],
        "That wait grows no longer than this.";
    complete_only: bool = false, ["BRAINSTEM_COMPLETE_ONLY"],
        "An answer that was cut, is empty or was filtered is a failure of its task.";
    brake: BrakeUse = BrakeUse::On, ["BRAINSTEM_BRAKE"],
        "Whether many failures in a row that are alike hold back the rest of a batch; `off`: never.";
    limits: Limits = Limits::default(), ["BRAINSTEM_LIMITS"],
        "How many tasks of one user, label or model may run at once.";
    ollama_base_port: BasePort = BasePort::DEFAULT, ["BRAINSTEM_OLLAMA_BASE_PORT"],
        "Workers that the brain starts look for Ollama at this port and the number of their GPU; `off`: they have no server.";
    api_key_file: Option<PathBuf> = None, ["BRAINSTEM_API_KEY_FILE"],
        "The file with the key that OpenAI-compatible model servers ask for; only its owner may read it.";
    api_key_variable: String = "BRAINSTEM_API_KEY".to_owned(), ["BRAINSTEM_API_KEY_VARIABLE"],
        "The environment variable with that key, where no file is named.";
    server_poll: Span = Span::seconds(5), ["BRAINSTEM_SERVER_POLL"],
        "How often an idle worker asks its model server what it holds.";
    canary_interval: Span = Span::seconds(60), ["BRAINSTEM_CANARY_INTERVAL"],
        "How often an idle worker has each loaded model answer one token.";
    canary_patience: Span = Span::seconds(30), ["BRAINSTEM_CANARY_PATIENCE"],
        "How long that one token may take; a server that fails twice is called wedged.";
    answer_idle_timeout: Span = Span::seconds(300), ["BRAINSTEM_ANSWER_IDLE_TIMEOUT"],
        "A model server that sends nothing for so long in the midst of a request has failed it.";
    load_timeout: Span = Span::seconds(600), ["BRAINSTEM_LOAD_TIMEOUT"],
        "A model that is not loaded after so long counts as not loadable.";
    self_load_after: Span = Span::seconds(60), ["BRAINSTEM_SELF_LOAD_AFTER"],
        "Without a brain for so long an idle worker loads and unloads models for itself.";
    log_level: Level = Level::Info, ["BRAINSTEM_LOG_LEVEL", "DB_LOG_LEVEL"],
        "What matters less than this is not logged.";
    log_cap: LogCap = LogCap::At(Bytes(100_000_000)), ["BRAINSTEM_LOG_CAP"],
        "How much of what a job prints is kept, its beginning and its end; at most a tenth of the disk; `none`: all of it.";
    log_rotate_size: Bytes = Bytes(100_000_000), ["BRAINSTEM_LOG_ROTATE_SIZE"],
        "A log file larger than this is rotated.";
    log_keep: u32 = 10, ["BRAINSTEM_LOG_KEEP"],
        "So many rotated log files of a process are kept.";
    min_workers: Option<u32> = None, ["BRAINSTEM_MIN_WORKERS", "MIN_ACTIVE_GPUS"],
        "The fewest workers the brain keeps; by default one per GPU.";
    max_workers: Option<u32> = None, ["BRAINSTEM_MAX_WORKERS", "MAX_ACTIVE_GPUS"],
        "The most workers the brain starts; by default one per GPU.";
    scale_up_multiplier: f64 = 1.0, ["BRAINSTEM_SCALE_UP_MULTIPLIER", "SCALE_UP_MULTIPLIER"],
        "Workers wanted per task that could run.";
    restart_backoff_first: Span = Span::seconds(1), ["BRAINSTEM_RESTART_BACKOFF_FIRST"],
        "The wait before a crashed worker is started again; doubles each time.";
    restart_backoff_max: Span = Span::seconds(60), ["BRAINSTEM_RESTART_BACKOFF_MAX"],
        "That wait grows no longer than this.";
    breaker_failures: u32 = 5, ["BRAINSTEM_BREAKER_FAILURES"],
        "A worker that crashed so often within breaker_window is not started again.";
    breaker_window: Span = Span::seconds(300), ["BRAINSTEM_BREAKER_WINDOW"],
        "The time within which breaker_failures are counted.";
    max_wait: Span = Span::seconds(600), ["BRAINSTEM_MAX_WAIT"],
        "A task whose model is nowhere loaded waits no longer than this for other models' batches.";
    min_residency: Span = Span::seconds(30), ["BRAINSTEM_MIN_RESIDENCY"],
        "A model that has work is not unloaded for another one before this.";
    loads_at_once: Option<u32> = None, ["BRAINSTEM_LOADS_AT_ONCE"],
        "The most models that are loaded at once on one host; by default as many as there are servers.";
    load_warn: Span = Span::seconds(60), ["BRAINSTEM_LOAD_WARN"],
        "A load that was asked for and has not begun after so long is reported.";
    vram_reserve: Bytes = Bytes(512 << 20), ["BRAINSTEM_VRAM_RESERVE"],
        "GPU memory that is left free beside models.";
    gpu_quarantine_first: Span = Span::seconds(30), ["BRAINSTEM_GPU_QUARANTINE_FIRST"],
        "A GPU that the driver speaks against, or that cannot be read any more, is out of use for so long at least; doubles with each relapse.";
    gpu_quarantine_max: Span = Span::seconds(600), ["BRAINSTEM_GPU_QUARANTINE_MAX"],
        "That time grows no longer than this.";
    gpu_soft_limit: u32 = 80, ["BRAINSTEM_GPU_SOFT_LIMIT"],
        "A GPU of so many degrees Celsius is given nothing new.";
    gpu_hard_limit: u32 = 90, ["BRAINSTEM_GPU_HARD_LIMIT"],
        "A GPU of so many degrees Celsius is reported loudly.";
    gpu_resume_below: u32 = 4, ["BRAINSTEM_GPU_RESUME_BELOW"],
        "So many degrees below a limit it counts as no longer reached.";
    reserve_size: Bytes = Bytes(64 << 20), ["BRAINSTEM_RESERVE_SIZE"],
        "The file that is given up when the disk is full, so that the pool can go on.";
    disk_low: Bytes = Bytes(64 << 20), ["BRAINSTEM_DISK_LOW"],
        "With less free disk than this new tasks are refused.";
    group_pool: GroupPool = GroupPool::Private, ["BRAINSTEM_GROUP_POOL"],
        "Whether the owner's group may use the pool too.";
}
