//! The command line: words, answers, exit codes.

pub(super) mod agree;
pub(super) mod batch;
pub(super) mod exit_codes;
pub(super) mod json;
pub(super) mod llm_cli;
pub(super) mod llm_results;
pub(super) mod log_caps;
