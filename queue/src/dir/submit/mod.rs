//! From a checked task to a file that workers see.

pub mod bulk;
pub mod keys;
pub mod one;
pub mod staging;
