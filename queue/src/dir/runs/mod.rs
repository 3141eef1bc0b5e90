//! What attempts left: run logs, which are cut when they grow too long, and read around what was
//! cut out of them.

pub mod cut;
pub mod growth;
pub mod largest;
pub mod read;
#[cfg(test)]
mod tests;
