//! GPUs that exist only in a text file, read by every program through the fake NVIDIA library.

use std::fmt;
use std::path::PathBuf;

use crate::programs;

/// One GPU of the pretended machine. A text field may be `-` (the card does not support the
/// question), `!` (the sensor fails), `lost` or `reset` (what the driver says instead).
#[derive(Clone, Debug)]
pub struct FakeGpu {
    /// Its name for life.
    pub uuid: String,
    /// MiB.
    pub total_mib: String,
    /// MiB.
    pub used_mib: String,
    /// Percent.
    pub utilization: String,
    /// Degrees Celsius.
    pub temperature: String,
    /// Milliwatts.
    pub milliwatts: String,
    /// NVML's bits, as a hexadecimal number.
    pub throttle: String,
    /// Process ids with their MiB.
    pub processes: Vec<(u32, u64)>,
    /// The last critical error; 0 is none.
    pub xid: u32,
    /// NVML's number for what the driver wants done with the card; 0 is nothing.
    pub recovery: u32,
    /// MiB that the driver keeps for itself.
    pub reserved_mib: u32,
}

impl FakeGpu {
    /// An idle 12 GiB card.
    #[must_use]
    pub fn new(uuid: &str) -> Self {
        Self {
            uuid: uuid.into(),
            total_mib: "12288".into(),
            used_mib: "0".into(),
            utilization: "0".into(),
            temperature: "40".into(),
            milliwatts: "30000".into(),
            throttle: "0".into(),
            processes: Vec::new(),
            xid: 0,
            recovery: 0,
            reserved_mib: 0,
        }
    }
}

/// The line of the state file.
impl fmt::Display for FakeGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uuid, total_mib, used_mib, utilization, .. } = self;
        let Self { temperature, milliwatts, throttle, xid, recovery, reserved_mib, .. } = self;
        let percents = format!("{utilization} {utilization}");
        write!(f, "{uuid} {total_mib} {used_mib} {percents} {temperature} {milliwatts} 140000 ")?;
        write!(f, "{throttle} 0 0 {xid}")?;
        for (pid, mib) in &self.processes {
            write!(f, " {pid}:{mib}")?;
        }
        writeln!(f, " recovery={recovery} reserved={reserved_mib}")
    }
}

/// The fake library, which Cargo builds because `tests` depends on it.
///
/// # Panics
///
/// When it was not built.
#[must_use]
pub fn library() -> PathBuf {
    let target = programs::target();
    let places = [target.join("deps/libfake_nvml.so"), target.join("libfake_nvml.so")];
    let found = places.iter().find(|place| place.is_file());
    found
        .unwrap_or_else(|| panic!("{} is missing: build the workspace", places[0].display()))
        .clone()
}
