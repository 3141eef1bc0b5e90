//! What a death or a power cut left: put back, carried out again, released, put aside.

pub mod promote;
pub mod reconcile;
mod remains;
pub mod settle;
pub mod strays;
