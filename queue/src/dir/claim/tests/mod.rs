//! A worker's look at the backlog, and what it reads before it claims.

mod cursor;
mod prefetch;
