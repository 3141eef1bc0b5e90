//! What processes write for each other, whatever stores it: shapes that can be serialised, and the
//! rules that follow from them alone. Nothing here touches a disk, a clock or a process.

pub mod brain_state;
pub mod brake;
pub mod completed_lately;
pub mod counts;
pub mod fate;
pub mod heartbeat;
pub mod lane;
pub mod lease_record;
pub mod ledger_line;
pub mod model_stats;
pub mod reach;
pub mod retry;
pub mod uptime;
