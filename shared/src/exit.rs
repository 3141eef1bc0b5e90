//! The exit codes of every program here. Scripts may rely on them.

/// All went well; for `wait`: every task succeeded.
pub const OK: u8 = 0;
/// A bug, or an error nobody foresaw.
pub const UNEXPECTED: u8 = 1;
/// The command line, a setting or a batch file is wrong; nothing was done.
pub const USAGE: u8 = 2;
/// There is no pool here, or it cannot be reached.
pub const NO_POOL: u8 = 3;
/// Nothing matched what was asked for.
pub const NO_MATCH: u8 = 4;
/// `why`: blocked now, will run.
pub const BLOCKED: u8 = 5;
/// `why`, `submit --dry-run`: can never run here.
pub const IMPOSSIBLE: u8 = 6;
/// Try later. From a job: not ready, give the task back.
pub const TRY_LATER: u8 = 75;
/// `wait`: some task failed or was cancelled.
pub const TASK_FAILED: u8 = 100;
