//! The store that is a directory: the path of a task is its state.

mod ahead;
pub mod census;
pub mod claim;
pub mod control;
pub mod cursor;
pub mod depend;
pub mod doorbell;
mod fault;
pub mod finish;
pub mod history;
pub mod keys;
pub mod layout;
pub mod lease;
pub mod limit;
pub mod limits;
pub(crate) mod lines;
pub mod listing;
pub mod lock;
pub mod network;
pub mod person;
pub mod places;
pub(crate) mod plain;
pub mod pool;
pub mod pool_toml;
pub mod promote;
pub mod publish;
pub mod reconcile;
pub mod reject;
pub mod reserve;
pub mod roll;
pub mod settle;
mod stamp;
pub mod state;
pub mod submit;
#[cfg(test)]
pub(crate) mod tests;
pub mod tidy;

pub use pool::{Pool, Privacy, Rules};
