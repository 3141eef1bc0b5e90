//! Commands that show something and change nothing.

pub(super) mod flaws;
pub(super) mod gpus;
pub(super) mod ls;
pub(super) mod models;
pub(super) mod output;
pub(super) mod results;
pub(super) mod show;
pub(super) mod status;
pub(super) mod wait;
pub(super) mod why;
pub(super) mod workers;
