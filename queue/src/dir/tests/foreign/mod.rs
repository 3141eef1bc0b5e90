//! What is no task, or stands where a directory belongs, or cannot be understood: it is put aside,
//! and nobody is stopped by it.

mod put_aside;
mod rejected;
mod squatters;
