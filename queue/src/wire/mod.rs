//! What processes write for each other, whatever stores it: shapes that can be serialised, and the
//! rules that follow from them alone. Nothing here touches a disk, a clock or a process.

pub mod lane;
pub mod ledger_line;
pub mod model_stats;
pub mod retry;
