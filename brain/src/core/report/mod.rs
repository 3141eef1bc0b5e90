//! What the brain says of the whole pool.

pub mod monitor;
