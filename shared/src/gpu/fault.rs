//! What speaks against a GPU: the driver's own words, and what follows from its silence.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Xids after which NVIDIA's catalog asks for a reset of the GPU, or of the machine. Those of links
/// between GPUs are not among them: a job of this pool has one GPU.
const XIDS: [u64; 14] = [46, 48, 62, 64, 79, 95, 109, 110, 119, 120, 140, 143, 156, 158];

/// Why a GPU cannot be worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuFault {
    /// The driver lists no such GPU.
    Missing,
    /// It has fallen off the bus.
    Lost,
    /// It answers nothing before it is reset.
    ResetRequired,
    /// What the driver wants done with it before it is used again.
    Recovery(RecoveryAction),
    /// The driver has met an error, by this number, after which it has to be reset.
    Xid(u64),
    /// Every sensor that has answered since this program was started fails.
    Unreadable,
    /// The driver has not answered for a long time.
    Silent,
}

crate::outcome::words! {
    /// What the driver wants done with a GPU.
    RecoveryAction {
        /// The GPU is to be reset.
        Reset = "reset",
        /// The machine is to be started anew.
        Reboot = "reboot",
        /// What runs on it may end; then it is to be reset.
        DrainAndReset = "drain_and_reset",
    }
}

impl RecoveryAction {
    /// From NVML's number. `None` where nothing is wanted, or nothing that concerns one GPU alone.
    #[must_use]
    pub const fn of_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Reset),
            2 => Some(Self::Reboot),
            4 => Some(Self::DrainAndReset),
            _none_or_between_gpus => None,
        }
    }
}

impl GpuFault {
    /// Of an Xid: most are a job's own mistakes, and no fault of the GPU.
    #[must_use]
    pub fn of_xid(xid: u64) -> Option<Self> {
        XIDS.contains(&xid).then_some(Self::Xid(xid))
    }

    /// The command that helps, for the GPU of this name (identity or number).
    #[must_use]
    pub fn fix(self, gpu: &str) -> String {
        match self {
            Self::ResetRequired
            | Self::Recovery(RecoveryAction::Reset | RecoveryAction::DrainAndReset)
            | Self::Xid(_) => format!("sudo nvidia-smi --gpu-reset -i {gpu}"),
            Self::Missing | Self::Unreadable | Self::Silent => "nvidia-smi -L".to_owned(),
            Self::Lost | Self::Recovery(RecoveryAction::Reboot) => "sudo reboot".to_owned(),
        }
    }
}

impl fmt::Display for GpuFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the driver lists no such GPU"),
            Self::Lost => f.write_str("it has fallen off the bus"),
            Self::ResetRequired => f.write_str("it must be reset"),
            Self::Recovery(RecoveryAction::Reset) => f.write_str("the driver asks for its reset"),
            Self::Recovery(RecoveryAction::Reboot) => {
                f.write_str("the driver asks for a restart of the machine")
            }
            Self::Recovery(RecoveryAction::DrainAndReset) => {
                f.write_str("the driver asks for its reset when nothing runs on it any more")
            }
            Self::Xid(xid) => write!(f, "Xid {xid}, after which it must be reset"),
            Self::Unreadable => f.write_str("none of its sensors can be read any more"),
            Self::Silent => f.write_str("the driver does not answer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_own_mistake_is_no_fault_of_the_gpu() {
        // An illegal address, a program that was killed.
        assert_eq!([13, 31, 43, 45].map(GpuFault::of_xid), [None; 4]);
        assert_eq!(GpuFault::of_xid(79), Some(GpuFault::Xid(79)));
        assert_eq!(RecoveryAction::of_number(0), None);
        assert_eq!(RecoveryAction::of_number(2), Some(RecoveryAction::Reboot));
    }

    #[test]
    fn a_fault_reads_what_it_writes() {
        for fault in
            [GpuFault::Lost, GpuFault::Xid(79), GpuFault::Recovery(RecoveryAction::DrainAndReset)]
        {
            let text = serde_json::to_string(&fault).unwrap();
            assert_eq!(serde_json::from_str::<GpuFault>(&text).unwrap(), fault, "{text}");
        }
        assert_eq!(serde_json::json!(GpuFault::Xid(79)), serde_json::json!({"xid": 79}));
    }
}
