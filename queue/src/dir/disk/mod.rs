//! The disk below the pool: the only code that changes a file, and how files, directories and
//! locks are read.

pub mod freshness;
pub mod lane_files;
pub mod listing;
pub mod lock;
pub mod network;
pub mod owner;
pub mod place;
pub(crate) mod plain_file;
pub mod publish;
pub mod reject;
pub mod reserve;
