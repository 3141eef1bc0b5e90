//! Tests of the directory store as a whole: pulled plugs, single errors, many threads, bad files.

mod beside;
mod bulk;
pub(super) mod crash;
mod foreign;
mod keep;
mod many;
pub(super) mod plug;
mod power;
mod promoter;
mod servers;
mod together;
mod turns;
