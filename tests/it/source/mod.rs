//! Tests of the source and of the harness itself.

mod harness;
mod laws;
mod layout;
mod spelling;
