//! The history: appending a line, finding lines again, following them as they come, and carrying out
//! what they say.

pub mod append;
pub mod carry_out;
pub mod follow;
pub mod lines;
pub(super) mod rejection;
pub mod search;
