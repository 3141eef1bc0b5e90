//! Tests of the directory store as a whole: pulled plugs, single errors, many threads, bad files.

mod beside;
mod bulk;
pub(super) mod crash;
mod keep;
mod many;
pub(super) mod plug;
mod power;
mod promoter;
mod put_aside;
mod servers;
mod squatters;
mod together;
mod turns;
