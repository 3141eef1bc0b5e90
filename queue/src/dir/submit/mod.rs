//! From a checked task to a file that workers see.

pub mod keys;
pub mod one;
