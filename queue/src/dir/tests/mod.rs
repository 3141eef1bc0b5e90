//! Tests of the directory store as a whole: pulled plugs, single errors, many threads, bad files.

mod beside;
mod crash;
mod keep;
mod many;
mod plug;
mod power;
mod promoter;
mod put_aside;
mod rejected;
mod servers;
mod squatters;
mod together;
mod turns;
