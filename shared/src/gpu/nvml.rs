//! Asks NVIDIA's management library, which is loaded while the program runs: a machine without it
//! is an ordinary machine.
//!
//! Nothing here keeps a handle: every look finds its GPU again, so a GPU that fell off the bus
//! spoils its own readings and no others, and one that comes back is read again. What was once
//! seen stays listed, because a GPU that is gone is news, not a shorter list.

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::sync::{Mutex, PoisonError};

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};

use super::reading::{GpuProcess, GpuReading, Reading, Sight, memory_of};

/// Where NVIDIA's drivers put it.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// Names another library, above all the one of the tests.
const VARIABLE: &str = "BRAINSTEM_NVML";

/// Why the GPUs of this machine cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NoGpus {
    /// An ordinary machine without NVIDIA's software.
    #[error("no NVIDIA library on this machine ({library})")]
    NoLibrary {
        /// What was looked for.
        library: String,
    },
    /// The library is there and finds no driver: not loaded, or not let into this container.
    #[error("the NVIDIA library ({library}) is here, but no driver is loaded")]
    NoDriver {
        /// The name or path of the library that was loaded.
        library: String,
    },
    /// Its file is there and is no library, lacks another one that it needs, or does not start.
    #[error("could not start the NVIDIA library ({library}): {because}")]
    Broken {
        /// The name or path of the library that was tried.
        library: String,
        /// What the loader, or the library itself, said.
        because: NvmlError,
    },
}

impl NoGpus {
    fn new(library: &OsStr, error: NvmlError) -> Self {
        let library = library.to_string_lossy().into_owned();
        if matches!(error, NvmlError::DriverNotLoaded) {
            return Self::NoDriver { library };
        }
        // The loader has no codes, only words; a missing *dependency* of the library begins
        // with that one's name and is no missing library.
        let absent = matches!(&error, NvmlError::LibloadingError(error) if {
            let text = error.to_string();
            text.starts_with(&library) && text.contains("No such file or directory")
        });
        if absent { Self::NoLibrary { library } } else { Self::Broken { library, because: error } }
    }
}

/// How a GPU is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// By its number in PCI bus order.
    Index(u32),
    /// By its name for life.
    Uuid(&'a str),
}

/// A GPU that was there once.
#[derive(Clone, Debug)]
struct Seen {
    index: u32,
    uuid: String,
}

/// The GPUs of this machine.
#[derive(Debug)]
pub struct Gpus {
    nvml: Nvml,
    seen: Mutex<Vec<Seen>>,
}

impl Gpus {
    /// Loads the library: the one given, else the one that `$BRAINSTEM_NVML` names, else NVIDIA's.
    ///
    /// # Errors
    ///
    /// When there is none, or it does not work here.
    pub fn open(library: Option<&OsStr>) -> Result<Self, NoGpus> {
        let named = env::var_os(VARIABLE).filter(|name| !name.is_empty());
        let library =
            library.map(OsStr::to_owned).or(named).unwrap_or_else(|| OsString::from(LIBRARY));
        let nvml = Nvml::builder()
            .lib_path(&library)
            .init()
            .map_err(|error| NoGpus::new(&library, error))?;
        let gpus = Self { nvml, seen: Mutex::default() };
        gpus.list(); // whoever is lost later was seen now
        Ok(gpus)
    }

    /// One look at every GPU there is, and at every one that was there since this was opened.
    pub fn list(&self) -> Vec<GpuReading> {
        let count = self.nvml.device_count().unwrap_or(0);
        let mut all: Vec<_> = (0..count).map(|index| self.read_at(index)).collect();
        for lost in self.seen().into_iter() {
            if !all.iter().any(|gpu| gpu.uuid.as_ref() == Some(&lost.uuid)) {
                all.push(GpuReading::failed(lost.index, Some(lost.uuid)));
            }
        }
        all.sort_by_key(|gpu| gpu.index);
        all
    }

    /// One look at one GPU; nothing when there never was such a one.
    pub fn read(&self, which: Which<'_>) -> Option<GpuReading> {
        if let Ok(device) = self.find(which) {
            return Some(self.look(&device, which));
        }
        let mut seen = self.seen().into_iter();
        let lost = seen.find(|seen| match which {
            Which::Index(index) => seen.index == index,
            Which::Uuid(uuid) => seen.uuid == uuid,
        });
        lost.map(|lost| GpuReading::failed(lost.index, Some(lost.uuid)))
    }

    /// The name for life of the GPU with this number, also of one that is lost.
    pub fn uuid_of(&self, index: u32) -> Option<String> {
        let now = self.nvml.device_by_index(index).and_then(|device| device.uuid());
        now.ok().or_else(|| {
            self.seen().into_iter().find(|seen| seen.index == index).map(|seen| seen.uuid)
        })
    }

    /// Bytes that these processes hold on one GPU. Cheaper than a whole reading: for sampling.
    pub fn memory_of(&self, which: Which<'_>, pids: &BTreeSet<u32>) -> Reading<u64> {
        let processes = match self.find(which) {
            Ok(device) => processes(&device),
            Err(error) => reading(Err(error)),
        };
        memory_of(processes.as_ref().map(Vec::as_slice), pids, Sight::OfThisMachine)
    }

    fn find(&self, which: Which<'_>) -> Result<Device<'_>, NvmlError> {
        match which {
            Which::Index(index) => self.nvml.device_by_index(index),
            Which::Uuid(uuid) => self.nvml.device_by_uuid(uuid),
        }
    }

    fn read_at(&self, index: u32) -> GpuReading {
        match self.find(Which::Index(index)) {
            Ok(device) => self.look(&device, Which::Index(index)),
            // A lost GPU still counts; the driver does not even hand out its handle.
            Err(_lost) => GpuReading::failed(index, self.uuid_of(index)),
        }
    }

    fn look(&self, device: &Device<'_>, which: Which<'_>) -> GpuReading {
        let before = |seen: &Seen| match which {
            Which::Index(index) => seen.index == index,
            Which::Uuid(uuid) => seen.uuid == uuid,
        };
        let before = self.seen().into_iter().find(before);
        let index = device.index().ok().or(match which {
            Which::Index(index) => Some(index),
            Which::Uuid(_) => before.as_ref().map(|seen| seen.index),
        });
        let index = index.unwrap_or(u32::MAX);
        let uuid = device.uuid().ok().or(before.map(|seen| seen.uuid));
        if let Some(uuid) = &uuid {
            self.remember(index, uuid);
        }
        let memory = reading(device.memory_info());
        GpuReading {
            index,
            uuid,
            name: reading(device.name()),
            memory_total: memory.as_ref().map(|memory| memory.total),
            memory_used: memory.map(|memory| memory.used),
            utilization: reading(device.utilization_rates()).map(|rates| rates.gpu),
            temperature: reading(device.temperature(TemperatureSensor::Gpu)),
            power_watts: reading(device.power_usage()).map(|milli| f64::from(milli) / 1000.0),
            throttle: reading(device.current_throttle_reasons()).map(words),
            processes: processes(device),
        }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, index: u32, uuid: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.iter_mut().find(|seen| seen.uuid == uuid) {
            Some(known) => known.index = index,
            None => seen.push(Seen { index, uuid: uuid.to_owned() }),
        }
    }
}

/// A library or a GPU that does not know the question never will; any other error may pass.
fn reading<T>(answer: Result<T, NvmlError>) -> Reading<T> {
    match answer {
        Ok(value) => Reading::Known(value),
        Err(
            NvmlError::NotSupported
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::FunctionNotFound,
        ) => Reading::Unsupported,
        Err(_other) => Reading::Failed,
    }
}

/// Those that compute and those that draw; one that does both is listed by the driver twice.
fn processes(device: &Device<'_>) -> Reading<Vec<GpuProcess>> {
    let drawing = device.running_graphics_processes().unwrap_or_default();
    reading(device.running_compute_processes()).map(|mut all| {
        for process in drawing {
            if !all.iter().any(|known| known.pid == process.pid) {
                all.push(process);
            }
        }
        all.into_iter().map(process).collect()
    })
}

fn process(info: ProcessInfo) -> GpuProcess {
    let memory = match info.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Reading::Known(bytes),
        UsedGpuMemory::Unavailable => Reading::Unsupported,
    };
    GpuProcess { pid: info.pid, memory }
}

/// The reasons in words. That an idle GPU clocks down is no news.
fn words(reasons: ThrottleReasons) -> Vec<String> {
    [
        (ThrottleReasons::SW_POWER_CAP, "power_cap"),
        (ThrottleReasons::HW_SLOWDOWN, "hardware_slowdown"),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, "thermal"),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, "hardware_thermal"),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "power_brake"),
        (ThrottleReasons::SYNC_BOOST, "sync_boost"),
        (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, "clocks_setting"),
        (ThrottleReasons::DISPLAY_CLOCK_SETTING, "display_clocks"),
    ]
    .into_iter()
    .filter(|(reason, _)| reasons.contains(*reason))
    .map(|(_, word)| word.to_owned())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const _: fn() = || {
        fn shared_between_threads<T: Send + Sync>() {}
        shared_between_threads::<Gpus>();
        shared_between_threads::<NoGpus>();
    };

    #[test]
    fn a_machine_without_the_library_is_told_from_one_that_is_broken() {
        let absent = Gpus::open(Some(OsStr::new("libno-such-thing-ml.so.1"))).unwrap_err();
        assert!(matches!(absent, NoGpus::NoLibrary { .. }), "{absent:?}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no library").unwrap();
        let broken = Gpus::open(Some(file.path().as_os_str())).unwrap_err();
        assert!(matches!(broken, NoGpus::Broken { .. }), "{broken:?}");
    }

    #[test]
    fn an_error_that_may_pass_is_not_called_unsupported() {
        assert_eq!(reading::<u32>(Err(NvmlError::GpuLost)), Reading::Failed);
        assert_eq!(reading::<u32>(Err(NvmlError::NotSupported)), Reading::Unsupported);
    }

    #[test]
    fn idling_is_not_throttling() {
        assert!(words(ThrottleReasons::GPU_IDLE).is_empty());
        let hot = ThrottleReasons::GPU_IDLE | ThrottleReasons::SW_THERMAL_SLOWDOWN;
        assert_eq!(words(hot), ["thermal"]);
    }
}
