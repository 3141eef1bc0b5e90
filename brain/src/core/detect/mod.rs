//! What is not as it should be: one file per condition.

pub mod activity;
pub mod condition;
pub mod count_jump;
pub mod disk;
pub mod gpus;
pub mod hung;
pub mod imbalance;
pub mod stuck;
pub mod unclaimed;
pub mod unlisted;
