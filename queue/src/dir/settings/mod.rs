//! Settings that are followed while the pool is open.

pub mod current_limits;
pub mod limits_edit;
