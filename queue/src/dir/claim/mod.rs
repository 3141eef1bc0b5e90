//! From a pending task to one that is being worked on.

pub mod cursor;
pub mod limit_slots;
pub mod note;
pub mod one;
pub(super) mod prefetch;
mod row;

#[cfg(test)]
mod tests;
