//! A reading of one GPU, in the shape that `queue gpus --json` and heartbeats show.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value from a sensor. "I don't know" is not zero: a GPU whose used memory
/// is unknown must not look like an empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading<T> {
    /// The sensor answered.
    Known(T),
    /// This GPU never answers this question.
    Unsupported,
    /// It answers as a rule, and did not this time. Also what `null` is read as.
    #[default]
    Failed,
}

impl<T> Reading<T> {
    /// The value, where there is one.
    pub fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unsupported | Self::Failed => None,
        }
    }

    /// The same without giving it away.
    pub fn as_ref(&self) -> Reading<&T> {
        match self {
            Self::Known(value) => Reading::Known(value),
            Self::Unsupported => Reading::Unsupported,
            Self::Failed => Reading::Failed,
        }
    }

    /// Another value of the same certainty.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Self::Known(value) => Reading::Known(change(value)),
            Self::Unsupported => Reading::Unsupported,
            Self::Failed => Reading::Failed,
        }
    }
}

impl<T: Copy + PartialOrd> Reading<T> {
    /// Whether it is certain that the value is at least `floor`.
    pub fn is_at_least(self, floor: T) -> bool {
        matches!(self, Self::Known(value) if value >= floor)
    }
}

impl<T: fmt::Display> fmt::Display for Reading<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => value.fmt(f),
            Self::Unsupported => f.pad("unsupported"),
            Self::Failed => f.pad("unknown"),
        }
    }
}

impl<T: Serialize> Serialize for Reading<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_ref().known().serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Reading<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Failed, Self::Known))
    }
}

/// One look at one GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GpuReading {
    /// Its number in PCI bus order, as `nvidia-smi` shows it.
    pub index: u32,
    /// Its name for life.
    pub uuid: Option<String>,
    /// The product's name.
    #[serde(default)]
    pub name: Reading<String>,
    /// Bytes of all its memory, with what the driver keeps for itself.
    #[serde(default)]
    pub memory_total: Reading<u64>,
    /// Bytes in use by anybody, without what the driver keeps for itself.
    #[serde(default)]
    pub memory_used: Reading<u64>,
    /// Bytes that the driver keeps for itself.
    #[serde(default)]
    pub memory_reserved: Reading<u64>,
    /// Percent of the last sample period in which something ran.
    #[serde(default)]
    pub utilization: Reading<u32>,
    /// Degrees Celsius, measured in the chip.
    #[serde(default)]
    pub temperature: Reading<u32>,
    /// What it draws now.
    #[serde(default)]
    pub power_watts: Reading<f64>,
    /// Why its clocks are held down: empty when they are not. Idling is no reason.
    #[serde(default)]
    pub throttle: Reading<Vec<String>>,
    /// Who computes or draws on it, each process once.
    #[serde(default)]
    pub processes: Reading<Vec<GpuProcess>>,
}

/// A process that uses a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuProcess {
    /// As the driver numbers it: inside a container not the number seen there.
    pub pid: u32,
    /// Bytes of GPU memory.
    #[serde(default)]
    pub memory: Reading<u64>,
}

impl GpuReading {
    /// A GPU that is known to be (or to have been) there, and of which nothing more could be read.
    #[must_use]
    pub fn failed(index: u32, uuid: Option<String>) -> Self {
        Self {
            index,
            uuid,
            name: Reading::Failed,
            memory_total: Reading::Failed,
            memory_used: Reading::Failed,
            memory_reserved: Reading::Failed,
            utilization: Reading::Failed,
            temperature: Reading::Failed,
            power_watts: Reading::Failed,
            throttle: Reading::Failed,
            processes: Reading::Failed,
        }
    }

    /// Bytes that nobody uses.
    #[must_use]
    pub fn memory_free(&self) -> Reading<u64> {
        match (self.memory_total, self.memory_used) {
            (Reading::Known(total), Reading::Known(used)) => {
                Reading::Known(total.saturating_sub(used))
            }
            (Reading::Unsupported, _) | (_, Reading::Unsupported) => Reading::Unsupported,
            (Reading::Failed, _) | (_, Reading::Failed) => Reading::Failed,
        }
    }

    /// Which of its sensors answered: memory, load, temperature, power, throttling.
    #[must_use]
    pub fn sensors(&self) -> Sensors {
        fn answered<T>(reading: &Reading<T>) -> bool {
            matches!(reading, Reading::Known(_))
        }
        Sensors([
            answered(&self.memory_used),
            answered(&self.utilization),
            answered(&self.temperature),
            answered(&self.power_watts),
            answered(&self.throttle),
        ])
    }

    /// Bytes that these processes hold together.
    #[must_use]
    pub fn memory_of(&self, pids: &BTreeSet<u32>) -> Reading<u64> {
        memory_of(self.processes.as_ref().map(Vec::as_slice), pids, Sight::OfThisMachine)
    }
}

/// Which sensors of a GPU answered. By default none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sensors([bool; 5]);

impl Sensors {
    /// Whether none did.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Those that answered here, or there.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(std::array::from_fn(|sensor| self.0[sensor] || other.0[sensor]))
    }
}

/// Whose process numbers can be looked up.
#[derive(Clone, Copy, Debug)]
enum Sight {
    /// Those of `/proc`.
    OfThisMachine,
    /// Exactly these, for tests.
    #[cfg(test)]
    Only(&'static [u32]),
}

impl Sight {
    fn sees(self, pid: u32) -> bool {
        match self {
            Self::OfThisMachine => std::fs::metadata(format!("/proc/{pid}")).is_ok(),
            #[cfg(test)]
            Self::Only(pids) => pids.contains(&pid),
        }
    }
}

/// The sum for `pids`. Not finding them is zero only where the driver's numbers are ours: inside
/// a container it tells those of the host, and then "none of mine" means "I cannot tell".
fn memory_of(
    processes: Reading<&[GpuProcess]>,
    pids: &BTreeSet<u32>,
    sight: Sight,
) -> Reading<u64> {
    let processes = match processes {
        Reading::Known(processes) => processes,
        Reading::Unsupported => return Reading::Unsupported,
        Reading::Failed => return Reading::Failed,
    };
    let mut mine = processes.iter().filter(|process| pids.contains(&process.pid)).peekable();
    if mine.peek().is_none() && processes.iter().any(|process| !sight.sees(process.pid)) {
        return Reading::Failed;
    }
    let mut sum = 0;
    for process in mine {
        match process.memory {
            Reading::Known(bytes) => sum += bytes,
            Reading::Unsupported => return Reading::Unsupported,
            Reading::Failed => return Reading::Failed,
        }
    }
    Reading::Known(sum)
}

/// The most memory seen in a row of samples; samples that failed do not lower it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeakMemory(Reading<u64>);

impl PeakMemory {
    /// Takes in one more sample.
    pub fn add(&mut self, sample: Reading<u64>) {
        self.0 = match (self.0, sample) {
            (Reading::Known(peak), Reading::Known(now)) => Reading::Known(peak.max(now)),
            (Reading::Known(peak), Reading::Unsupported | Reading::Failed) => Reading::Known(peak),
            (Reading::Unsupported | Reading::Failed, sample) => sample,
        };
    }

    /// Bytes; unknown while no sample succeeded.
    #[must_use]
    pub fn value(self) -> Reading<u64> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(pid: u32, memory: Reading<u64>) -> GpuProcess {
        GpuProcess { pid, memory }
    }

    #[test]
    fn room_that_nobody_measured_is_not_room() {
        assert!(Reading::Known(8_000).is_at_least(6_000));
        assert!(!Reading::Failed.is_at_least(0));
        assert!(!Reading::Unsupported.is_at_least(0));
        let mut gpu = GpuReading::failed(0, None);
        gpu.memory_total = Reading::Known(8_000);
        assert_eq!(gpu.memory_free(), Reading::Failed);
        gpu.memory_used = Reading::Known(3_000);
        assert_eq!(gpu.memory_free(), Reading::Known(5_000));
    }

    #[test]
    fn unknown_is_null_and_null_is_unknown() {
        let mut gpu = GpuReading::failed(3, Some("GPU-3".into()));
        gpu.power_watts = Reading::Known(0.5);
        gpu.temperature = Reading::Unsupported;
        gpu.processes = Reading::Known(vec![uses(7, Reading::Unsupported)]);
        let json = serde_json::to_value(&gpu).unwrap();
        let expected = serde_json::json!({
            "index": 3, "uuid": "GPU-3", "name": null, "memory_total": null, "memory_used": null,
            "memory_reserved": null,
            "utilization": null, "temperature": null, "power_watts": 0.5, "throttle": null,
            "processes": [{"pid": 7, "memory": null}],
        });
        assert_eq!(json, expected);
        let back: GpuReading = serde_json::from_value(json).unwrap();
        assert_eq!(back.temperature, Reading::Failed);
        assert_eq!(back.power_watts, Reading::Known(0.5));
    }

    #[test]
    fn the_memory_of_a_job_is_the_sum_over_its_processes() {
        let all =
            [uses(1, Reading::Known(10)), uses(2, Reading::Known(20)), uses(3, Reading::Known(40))];
        let sight = Sight::Only(&[1, 2, 3]);
        let sum =
            |pids: &[u32]| memory_of(Reading::Known(&all), &pids.iter().copied().collect(), sight);
        assert_eq!(sum(&[1, 3, 9]), Reading::Known(50));
        assert_eq!(sum(&[9]), Reading::Known(0));
    }

    #[test]
    fn numbers_of_another_machine_are_not_zero() {
        let host = [uses(900_001, Reading::Known(10))];
        let mine = BTreeSet::from([5]);
        let sight = Sight::Only(&[5]);
        assert_eq!(memory_of(Reading::Known(&host), &mine, sight), Reading::Failed);
        let untold = [uses(5, Reading::Unsupported)];
        assert_eq!(memory_of(Reading::Known(&untold), &mine, sight), Reading::Unsupported);
    }

    #[test]
    fn a_failed_sample_does_not_lower_the_peak() {
        let mut peak = PeakMemory::default();
        assert_eq!(peak.value(), Reading::Failed);
        for sample in [Reading::Unsupported, Reading::Known(5), Reading::Failed, Reading::Known(3)]
        {
            peak.add(sample);
        }
        assert_eq!(peak.value(), Reading::Known(5));
    }
}
