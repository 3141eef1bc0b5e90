//! Asks NVIDIA's management library, which is loaded while the program runs: a machine without it
//! is an ordinary machine.
//!
//! Nothing here keeps a handle: every look finds its GPU again, so a GPU that fell off the bus
//! spoils its own readings and no others. What was once seen stays listed, because a GPU that is
//! gone is news, not a shorter list. The library itself lists GPUs once, and keeps their devices
//! open, without which no reset succeeds: while one is ill, it is to be opened anew for each look.

use std::env;
use std::ffi::{OsStr, OsString};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION;
use nvml_wrapper::{Device, Nvml};

use super::fault::{GpuFault, RecoveryAction};
use super::reading::{GpuProcess, GpuReading, Reading};

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

impl Seen {
    fn is(&self, which: Which<'_>) -> bool {
        match which {
            Which::Index(index) => self.index == index,
            Which::Uuid(uuid) => self.uuid == uuid,
        }
    }
}

/// One look at one GPU, with what the driver says against it.
#[derive(Clone, Debug)]
pub struct Examined {
    /// What its sensors say. `None`: it was never there.
    pub reading: Option<GpuReading>,
    /// The driver's own word; that no sensor answers is judged by whoever knows how it was before.
    pub fault: Option<GpuFault>,
}

/// The GPUs of this machine.
#[derive(Debug)]
pub struct Gpus {
    library: OsString,
    /// `None`: it was closed, and could not be opened again.
    nvml: Option<Nvml>,
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
        let mut gpus = Self { library, nvml: None, seen: Mutex::default() };
        gpus.reopen()?;
        Ok(gpus)
    }

    /// Closes the library, which lets go of all devices, and opens it again: it lists only GPUs
    /// that were there when it was opened. What was seen before stays known.
    ///
    /// # Errors
    ///
    /// When it does not work now. It stays closed then, and every reading fails.
    pub fn reopen(&mut self) -> Result<(), NoGpus> {
        self.nvml = None;
        let nvml = Nvml::builder().lib_path(&self.library).init();
        self.nvml = Some(nvml.map_err(|error| NoGpus::new(&self.library, error))?);
        self.list(); // whoever is lost later was seen now
        Ok(())
    }

    fn nvml(&self) -> Result<&Nvml, NvmlError> {
        self.nvml.as_ref().ok_or(NvmlError::Uninitialized)
    }

    fn count(&self) -> u32 {
        self.nvml().and_then(Nvml::device_count).unwrap_or(0)
    }

    /// One look at every GPU there is, and at every one that was there since this was opened.
    pub fn list(&self) -> Vec<GpuReading> {
        let mut all: Vec<_> = (0..self.count()).map(|index| self.read_at(index)).collect();
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
        self.examine(which).reading
    }

    /// The same, with what the driver says against it.
    pub fn examine(&self, which: Which<'_>) -> Examined {
        let error = match self.find(which) {
            Ok(device) => {
                let (reading, fault) = self.look(&device, which);
                return Examined { reading: Some(reading), fault };
            }
            Err(error) => error,
        };
        // What is said of a name, or of a number, that the driver does not list.
        let missing = matches!(error, NvmlError::NotFound | NvmlError::InvalidArg);
        let fault = fault_of(&error).or(missing.then_some(GpuFault::Missing));
        let lost = self.seen().into_iter().find(|seen| seen.is(which));
        let reading = lost.map(|lost| GpuReading::failed(lost.index, Some(lost.uuid)));
        Examined { reading, fault }
    }

    /// Watches for errors of the driver on one GPU. `None` where they cannot be had.
    pub fn xid_events(&self, which: Which<'_>) -> Option<XidEvents<'_>> {
        let set = self.nvml().and_then(Nvml::create_event_set).ok()?;
        let device = self.find(which).ok()?;
        let registered = device.register_events(EventTypes::CRITICAL_XID_ERROR, set);
        registered.ok().map(XidEvents)
    }

    /// The name for life of the GPU with this number, also of one that is lost.
    pub fn uuid_of(&self, index: u32) -> Option<String> {
        let now = self.nvml().and_then(|nvml| nvml.device_by_index(index));
        now.and_then(|device| device.uuid()).ok().or_else(|| {
            self.seen().into_iter().find(|seen| seen.index == index).map(|seen| seen.uuid)
        })
    }

    fn find(&self, which: Which<'_>) -> Result<Device<'_>, NvmlError> {
        let nvml = self.nvml()?;
        match which {
            Which::Index(index) => nvml.device_by_index(index),
            // To find one by its name the driver asks others, and fails where one of those does.
            Which::Uuid(uuid) => nvml.device_by_uuid(uuid).or_else(|error| {
                let mut all = (0..self.count()).filter_map(|i| nvml.device_by_index(i).ok());
                all.find(|device| device.uuid().is_ok_and(|name| name == uuid)).ok_or(error)
            }),
        }
    }

    fn read_at(&self, index: u32) -> GpuReading {
        match self.find(Which::Index(index)) {
            Ok(device) => self.look(&device, Which::Index(index)).0,
            // A lost GPU still counts; the driver does not even hand out its handle.
            Err(_lost) => GpuReading::failed(index, self.uuid_of(index)),
        }
    }

    fn look(&self, device: &Device<'_>, which: Which<'_>) -> (GpuReading, Option<GpuFault>) {
        let before = self.seen().into_iter().find(|seen| seen.is(which));
        let index = device.index().ok().or(match which {
            Which::Index(index) => Some(index),
            Which::Uuid(_) => before.as_ref().map(|seen| seen.index),
        });
        let index = index.unwrap_or(u32::MAX);
        let uuid = device.uuid().ok().or(before.map(|seen| seen.uuid));
        if let Some(uuid) = &uuid {
            self.remember(index, uuid);
        }
        let mut answers = Answers { fault: recovery(device) };
        let memory = answers.reading(device.memory_info());
        let temperature = device.temperature(TemperatureSensor::Gpu);
        let gpu = GpuReading {
            index,
            uuid,
            name: answers.reading(device.name()),
            memory_total: memory.as_ref().map(|memory| memory.total),
            memory_used: memory.as_ref().map(|memory| memory.used),
            memory_reserved: memory.map(|memory| memory.reserved),
            utilization: answers.reading(device.utilization_rates()).map(|rates| rates.gpu),
            temperature: answers.reading(temperature),
            power_watts: answers
                .reading(device.power_usage())
                .map(|milli| f64::from(milli) / 1000.0),
            throttle: answers.reading(device.current_throttle_reasons()).map(words),
            processes: processes(device),
        };
        (gpu, answers.fault)
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

/// Errors of the driver on one GPU, as they happen.
#[derive(Debug)]
pub struct XidEvents<'a>(EventSet<'a>);

impl XidEvents<'_> {
    /// Waits for the next one. `None` where none came, or nothing can be heard any more: then also
    /// without having waited.
    pub fn next(&self, wait: Duration) -> Option<u64> {
        let millis = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        match self.0.wait(millis).ok()?.event_data? {
            XidError::Value(xid) => Some(xid),
            XidError::Unknown => None,
        }
    }
}

/// Answers to the questions of one look; what is said against the GPU on the way is kept.
struct Answers {
    fault: Option<GpuFault>,
}

impl Answers {
    fn reading<T>(&mut self, answer: Result<T, NvmlError>) -> Reading<T> {
        self.fault = self.fault.or_else(|| fault_of(answer.as_ref().err()?));
        reading(answer)
    }
}

/// What an error says against the GPU that was asked; most say something about the question.
fn fault_of(error: &NvmlError) -> Option<GpuFault> {
    let lost = matches!(error, NvmlError::GpuLost).then_some(GpuFault::Lost);
    lost.or(matches!(error, NvmlError::ResetRequired).then_some(GpuFault::ResetRequired))
}

/// What the driver wants done with the GPU, where it can say that.
fn recovery(device: &Device<'_>) -> Option<GpuFault> {
    let field = FieldId(NVML_FI_DEV_GET_GPU_RECOVERY_ACTION);
    let sample = device.field_values_for(&[field]).ok()?.pop()?.ok()?;
    let number = match sample.value.ok()? {
        SampleValue::U32(number) => u64::from(number),
        SampleValue::U64(number) => number,
        SampleValue::F64(_) | SampleValue::I64(_) => return None,
    };
    RecoveryAction::of_number(number).map(GpuFault::Recovery)
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
    let drawing = match reading(device.running_graphics_processes()) {
        Reading::Known(drawing) => drawing,
        // A card without a display has none that draw.
        Reading::Unsupported => Vec::new(),
        Reading::Failed => return Reading::Failed,
    };
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
