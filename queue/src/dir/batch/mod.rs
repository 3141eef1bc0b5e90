//! Bulk submits: which tasks a batch has, and moving a committed one into place.

pub mod members;
pub mod roll_forward;
