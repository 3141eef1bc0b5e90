//! Where tasks are, how many there are, and how they ended.

pub mod batch_ends;
pub mod counts;
pub mod dependencies;
pub mod gone;
pub mod ledger_counts;
pub mod load_requests;
pub mod places;
pub mod recent_ends;
#[cfg(test)]
mod tests;
