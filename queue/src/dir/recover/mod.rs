//! What a death or a power cut left: put back, carried out again, released, put aside; and who does
//! that where there is no brain.

pub mod deputy;
pub mod promote;
pub mod reconcile;
mod remains;
pub mod settle;
pub mod strays;
