//! Tests of the source and of the harness itself.

pub(super) mod harness;
pub(super) mod layout;
