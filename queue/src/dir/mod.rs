//! The store that is a directory: the path of a task is its state.
//!
//! From below upwards: [`layout`] spells paths, [`disk`] changes and reads files, [`settings`] and
//! [`pool`] say what holds; on these stand [`ledger`], [`presence`], [`signal`] and [`mod@batch`];
//! then [`find`] and [`brake`], then [`submit`], [`claim`] and [`operate`], and [`recover`], which
//! puts right what any of them left half done. [`runs`] is what attempts left. [`lookup`] and
//! [`store`] are for whoever comes from outside.

pub mod batch;
pub mod brake;
pub mod claim;
pub mod disk;
pub(crate) mod fault;
pub mod find;
#[cfg(test)]
mod fixture;
pub mod layout;
pub mod ledger;
pub mod lookup;
pub mod operate;
pub mod pool;
pub mod presence;
pub mod recover;
#[cfg(test)]
mod round_trip;
pub mod runs;
pub mod settings;
pub mod signal;
pub mod store;
pub mod submit;
#[cfg(test)]
mod tests;

pub use pool::{Pool, Privacy, Rules};
